"""A reflector's copy stays true, whatever happens to its watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sessionpools.kube import reflector
from sessionpools.kube.client import HttpKubeApi
from sessionpools.kube.protocol import CONFIG_MAPS, NODES, Gone, Json, Resource
from sessionpools.kube.reflector import Reflector
from support.apiserver import ApiServer
from support.following import Followed, View, following
from support.kubelet import make_node
from support.waiting import until


@pytest.fixture
async def followed(server: ApiServer, api: HttpKubeApi) -> AsyncIterator[Followed]:
    """Synced, with the objects a and b."""
    for name in "ab":
        server.store.create(CONFIG_MAPS, {"metadata": {"name": name}, "data": {"value": "1"}}, "demo")
    async with following(server, api) as followed:
        await asyncio.wait_for(followed.reflector.synced.wait(), 10)
        await until(lambda: server.watches == 1, "the watch")
        yield followed


async def test_the_first_list_is_told_and_then_synced(followed: Followed) -> None:
    assert followed.changes == [(None, "a=1"), (None, "b=1")]
    assert followed.held() == {"a": "1", "b": "1"}


async def test_changes_are_told_in_order_with_what_was_before(followed: Followed) -> None:
    followed.changes.clear()
    followed.put("c", "1")
    followed.put("a", "2")
    followed.remove("b")
    await until(lambda: len(followed.changes) == 3, "three changes")
    assert followed.changes == [(None, "c=1"), ("a=1", "a=2"), ("b=1", None)]
    assert followed.held() == {"a": "2", "c": "1"}


async def test_get_finds_by_namespace_and_name(followed: Followed) -> None:
    view = followed.reflector.get("demo", "a")
    assert view is not None and view.value == "1"
    assert followed.reflector.get("other", "a") is None
    assert followed.reflector.get("demo", "z") is None


async def test_a_list_longer_than_a_page_is_read_to_its_end(server: ApiServer, api: HttpKubeApi) -> None:
    for number in range(1201):
        server.store.create(CONFIG_MAPS, {"metadata": {"name": f"c-{number}"}, "data": {"value": "1"}}, "demo")
    async with following(server, api) as followed:
        await asyncio.wait_for(followed.reflector.synced.wait(), 20)
        assert len(followed.reflector) == 1201
        assert followed.count("list") == 3


# --- the watch is lost ------------------------------------------------------------------------------------------------


async def test_a_broken_watch_is_continued_where_it_was_without_a_list(followed: Followed) -> None:
    followed.changes.clear()
    followed.server.pause_watches()  # what happens while it is down is told after it
    followed.server.drop_watches()
    followed.put("a", "2")
    followed.remove("b")
    followed.server.resume_watches()
    await until(lambda: len(followed.changes) == 2, "both changes")
    assert followed.changes == [("a=1", "a=2"), ("b=1", None)]
    assert followed.count("list") == 1


async def test_an_object_deleted_while_the_history_was_lost_is_noticed(followed: Followed) -> None:
    followed.changes.clear()
    followed.server.pause_watches()
    followed.remove("b")
    followed.put("c", "1")
    followed.server.store.compact()
    followed.server.resume_watches(lost=True)
    await until(lambda: followed.count("list") == 2, "a new list")
    await followed.caught_up()
    assert followed.changes[:2] == [("b=1", None), (None, "c=1")]
    assert "b" not in followed.held()


async def test_an_object_made_anew_under_its_name_meanwhile_is_told_as_gone_and_new(followed: Followed) -> None:
    followed.views.clear()
    followed.server.pause_watches()
    followed.remove("b")
    followed.put("b", "1")
    followed.server.store.compact()
    followed.server.resume_watches(lost=True)
    await until(lambda: len(followed.views) == 2, "both changes")
    (old, gone), (nothing, new) = followed.views
    assert (gone, nothing) == (None, None)
    assert old and new and old.uid != new.uid


async def test_what_did_not_change_is_not_told_again_by_a_new_list(followed: Followed) -> None:
    followed.changes.clear()
    followed.server.resume_watches(lost=True)
    await until(lambda: followed.count("list") == 2, "a new list")
    await followed.caught_up()
    assert [new for _, new in followed.changes if new and not new.startswith("marker")] == []


async def test_bookmarks_let_a_quiet_watch_continue_after_the_history_moved_on(followed: Followed) -> None:
    for number in range(5):  # elsewhere: this reflector's own resource stays quiet
        followed.server.store.create(NODES, make_node(f"worker-{number}"))
    here = followed.server.store.version
    scope = followed.reflector._scopes[None]
    await until(lambda: int(scope.version) >= here, "a bookmark")
    followed.server.store.compact()
    followed.server.drop_watches()
    await followed.caught_up()
    assert followed.count("list") == 1


async def test_a_list_that_breaks_off_half_way_changes_nothing_until_it_is_whole(
    server: ApiServer, api: HttpKubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(600):
        server.store.create(CONFIG_MAPS, {"metadata": {"name": f"c-{number}"}, "data": {"value": "1"}}, "demo")
    async with following(server, api) as followed:
        await asyncio.wait_for(followed.reflector.synced.wait(), 20)
        followed.changes.clear()
        broken: list[Json] = []
        whole = api.list_page

        async def breaks_off_once(resource: Resource, **options: Any) -> Json:
            if options["continue_token"] and not broken:
                assert not followed.changes
                broken.append(options)
                raise Gone("the continue token is too old", status=410)
            return await whole(resource, **options)

        monkeypatch.setattr(api, "list_page", breaks_off_once)
        await until(lambda: server.watches == 1, "the watch")
        server.pause_watches()
        server.store.delete(CONFIG_MAPS, "c-1", "demo")
        server.resume_watches(lost=True)
        await until(lambda: followed.changes, "the deletion")
        assert len(broken) == 1
        assert followed.changes == [("c-1=1", None)]


# --- what the server repeats, or says badly ---------------------------------------------------------------------------


async def test_events_that_are_sent_again_are_not_told_again(followed: Followed) -> None:
    followed.put("a", "2")
    followed.remove("b")
    await followed.caught_up()
    told = list(followed.changes)
    followed.server.replay(CONFIG_MAPS, count=5)
    await followed.caught_up()
    assert [change for change in followed.changes[len(told) :] if not str(change[1]).startswith("marker")] == []
    assert set(followed.held()) == {"a", "marker"}


async def test_an_object_that_is_not_understood_is_skipped_and_logged(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    followed.put("bad", "nonsense")
    followed.put("c", "1")
    await followed.caught_up()
    assert set(followed.held()) == {"a", "b", "c", "marker"}
    assert "object not understood" in caplog.text


async def test_what_was_last_understood_of_an_object_stays_until_it_is_deleted(followed: Followed) -> None:
    followed.put("a", "nonsense")
    await followed.caught_up()
    assert followed.held()["a"] == "1"
    followed.server.resume_watches(lost=True)
    await until(lambda: followed.count("list") == 2, "a new list")
    await followed.caught_up()
    assert followed.held()["a"] == "1"
    followed.remove("a")
    await followed.caught_up()
    assert "a" not in followed.held()


async def test_an_on_change_that_raises_does_not_end_the_reflector(
    server: ApiServer, api: HttpKubeApi, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(server, api) as followed:
        followed.reflector._on_change = _raise
        followed.put("a", "1")
        followed.put("b", "1")
        await until(lambda: set(followed.held()) == {"a", "b"}, "both")
    assert "change not handled" in caplog.text


def _raise(old: View | None, new: View | None) -> None:
    raise RuntimeError("a bug")


# --- failures ---------------------------------------------------------------------------------------------------------


async def test_it_backs_off_longer_each_time_up_to_ten_seconds(server: ApiServer, api: HttpKubeApi) -> None:
    server.fail("list", CONFIG_MAPS, 403, times=12)
    async with following(server, api) as followed:
        await asyncio.wait_for(followed.reflector.synced.wait(), 10)
    bases = [0.5, 1, 2, 4, 8, 10, 10, 10, 10, 10, 10, 10]
    assert len(followed.sleeps) == len(bases)
    assert all(base / 2 <= slept <= base for base, slept in zip(bases, followed.sleeps, strict=True))


async def test_a_lasting_failure_is_logged_once_and_its_end_too(
    server: ApiServer, api: HttpKubeApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="sessionpools.kube.reflector")
    server.fail("list", CONFIG_MAPS, 403, times=5)
    async with following(server, api) as followed:
        await followed.reflector.synced.wait()
        await followed.caught_up()
    assert [record.message for record in caplog.records] == ["watch interrupted", "watch resumed"]


async def test_after_a_success_it_backs_off_from_the_start_again(followed: Followed) -> None:
    followed.server.fail("watch", CONFIG_MAPS, 500, times=4)
    followed.server.drop_watches()
    await followed.caught_up()
    followed.sleeps.clear()
    followed.server.drop_watches()
    await followed.caught_up()
    assert followed.sleeps and followed.sleeps[0] <= 0.5


async def test_it_waits_as_long_as_the_server_asks_it_to(followed: Followed) -> None:
    followed.server.fail("watch", CONFIG_MAPS, 429, retry_after=17)
    followed.server.drop_watches()
    await followed.caught_up()
    assert 17 in followed.sleeps


async def test_a_history_that_is_lost_again_and_again_does_not_become_a_hot_loop(followed: Followed) -> None:
    followed.server.fail("watch", CONFIG_MAPS, 410, times=6, reason="Expired")
    followed.server.drop_watches()
    await until(lambda: followed.count("list") == 7 and followed.server.watches, "the list after the sixth failure")
    assert sum(followed.sleeps) > 15


async def test_a_silent_watch_is_begun_again_where_it_was(server: ApiServer) -> None:
    api = await server.connect(watch_silence_seconds=0.2)
    async with following(server, api) as followed:
        await followed.caught_up()
        server.pause_watches()
        followed.put("a", "1")
        opened = followed.count("watch")
        await until(lambda: followed.count("watch") > opened, "another watch")
        server.resume_watches()
        await until(lambda: followed.held().get("a") == "1", "what happened in the silence")
        assert followed.count("list") == 1


async def test_an_api_server_that_died_is_followed_again_when_it_is_back(followed: Followed) -> None:
    await followed.server.stop()
    await until(lambda: len(followed.sleeps) >= 2, "failed tries")
    followed.remove("b")
    await followed.server.start()
    await followed.caught_up()
    assert "b" not in followed.held()


async def test_an_api_server_that_is_back_without_its_history_is_listed_at_once(followed: Followed) -> None:
    await followed.server.stop()
    await until(lambda: followed.sleeps[-1:] > [5.0], "tries that have become rare")
    followed.server.fail("watch", CONFIG_MAPS, 410, reason="Expired")
    await followed.server.start()
    await followed.caught_up()
    assert followed.sleeps[-1] <= 0.5


async def test_what_a_watch_that_seems_well_did_not_tell_is_found_by_listing_again(
    server: ApiServer, api: HttpKubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "WATCH_SECONDS", (2, 2))  # time for bookmarks, of which there are 20 a second
    async with following(server, api) as followed:
        await until(lambda: server.watches, "the watch")
        server.mute_watches(bookmarks=True)
        followed.put("a", "1")
        await until(lambda: server.watches, "the next watch, which begins where bookmarks have led")
        assert "a" not in followed.held()
        followed.now += reflector.RELIST_SECONDS[1]
        await until(lambda: "a" in followed.held(), "what had happened")


async def test_listing_again_tells_nothing_of_what_is_known(followed: Followed) -> None:
    await followed.caught_up()
    followed.changes.clear()
    for listed in (2, 3):
        followed.now += reflector.RELIST_SECONDS[1]
        followed.server.drop_watches()
        await until(lambda: followed.server.watches, "the watch after the list")
        assert followed.count("list") == listed
    followed.server.drop_watches()
    await until(lambda: followed.server.watches, "a watch without a list")
    assert followed.count("list") == 3
    assert followed.changes == []


# --- namespaces, selectors, liveness ----------------------------------------------------------------------------------


async def test_of_a_namespace_that_is_ignored_nothing_is_told_whether_it_was_there_or_comes(
    server: ApiServer, api: HttpKubeApi
) -> None:
    server.store.create(CONFIG_MAPS, {"metadata": {"name": "a"}, "data": {"value": "nonsense"}}, "foreign")
    async with following(server, api, ignored=["foreign"]) as followed:
        await asyncio.wait_for(followed.reflector.synced.wait(), 10)
        followed.put("b", "1", namespace="foreign")
        followed.remove("b", namespace="foreign")
        followed.put("c", "1")
        await until(lambda: followed.held() == {"c": "1"}, "what is not ignored")
        assert followed.changes == [(None, "c=1")]


async def test_one_reflector_follows_the_namespaces_it_is_given_and_no_other(
    server: ApiServer, api: HttpKubeApi
) -> None:
    for namespace in ("one", "two", "three"):
        server.store.create(CONFIG_MAPS, {"metadata": {"name": namespace}, "data": {"value": "1"}}, namespace)
    async with following(server, api, ["one", "two", "one"]) as followed:
        await asyncio.wait_for(followed.reflector.synced.wait(), 10)
        assert followed.held() == {"one": "1", "two": "1"}
        assert followed.count("list") == 2
        assert followed.reflector.get("two", "two")
        assert not followed.reflector.get("three", "three")


async def test_it_is_synced_only_when_every_namespace_is(server: ApiServer, api: HttpKubeApi) -> None:
    server.store.create(CONFIG_MAPS, {"metadata": {"name": "a"}, "data": {"value": "1"}}, "two")
    server.fail("list", CONFIG_MAPS, 403, times=1)
    async with following(server, api, ["one", "two"]) as followed:
        followed.awake.clear()
        await until(lambda: followed.held() and followed.sleeps, "one namespace to be listed and one to be refused")
        assert not followed.reflector.synced.is_set()
        followed.awake.set()
        await asyncio.wait_for(followed.reflector.synced.wait(), 10)


def test_no_namespace_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="namespaces"):
        Reflector(None, CONFIG_MAPS, View.parse, _raise, [])  # type: ignore[arg-type]


async def test_only_what_the_selector_selects_is_held(server: ApiServer, api: HttpKubeApi) -> None:
    async with following(server, api, selector="app=x") as followed:
        await asyncio.wait_for(followed.reflector.synced.wait(), 10)
        followed.put("other", "1", app="y")
        followed.put("mine", "1", app="x")
        await until(lambda: followed.held() == {"mine": "1"}, "mine")
        server.store.edit(CONFIG_MAPS, "mine", {"metadata": {"labels": {"app": "y"}}}, "demo")
        await until(lambda: not followed.held(), "nothing to be selected")


async def test_one_object_can_be_followed_by_its_name(server: ApiServer, api: HttpKubeApi) -> None:
    async with following(server, api, ["demo"], fields="metadata.name=mine") as followed:
        await asyncio.wait_for(followed.reflector.synced.wait(), 10)
        followed.put("other", "1")
        followed.put("mine", "1")
        await until(lambda: followed.held() == {"mine": "1"}, "mine")
        server.drop_watches()
        followed.put("mine", "2")
        await until(lambda: followed.held() == {"mine": "2"}, "mine, listed or watched")
        followed.remove("mine")
        await until(lambda: not followed.held(), "nothing")
    assert all("other" not in str(change) for change in followed.changes)


async def test_bookmarks_are_signs_of_life(followed: Followed) -> None:
    followed.now += 50
    await until(lambda: followed.reflector.last_seen == followed.now, "a sign of life")


async def test_silence_is_no_sign_of_life(followed: Followed) -> None:
    followed.server.pause_watches()
    followed.server.fail("*", None, 500, times=float("inf"))
    followed.server.drop_watches()
    await until(lambda: len(followed.sleeps) > 3, "failed tries")
    before = followed.reflector.last_seen
    followed.now += 50
    slept = len(followed.sleeps)
    await until(lambda: len(followed.sleeps) > slept + 3, "more failed tries")
    assert followed.reflector.last_seen == before
