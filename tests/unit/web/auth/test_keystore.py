"""Replicas agree on the keys through the API server, whatever they do at once and whatever becomes of it."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives import serialization

from sessionpools.api.names import ANNOTATION_ROTATE_AT
from sessionpools.kube import client
from sessionpools.kube.protocol import CONFIG_MAPS, SECRETS, Conflict, Forbidden, Json, KubeError, Unreachable
from sessionpools.web.auth import keystore, tokens
from sessionpools.web.auth.errors import KeysUnavailable, UnknownKey
from sessionpools.web.auth.identity import Principal, Role
from sessionpools.web.auth.keys import LEAD_SECONDS, PERIOD_SECONDS
from sessionpools.web.auth.keystore import PUBLIC_KEYS, SECRET_KEYS, KeyRing
from support.apiserver import ApiServer
from support.auth import DAY, HOUR, MINUTE, NOON, Clock
from support.waiting import until

NAMESPACE = "session-pools"
ADA = Principal("ada", Role.READER)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF_SECONDS", 0.001)


@dataclass
class World:
    server: ApiServer
    clock: Clock

    async def replica(self) -> KeyRing:
        api = await self.server.connect(component="session-pools-web")
        return KeyRing(api, NAMESPACE, labels={"app.kubernetes.io/name": "session-pools"}, clock=self.clock)

    def secret(self) -> Json:
        return self.server.store.get(SECRETS, SECRET_KEYS, NAMESPACE)

    def document(self) -> Json:
        document: Json = json.loads(base64.b64decode(self.secret()["data"]["keys.json"]))
        return document

    def kids(self) -> list[str]:
        return [key["kid"] for key in self.document()["keys"]]

    def published(self) -> dict[str, str]:
        data: dict[str, str] = self.server.store.get(CONFIG_MAPS, PUBLIC_KEYS, NAMESPACE)["data"]
        return data

    def annotate(self, text: str) -> None:
        patch = {"metadata": {"annotations": {ANNOTATION_ROTATE_AT: text}}}
        self.server.store.patch(SECRETS, SECRET_KEYS, patch, NAMESPACE)

    def token(self, ring: KeyRing) -> str:
        return tokens.issue(ring.signing_key(), ADA, self.clock()).token

    def believes(self, ring: KeyRing, token: str) -> bool:
        return tokens.verify(token, ring.public_key, self.clock()).principal == ADA


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with ApiServer() as server:
        yield World(server, Clock())


async def test_the_first_start_makes_a_key_that_signs_and_one_for_later_and_publishes_both(world: World) -> None:
    ring = await world.replica()
    assert not ring.ready
    await ring.sync()
    assert ring.ready
    assert [key.signs_from for key in ring.keys.keys] == [int(NOON), int(NOON) + PERIOD_SECONDS]
    assert set(world.published()) == {f"{kid}.pem" for kid in world.kids()}
    for key in ring.keys.keys:
        read = serialization.load_pem_public_key(world.published()[f"{key.kid}.pem"].encode())
        assert read == key.public
    assert world.believes(ring, world.token(ring))
    assert world.secret()["type"] == "Opaque"
    assert world.secret()["metadata"]["labels"] == {"app.kubernetes.io/name": "session-pools"}


async def test_nothing_private_is_published(world: World) -> None:
    await (await world.replica()).sync()
    assert all("PRIVATE" not in text for text in world.published().values())


async def test_nothing_is_written_when_nothing_is_due(world: World) -> None:
    one, other = await world.replica(), await world.replica()
    await one.sync()
    world.server.requests.clear()
    for _ in range(3):
        world.clock.pass_by(DAY)
        await one.sync()
        await other.sync()
    assert world.server.writes() == []


async def test_of_two_replicas_that_start_at_once_one_makes_the_keys_and_both_use_them(world: World) -> None:
    one, other = await world.replica(), await world.replica()
    world.server.delay("create", SECRETS, 0.5, times=2, before=True)  # both are on their way before either is done
    await asyncio.gather(one.sync(), other.sync())
    created = [each.status for each in world.server.writes(SECRETS)]
    assert sorted(created) == [201, 409]
    assert one.keys == other.keys
    assert world.believes(other, world.token(one))
    assert world.believes(one, world.token(other))
    assert set(world.published()) == {f"{kid}.pem" for kid in world.kids()}


async def test_of_two_replicas_one_fills_the_secret_that_the_chart_has_made_empty(world: World) -> None:
    for resource, name in ((SECRETS, SECRET_KEYS), (CONFIG_MAPS, PUBLIC_KEYS)):
        world.server.store.create(resource, {"metadata": {"name": name, "labels": {"helm": "mine"}}}, NAMESPACE)
    one, other = await world.replica(), await world.replica()
    world.server.delay("patch", SECRETS, 0.5, times=2, before=True)
    await asyncio.gather(one.sync(), other.sync())
    assert sorted(each.status for each in world.server.writes(SECRETS)) == [200, 409]
    assert one.keys == other.keys
    assert world.believes(other, world.token(one))
    assert {each.verb for each in world.server.writes()} == {"patch"}, "no right to create is needed"
    assert world.secret()["metadata"]["labels"] == {"helm": "mine"}


async def test_the_keys_turn_every_period_and_a_token_of_the_old_one_is_good_for_its_hour(world: World) -> None:
    ring = await world.replica()
    await ring.sync()
    first, second = world.kids()
    world.clock.pass_by(PERIOD_SECONDS - 1)
    token = world.token(ring)
    assert ring.signing_key().kid == first
    world.clock.pass_by(1)
    assert ring.signing_key().kid == second, "at its time, even before the next look"
    await ring.sync()
    assert world.kids()[:2] == [first, second]
    assert len(world.kids()) == 3
    world.clock.pass_by(HOUR - 2)
    await ring.sync()
    assert world.believes(ring, token)
    world.clock.pass_by(HOUR)
    await ring.sync()
    assert first not in world.kids()
    assert f"{first}.pem" not in world.published()
    assert len(world.published()) == 2


async def test_the_annotation_turns_the_keys_at_once_without_a_token_lost(world: World) -> None:
    one, other = await world.replica(), await world.replica()
    await one.sync()
    await other.sync()
    _, second = world.kids()
    world.clock.pass_by(DAY)
    token = world.token(other)
    world.annotate("2027-01-16T12:00:00Z")
    await one.sync()
    assert one.signing_key().kid == second
    assert world.believes(other, world.token(one)), "the other, which has not looked yet, has long known the key"
    assert world.believes(one, world.token(other))
    await other.sync()
    assert other.signing_key().kid == second
    assert world.believes(one, token)
    count = len(world.server.writes(SECRETS))
    world.clock.pass_by(MINUTE)
    await one.sync()
    assert len(world.server.writes(SECRETS)) == count, "once"


async def test_a_second_turn_right_after_the_first_waits_until_the_gateways_know_the_key(world: World) -> None:
    ring = await world.replica()
    await ring.sync()
    world.clock.pass_by(DAY)
    world.annotate("2027-01-16T12:00:00Z")
    await ring.sync()
    second, third = ring.keys.keys[-2:]
    world.clock.pass_by(MINUTE)
    world.annotate("2027-01-16T12:01:00+00:00")
    await ring.sync()
    assert ring.signing_key().kid == second.kid
    world.clock.pass_by(LEAD_SECONDS - MINUTE)
    assert ring.signing_key().kid == third.kid


@pytest.mark.parametrize("text", ["now", "2027-01-16", "2027-01-16T12:00:00"])
async def test_an_annotation_that_is_no_time_changes_nothing_and_is_logged(
    world: World, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    ring = await world.replica()
    await ring.sync()
    before = ring.keys
    world.clock.pass_by(2 * DAY)
    world.annotate(text)
    await ring.sync()
    assert ring.keys == before
    assert any(each.levelno == logging.WARNING and each.__dict__.get("value") == text for each in caplog.records)


async def test_emptying_the_secret_makes_every_token_invalid(world: World) -> None:
    ring = await world.replica()
    await ring.sync()
    token = world.token(ring)
    world.server.store.patch(SECRETS, SECRET_KEYS, {"data": None}, NAMESPACE)
    await ring.sync()
    with pytest.raises(UnknownKey):
        world.believes(ring, token)
    assert world.believes(ring, world.token(ring))
    assert set(world.published()) == {f"{kid}.pem" for kid in world.kids()}


async def test_a_secret_that_can_not_be_read_is_not_overwritten_and_the_known_keys_hold(world: World) -> None:
    ring = await world.replica()
    await ring.sync()
    good = world.secret()["data"]["keys.json"]
    world.server.store.patch(SECRETS, SECRET_KEYS, {"data": {"keys.json": "e30="}}, NAMESPACE)
    world.server.requests.clear()
    with pytest.raises(
        KeysUnavailable, match=r"Secret session-pools/session-pools-keys, keys\.json: version: Field req"
    ):
        await ring.sync()
    assert world.server.writes() == []
    assert world.believes(ring, world.token(ring))
    new = await world.replica()
    with pytest.raises(KeysUnavailable):
        await new.sync()
    assert not new.ready
    world.server.store.patch(SECRETS, SECRET_KEYS, {"data": {"keys.json": good}}, NAMESPACE)
    await new.sync()
    assert new.keys == ring.keys


async def test_what_somebody_changed_in_the_published_keys_is_put_right(world: World) -> None:
    ring = await world.replica()
    await ring.sync()
    good = dict(world.published())
    forged = {"data": {next(iter(good)): None, "forged.pem": "-----BEGIN PUBLIC KEY-----"}}
    world.server.store.patch(CONFIG_MAPS, PUBLIC_KEYS, forged, NAMESPACE)
    await ring.sync()
    assert world.published() == good


async def test_a_replica_that_has_fallen_behind_does_not_put_old_keys_back(world: World) -> None:
    behind, other = await world.replica(), await world.replica()
    await behind.sync()
    await other.sync()
    first = world.kids()[0]
    world.server.store.patch(CONFIG_MAPS, PUBLIC_KEYS, {"data": {f"{first}.pem": None}}, NAMESPACE)
    overtaken = False

    def overtake(request: object) -> None:
        """When `behind` is about to write what it has read: everything is new."""
        nonlocal overtaken
        if not overtaken:
            overtaken = True
            document = world.document()
            document["keys"] = document["keys"][1:]
            content = base64.b64encode(json.dumps(document).encode()).decode()
            world.server.store.patch(SECRETS, SECRET_KEYS, {"data": {"keys.json": content}}, NAMESPACE)
            world.server.store.patch(CONFIG_MAPS, PUBLIC_KEYS, {"metadata": {"labels": {"new": "1"}}}, NAMESPACE)

    world.server.on_write.append(overtake)
    await behind.sync()
    assert overtaken
    assert first not in world.kids()
    assert f"{first}.pem" not in world.published()
    assert behind.keys.find(first) is None


async def test_without_the_api_server_the_known_keys_sign_and_verify(world: World) -> None:
    ring = await world.replica()
    await ring.sync()
    await world.server.stop()
    with pytest.raises(Unreachable):
        await ring.sync()
    assert world.believes(ring, world.token(ring))
    world.clock.pass_by(PERIOD_SECONDS)
    assert world.believes(ring, world.token(ring))


async def test_a_replica_that_has_never_seen_the_keys_says_so(world: World) -> None:
    world.server.fail("*", SECRETS, 403, times=2, message="secrets is forbidden")
    ring = await world.replica()
    with pytest.raises(KeysUnavailable, match="they have not been read yet"):
        ring.signing_key()
    with pytest.raises(Forbidden):
        await ring.sync()
    assert ring.public_key("any") is None
    assert ring.jwks() == {"keys": []}


async def test_keys_that_could_not_be_published_do_not_sign(world: World) -> None:
    world.server.fail("create", CONFIG_MAPS, 500)
    ring = await world.replica()
    with pytest.raises(KubeError):
        await ring.sync()
    assert world.kids()
    assert not ring.ready
    await ring.sync()
    assert ring.ready


async def test_a_write_whose_answer_was_lost_is_found_done(world: World) -> None:
    world.server.fail("create", SECRETS, 0, after=True)
    ring = await world.replica()
    with pytest.raises(KubeError):
        await ring.sync()
    made = world.kids()
    await ring.sync()
    assert [key.kid for key in ring.keys.keys] == made
    assert ring.ready


async def test_a_replica_that_always_loses_gives_up_and_tries_again_later(world: World) -> None:
    ring = await world.replica()
    await ring.sync()
    world.server.store.patch(CONFIG_MAPS, PUBLIC_KEYS, {"data": {"other.pem": "x"}}, NAMESPACE)
    world.server.fail("patch", CONFIG_MAPS, 409, times=5, reason="Conflict")
    with pytest.raises(Conflict):
        await ring.sync()
    await ring.sync()
    assert "other.pem" not in world.published()


async def test_running_a_replica_syncs_again_and_again_and_logs_trouble_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keystore, "SYNC_SECONDS", 0.01)
    world.server.fail("get", SECRETS, 403, times=3, message="secrets is forbidden")
    caplog.set_level(logging.INFO)
    ring = await world.replica()
    running = asyncio.create_task(ring.run())
    try:
        await until(lambda: ring.ready, "the keys")
        first = world.kids()[0]
        world.clock.pass_by(DAY)
        world.annotate("2027-01-16T12:00:00Z")
        await until(lambda: ring.signing_key().kid != first, "the keys to turn")
    finally:
        running.cancel()
    lines = [each.message for each in caplog.records if each.name == keystore.__name__]
    assert lines.count("keys not read or written: the last ones hold") == 1
    assert lines.count("keys read") == 1
    assert all("PRIVATE" not in json.dumps(each.__dict__, default=str) for each in caplog.records)


async def test_a_release_of_another_name_has_objects_of_its_own(world: World) -> None:
    api = await world.server.connect(component="session-pools-web")
    public = "team-b-session-pools-keys-public"
    theirs = KeyRing(api, NAMESPACE, secret="team-b-session-pools-keys", config_map=public, clock=world.clock)
    ours = await world.replica()
    await theirs.sync()
    await ours.sync()
    (kid, _) = (key.kid for key in theirs.keys.keys)
    assert kid not in world.kids()
    assert f"{kid}.pem" in world.server.store.get(CONFIG_MAPS, public, NAMESPACE)["data"]
    assert world.believes(theirs, world.token(theirs))
    with pytest.raises(UnknownKey):
        world.believes(ours, world.token(theirs))
