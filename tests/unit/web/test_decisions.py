"""What the web API decides by itself: names, manifests, rows, references, settings, multipart bodies, bundles."""

from __future__ import annotations

import io
import random
import re
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sessionpools.api.v1alpha1 import SessionPoolStatus, State
from sessionpools.web import bundlefiles
from sessionpools.web.bundlefiles import PAUSE_SECONDS, Texts, unpacked
from sessionpools.web.errors import BadRequest
from sessionpools.web.multipart import file_part
from sessionpools.web.objects import Published, check_key, new_service, object_name, updated_service
from sessionpools.web.poolrows import node_states
from sessionpools.web.references import KEPT_SECONDS, References, remembered
from sessionpools.web.settings import ENVIRONMENT, STORE_URL, SettingsError, from_environment
from sessionpools.web.store.bundles import Bundles
from sessionpools.web.store.errors import Refused, StoreUnavailable
from sessionpools.web.store.objects import ObjectStore
from support.builders import node, pod, pool, target_of

# --- names and manifests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Score", "x" * 128, "日本", "-", "a.b_c", "A", "!"])
def test_object_names_are_dns_labels_whatever_the_service_is_called(name: str) -> None:
    made = object_name(name, "v1.0.0")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", made)
    assert len(made) <= 63 - len("-9")  # a second pool of the same service gets a number
    assert made == object_name(name, "v1.0.0")


def test_object_names_differ_where_services_do() -> None:
    keys = [("a", "b-c"), ("a-b", "c"), ("A", "b-c"), ("a", "b_c"), ("a", "b.c")]
    assert len({object_name(*key) for key in keys}) == len(keys)


@pytest.mark.parametrize("text", ["", "x" * 129, "a/b", "a\nb", " a", "a ", ".", "..", "a\x7f"])
def test_a_key_that_the_kind_would_refuse_is_refused_here(text: str) -> None:
    for key in ((text, "v1"), ("Score", text)):
        with pytest.raises(BadRequest):
            check_key(*key)


def test_an_update_replaces_what_it_names_and_takes_away_what_is_none() -> None:
    read = new_service(
        "demo", "Score", "v1", "ada", Published({"script": "a.py", "code": {"inline": {}}, "inputs": []})
    )
    read["spec"]["resources"] = {"limits": {"memory": "1Gi"}}
    body = updated_service(read, Published({"entrypoint": "a:b", "code": {"imagePath": "/app"}, "inputs": None}))
    assert body["spec"] == {
        "name": "Score",
        "version": "v1",
        "entrypoint": "a:b",
        "code": {"imagePath": "/app"},
        "resources": {"limits": {"memory": "1Gi"}},
    }
    assert read["spec"]["script"] == "a.py"  # what was read is not changed


# --- rows of a pool ---------------------------------------------------------------------------------------------------


def states_of(status: dict[str, object], *, generation: int = 1) -> dict[str, str]:
    of = pool(meta={"generation": generation}).model_copy(update={"status": SessionPoolStatus.model_validate(status)})
    return {name: state.value for name, state in node_states(of, [node("a"), node("b")], []).items()}


def test_the_rows_are_the_status_while_it_is_about_the_pool_as_it_stands() -> None:
    rows = [{"name": "a", "state": "Success"}, {"name": "gone", "state": "Pending"}]
    status = {"observedGeneration": 1, "state": "Pending", "nodes": rows}
    assert states_of(status) == {"a": "Success", "b": "Pending", "gone": "Pending"}
    assert states_of(status, generation=2) == {"a": "Pending", "b": "Pending", "gone": "Pending"}


def test_a_pool_that_nobody_has_looked_at_is_pending_everywhere() -> None:
    assert states_of({"observedGeneration": -1}) == {"a": "Pending", "b": "Pending"}


def test_a_pool_that_holds_and_awaits_nothing_is_not_found_also_on_nodes_its_status_does_not_name() -> None:
    assert states_of({"observedGeneration": 1, "state": "NotFound", "nodes": []}) == {"a": "NotFound", "b": "NotFound"}


def test_past_the_bound_of_a_status_there_are_only_nodes_that_succeed() -> None:
    rows = [{"name": f"n{number}", "state": "Pending" if number < 3 else "Success"} for number in range(500)]
    assert states_of({"observedGeneration": 1, "state": "Pending", "nodes": rows})["b"] == "Success"
    failing = [{"name": f"n{number}", "state": "Pending"} for number in range(500)]
    assert states_of({"observedGeneration": 1, "state": "Pending", "nodes": failing})["b"] == "Pending"


def test_rows_of_a_pool_that_is_deleted_count_the_pods_that_are_left() -> None:
    of = pool(meta={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    target = target_of(of)
    pods = [
        pod(target, of, on="a", deleting=True),
        pod(target, of, on="elsewhere"),
        pod(target, of, on="b", ended=True),
    ]
    for deleted in (of, None):
        states = node_states(deleted, [node("a"), node("b")], pods)
        assert states == {"a": State.PENDING, "b": State.NOT_FOUND, "elsewhere": State.PENDING}


# --- bundles that must stay -------------------------------------------------------------------------------------------


def test_a_bundle_is_remembered_for_days_after_it_was_last_named() -> None:
    known = remembered({}, ["a"], 0.0)
    known = remembered(known, ["b"], KEPT_SECONDS - 1)
    assert known.keys() == {"a", "b"}
    assert remembered(known, ["b"], KEPT_SECONDS).keys() == {"b"}


async def test_what_was_named_is_remembered_by_the_next_replica_too(tmp_path: Path) -> None:
    store = ObjectStore.open(str(tmp_path / "store"))
    named = {"a"}

    async def names_now() -> set[str]:
        return named

    assert set(await References(store, names_now, lambda: 1.0).known()) == {"a"}
    named = {"b"}
    assert set(await References(store, names_now, lambda: 2.0).known()) == {"a", "b"}
    assert set(await References(store, names_now, lambda: KEPT_SECONDS + 2).known()) == {"b"}


# --- bundles' contents ------------------------------------------------------------------------------------------------


async def test_the_texts_at_the_top_of_a_bundle_are_read_without_what_follows(tmp_path: Path) -> None:
    bundles = Bundles(ObjectStore.open(str(tmp_path / "store")))
    read = 0

    class Counting:
        async def stream(self, sha256: str) -> AsyncIterator[bytes]:
            nonlocal read
            async for piece in bundles.stream(sha256):
                for at in range(0, len(piece), 65536):
                    read += len(piece[at : at + 65536])
                    yield piece[at : at + 65536]

    noise = random.Random(1).randbytes(5 << 20)
    files = {"objects/a.dill": noise, "service_script.py": "ö = 1".encode(), "init_block.py": b"", "other.py": b"x"}
    bundle = await bundles.put(files)
    texts = Texts(Counting(), ("service_script.py", "init_block.py"))
    assert await texts.of(bundle.sha256) == {"service_script.py": "ö = 1", "init_block.py": ""}
    assert read < 1 << 20
    before = read
    assert (await texts.of(bundle.sha256))["service_script.py"] == "ö = 1"
    assert read == before  # it is remembered
    assert await texts.of("0" * 64) == {}  # there is none
    async with unpacked(bundles, bundle.sha256) as found:
        assert {path: content.read_bytes() for path, content in found.items()} == files


async def test_a_long_text_is_not_shown_and_one_behind_it_is(tmp_path: Path) -> None:
    bundles = Bundles(ObjectStore.open(str(tmp_path / "store")))
    longest = "#" * bundlefiles.TEXT_BYTES_AT_MOST
    for init, shown in ((longest, {"init_block.py": longest}), (longest + "#", {})):
        bundle = await bundles.put({"init_block.py": init.encode(), "service_script.py": b"x = 1"})
        found = await Texts(bundles, ("init_block.py", "service_script.py")).of(bundle.sha256)
        assert found == shown | {"service_script.py": "x = 1"}


async def test_texts_are_remembered_as_long_as_there_is_memory_for_them_the_unused_not_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundlefiles, "REMEMBERED_BYTES", 100_000)
    bundles = Bundles(ObjectStore.open(str(tmp_path / "store")))
    read: list[str] = []

    class Counting:
        async def stream(self, sha256: str) -> AsyncIterator[bytes]:
            read.append(sha256)
            async for piece in bundles.stream(sha256):
                yield piece

    texts = Texts(Counting(), ("service_script.py",))
    first, second, third = [
        (await bundles.put({"service_script.py": (letter * 40_000).encode()})).sha256 for letter in "abc"
    ]
    for sha256 in (first, second, first, third):
        assert len((await texts.of(sha256))["service_script.py"]) == 40_000
    assert read == [first, second, third]
    await texts.of(first)
    assert read == [first, second, third]
    await texts.of(second)
    assert read == [first, second, third, second]


async def test_what_is_no_archive_has_no_texts() -> None:
    class Damaged:
        async def stream(self, sha256: str) -> AsyncIterator[bytes]:
            yield b"no gzip"

    assert await Texts(Damaged(), ("service_script.py",)).of("0" * 64) == {}


async def test_no_file_of_a_bundle_is_unpacked_outside_of_its_folder() -> None:
    class Forged:
        async def stream(self, sha256: str) -> AsyncIterator[bytes]:
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w:gz") as archive:
                archive.addfile(tarfile.TarInfo("../escaped"))
            yield packed.getvalue()

    with pytest.raises(Refused, match=r"'\.\./escaped'"):
        async with unpacked(Forged(), "0" * 64):
            pass


async def test_a_store_that_does_not_answer_is_left_alone_for_a_while() -> None:
    asked = 0
    now = 100.0

    class Away:
        async def stream(self, sha256: str) -> AsyncIterator[bytes]:
            nonlocal asked
            asked += 1
            raise StoreUnavailable("away")
            yield b""

    texts = Texts(Away(), ("service_script.py",), lambda: now)
    for _ in range(3):
        assert await texts.of("0" * 64) == {}
    assert asked == 1
    now += PAUSE_SECONDS
    assert await texts.of("0" * 64) == {}
    assert asked == 2


# --- multipart bodies -------------------------------------------------------------------------------------------------

BODY = (
    b'preamble\r\n--b\r\nContent-Disposition: form-data; name="text"\r\n\r\nno file\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a b.txt"\r\nContent-Type: text/plain\r\n\r\n'
    b"one\r\n--two\r\n\r\n--b--\r\nepilogue"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
async def test_a_file_is_found_in_a_multipart_body_however_it_arrives_in_pieces(size: int) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(BODY), size):
            yield BODY[at : at + size]

    part = await file_part('multipart/form-data; boundary="b"', pieces())
    assert (part.field, part.file_name) == ("file", "a b.txt")
    assert b"".join([piece async for piece in part.content]) == b"one\r\n--two\r\n"


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_have_defaults_but_for_the_namespace() -> None:
    settings = from_environment({"POD_NAMESPACE": "release"})
    assert (settings.rest_port, settings.bundles_port, settings.http_port) == (12802, 12803, 12804)
    assert settings.bundles_url == "http://session-pools-web.release:12803"
    assert settings.auth_enabled
    with pytest.raises(SettingsError, match="POD_NAMESPACE is not set"):
        from_environment({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SESSIONPOOLS_REST_PORT", "0"),
        ("SESSIONPOOLS_BUNDLES_PORT", "http"),
        ("SESSIONPOOLS_HTTP_PORT", "65536"),
        ("SESSIONPOOLS_API_NAMESPACE", "Not/A/Namespace"),
        ("SESSIONPOOLS_AUTH_ENABLED", "no"),
        ("SESSIONPOOLS_BEHIND_GATEWAY", "1"),
        ("SESSIONPOOLS_LOG_LEVEL", "loud"),
        ("SESSIONPOOLS_GATEWAY_URL", "gateway:12800"),
        ("SESSIONPOOLS_BUNDLES_URL", "ftp://x"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is "):
        from_environment({"POD_NAMESPACE": "release", name: value})


def test_lists_are_comma_separated() -> None:
    settings = from_environment(
        {"POD_NAMESPACE": "r", "SESSIONPOOLS_NODES": " a, b,a", "SESSIONPOOLS_WATCH_NAMESPACES": "x,y"}
    )
    assert (settings.nodes, settings.watched) == (("a", "b"), ("x", "y"))


def test_every_variable_is_in_the_help() -> None:
    source = Path(__file__).parents[3].joinpath("operator/sessionpools/web/settings.py").read_text()
    read = set(re.findall(r'\(\s*"((?:SESSIONPOOLS|POD)_[A-Z_]+)"', source))
    assert read | {STORE_URL} == {name for name, _, _ in ENVIRONMENT}
    assert from_environment({"POD_NAMESPACE": "release", STORE_URL: "/elsewhere"}).store_url == "/elsewhere"
