"""A refresh token is good once, for 14 days; a lost answer costs nothing, a stolen token ends the login it is of."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from sessionpools.web.auth.errors import RefreshRefused
from sessionpools.web.auth.identity import Identity, Role
from sessionpools.web.auth.refresh import Redeemed, RefreshTokens, Verdict, judge, replaced, started, successor_of
from sessionpools.web.store.errors import StoreUnavailable
from sessionpools.web.store.objects import ObjectStore
from support.auth import DAY, HOUR, NOON, Clock

ADA = Identity("ada", Role.CONTRIBUTOR, "stamp-1")


@dataclass
class World:
    """Two replicas of the web API on one store."""

    directory: Path
    clock: Clock = field(default_factory=Clock)
    users: dict[str, Identity] = field(default_factory=lambda: {"ada": ADA})

    def replica(self) -> RefreshTokens:
        return RefreshTokens(ObjectStore.open(str(self.directory)), clock=self.clock)

    async def find(self, name: str) -> Identity | None:
        return self.users.get(name)

    async def redeem(self, token: str, replica: RefreshTokens | None = None) -> Redeemed:
        return await (replica or self.replica()).redeem(token, self.find)

    async def refused(self, token: str, why: str) -> None:
        with pytest.raises(RefreshRefused) as refused:
            await self.redeem(token)
        assert refused.value.reason == why

    def files(self) -> list[Path]:
        return [path for path in self.directory.rglob("*.json") if path.is_file()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_refresh_token_is_exchanged_for_its_user_and_the_next_token(world: World) -> None:
    token = await world.replica().issue(ADA)
    redeemed = await world.redeem(token)
    assert redeemed.identity == ADA
    assert redeemed.token != token
    assert (await world.redeem(redeemed.token)).identity == ADA


async def test_a_token_is_64_characters_that_fit_a_query_as_they_are(world: World) -> None:
    token = await world.replica().issue(ADA)
    assert len(token) == 64
    assert token.replace("-", "").replace("_", "").isalnum()


async def test_no_token_is_kept(world: World) -> None:
    first = await world.replica().issue(ADA)
    second = (await world.redeem(first)).token
    [file] = world.files()
    for token in (first, second):
        secret = base64.urlsafe_b64decode(token)[16:]
        assert token not in file.read_text()
        assert secret.hex() not in file.read_text()
        assert secret not in file.read_bytes()


async def test_a_lost_answer_is_asked_for_again_and_is_the_same(world: World) -> None:
    token = await world.replica().issue(ADA)
    answer = await world.redeem(token)
    world.clock.pass_by(29)
    assert await world.redeem(token) == answer
    assert (await world.redeem(answer.token)).identity == ADA


async def test_two_replicas_that_are_asked_at_once_give_the_same_answer(world: World) -> None:
    one, other = world.replica(), world.replica()
    token = await one.issue(ADA)
    for _ in range(20):
        answers = await asyncio.gather(*(world.redeem(token, each) for each in (one, other, one, other)))
        assert len({answer.token for answer in answers}) == 1
        token = answers[0].token
        world.clock.pass_by(HOUR)


async def test_a_used_token_that_comes_back_ends_the_login(world: World, caplog: pytest.LogCaptureFixture) -> None:
    stolen = await world.replica().issue(ADA)
    owners = (await world.redeem(stolen)).token
    world.clock.pass_by(30)
    await world.refused(stolen, "used before")
    await world.refused(owners, "revoked")
    [line] = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert line.__dict__["user"] == "ada"
    assert stolen not in str(line.__dict__)


async def test_a_token_two_steps_back_ends_the_login_however_soon_it_comes(world: World) -> None:
    stolen = await world.replica().issue(ADA)
    second = (await world.redeem(stolen)).token
    third = (await world.redeem(second)).token
    await world.refused(stolen, "used before")
    await world.refused(third, "revoked")


async def test_other_logins_of_the_user_go_on(world: World) -> None:
    stolen, laptop = await world.replica().issue(ADA), await world.replica().issue(ADA)
    await world.redeem(stolen)
    world.clock.pass_by(HOUR)
    await world.refused(stolen, "used before")
    assert await world.redeem(laptop)


async def test_a_token_lives_14_days_and_each_use_gives_another_14(world: World) -> None:
    token = await world.replica().issue(ADA)
    for _ in range(3):
        world.clock.pass_by(14 * DAY - 1)
        token = (await world.redeem(token)).token
    world.clock.pass_by(14 * DAY)
    await world.refused(token, "expired")


async def test_after_90_days_it_takes_a_login(world: World) -> None:
    token = await world.replica().issue(ADA)
    for _ in range(9):
        world.clock.pass_by(10 * DAY - 1)
        token = (await world.redeem(token)).token
    world.clock.pass_by(8)
    token = (await world.redeem(token)).token
    world.clock.pass_by(1)
    await world.refused(token, "expired")


async def test_an_expired_token_is_not_repeated_either(world: World) -> None:
    token = await world.replica().issue(ADA)
    world.clock.pass_by(14 * DAY - 1)
    world.clock.pass_by(1)
    await world.refused(token, "expired")
    await world.refused(token, "expired")


async def test_a_revoked_token_stays_revoked(world: World) -> None:
    token = await world.replica().issue(ADA)
    assert await world.replica().revoke(token) == "ada"
    await world.refused(token, "revoked")
    assert await world.replica().revoke(token) == "ada"


async def test_revoking_a_token_that_was_replaced_ends_its_successors(world: World) -> None:
    token = await world.replica().issue(ADA)
    successor = (await world.redeem(token)).token
    await world.replica().revoke(token)
    await world.refused(successor, "revoked")
    await world.refused(token, "revoked")


async def test_revoking_while_others_refresh_holds(world: World) -> None:
    one, other = world.replica(), world.replica()
    for _ in range(10):
        token = await one.issue(ADA)
        redeemed, revoked = await asyncio.gather(
            world.redeem(token, one), other.revoke(token), return_exceptions=True
        )  # fmt: skip
        assert revoked == "ada"
        for each in (token, redeemed.token if isinstance(redeemed, Redeemed) else token):
            await world.refused(each, "revoked")


async def test_a_user_who_is_gone_is_refused_also_after_coming_back(world: World) -> None:
    token = await world.replica().issue(ADA)
    del world.users["ada"]
    await world.refused(token, "the user is gone")
    world.users["ada"] = ADA
    await world.refused(token, "revoked")


async def test_a_new_password_ends_what_was_issued_before(world: World) -> None:
    before = await world.replica().issue(ADA)
    world.users["ada"] = changed = replace(ADA, stamp="stamp-2")
    after = await world.replica().issue(changed)
    await world.refused(before, "the password has changed")
    world.users["ada"] = ADA
    await world.refused(before, "revoked")
    world.users["ada"] = changed
    assert await world.redeem(after)


async def test_a_new_role_holds_from_the_next_refresh_on(world: World) -> None:
    token = await world.replica().issue(ADA)
    world.users["ada"] = replace(ADA, role=Role.READER)
    assert (await world.redeem(token)).identity.role is Role.READER


@pytest.mark.parametrize("token", ["", "x", "A" * 64, "A" * 63, "A" * 4096, "ä" * 64, "../" * 21 + "x", "A" * 63 + "="])
async def test_what_is_no_token_of_ours_is_unknown(world: World, token: str) -> None:
    await world.refused(token, "unknown")
    with pytest.raises(RefreshRefused):
        await world.replica().revoke(token)


async def test_an_object_that_was_damaged_lets_nobody_in(world: World) -> None:
    token = await world.replica().issue(ADA)
    [file] = world.files()
    file.write_text('{"version": 2}')
    await world.refused(token, "unreadable")


async def test_a_store_that_is_not_there_uses_no_token_up(world: World, tmp_path: Path) -> None:
    class Gone(ObjectStore):
        async def update(self, *_: object) -> None:  # type: ignore[override]
            raise StoreUnavailable("store: no answer in time")

    token = await world.replica().issue(ADA)
    gone = RefreshTokens(Gone.open(str(tmp_path)), clock=world.clock)
    with pytest.raises(StoreUnavailable):
        await world.redeem(token, gone)
    assert await world.redeem(token)


async def test_an_answer_of_the_store_that_was_lost_is_made_up_for_by_a_retry(world: World, tmp_path: Path) -> None:
    class Lossy(ObjectStore):
        async def update(self, *arguments: object) -> None:  # type: ignore[override]
            await super().update(*arguments)  # type: ignore[arg-type]
            raise StoreUnavailable("store: no answer in time")

    token = await world.replica().issue(ADA)
    with pytest.raises(StoreUnavailable):
        await world.redeem(token, RefreshTokens(Lossy.open(str(tmp_path)), clock=world.clock))
    assert (await world.redeem((await world.redeem(token)).token)).identity == ADA


async def test_a_store_without_logins_has_nothing_to_collect(world: World) -> None:
    await world.replica().expire()
    assert world.files() == []


async def test_what_nobody_can_use_any_more_is_collected(world: World) -> None:
    used, unused = await world.replica().issue(ADA), await world.replica().issue(ADA)
    for file in world.files():
        os.utime(file, (NOON, NOON))
    world.clock.pass_by(13 * DAY)
    used = (await world.redeem(used)).token
    [newest] = [file for file in world.files() if file.stat().st_mtime != NOON]
    os.utime(newest, (world.clock.now, world.clock.now))
    await world.replica().expire()
    assert len(world.files()) == 2
    world.clock.pass_by(2 * DAY + 1)
    await world.replica().expire()
    assert world.files() == [newest]
    await world.refused(unused, "unknown")
    assert await world.redeem(used)


SECRET, OTHER = b"s" * 32, b"o" * 32


def test_a_family_judges_by_what_it_was_told() -> None:
    first = started(ADA, SECRET, NOON)
    second = replaced(first, SECRET, OTHER, NOON)
    assert judge(first, SECRET, NOON + 14 * DAY - 1) is Verdict.REPLACE
    assert judge(first, SECRET, NOON + 14 * DAY) is Verdict.EXPIRED
    assert judge(first, OTHER, NOON) is Verdict.REUSED
    assert judge(second, SECRET, NOON + 29) is Verdict.REPEAT
    assert judge(second, SECRET, NOON + 30) is Verdict.REUSED
    assert judge(second, OTHER, NOON + 30) is Verdict.REPLACE
    assert judge(second.model_copy(update={"revoked": "x"}), OTHER, NOON) is Verdict.REVOKED


def test_only_the_secret_before_tells_the_one_after() -> None:
    family = replaced(started(ADA, SECRET, NOON), SECRET, OTHER, NOON)
    assert successor_of(family, SECRET) == OTHER
    assert successor_of(family, b"x" * 32) != OTHER


def test_what_was_redeemed_does_not_show_its_token() -> None:
    assert "abc" not in repr(Redeemed(ADA, "abc"))
