"""Services, pools, calls, batches and the server, with both clients over real connections."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sessionpools.client import (
    AsyncClient,
    CallFailed,
    Client,
    Forbidden,
    InputInvalid,
    NotFound,
    PoolStalled,
    PoolUsage,
    WaitTimeout,
)
from support.both_clients import Both
from support.restapi import NODE, Reply, RestApi

SCRIPT = "print('adding')\nanswer = x + y\n"
OUTPUTS = {"answer": float}


async def adding(client: Both, version: str = "v1") -> None:
    await client.services.publish("Add", version, SCRIPT, script=True, inputs={"x": float, "y": float}, outputs=OUTPUTS)


class TestServices:
    async def test_a_file_is_published_listed_updated_and_deleted(self, client: Both, tmp_path: Path) -> None:
        path = tmp_path / "score.py"
        path.write_text("def predict(x):\n    return 2 * x\n")
        made = await client.services.publish("Score", "v1", path, description="doubles", inputs={"x": float})
        assert (made.label, made.description, made.published_by) == ("Score v1", "doubles", "admin")
        assert [(each.name, each.type) for each in made.inputs] == [("x", "numeric")]
        assert (await client.call("Score", "v1", x=4)).output() == 8

        path.write_text("def predict(x):\n    return 3 * x\n")
        changed = await client.services.update("Score", "v1", path)
        assert changed.description == "doubles"
        assert (await client.call("Score", "v1", x=4)).output() == 12

        assert [each.label for each in await client.services.list()] == ["Score v1"]
        await client.services.delete("Score", "v1")
        assert await client.services.list() == []

    async def test_a_replica_that_has_not_heard_of_it_yet_is_asked_again(self, client: Both, api: RestApi) -> None:
        api.fail("GET /services/Add/v1", Reply(404, {"message": "there is no service"}))
        api.fail("GET /services/Add/v1/pool/usage", Reply(404, {"message": "there is no pool"}))
        await adding(client)
        await client.pools.create_or_update("Add", "v1", 1, 1)
        assert (await client.pools.wait_until_ready("Add", "v1", timeout=20)).status == "Success"

    async def test_a_folder_that_no_body_holds_is_sent_file_by_file(
        self, client: Both, api: RestApi, tmp_path: Path
    ) -> None:
        (tmp_path / "service.py").write_text("def predict(x):\n    return x + 1\n")
        (tmp_path / "models").mkdir()
        with (tmp_path / "models" / "large.bin").open("wb") as file:
            file.truncate(33 << 20)
        await client.services.publish("Large", "v1", tmp_path)
        assert (await client.call("Large", "v1", x=1)).output() == 2
        sent = {each.path.partition("/files/")[2]: len(each.body) for each in api.asked("PUT /sessions/.*")}
        assert sent == {"service.py": len("def predict(x):\n    return x + 1\n"), "models/large.bin": 33 << 20}
        assert (api.sessions, api.snapshots) == ({}, {})

    async def test_what_was_sent_to_publish_is_removed_when_that_fails(
        self, client: Both, api: RestApi, tmp_path: Path
    ) -> None:
        with (tmp_path / "large.py").open("wb") as file:
            file.write(b"def predict(x): ...\n#" + b"#" * (33 << 20))
        api.fail("POST /services/Large/v1", Reply(403, {"message": "exists"}))
        with pytest.raises(Forbidden, match="exists"):
            await client.services.publish("Large", "v1", tmp_path / "large.py")
        assert (api.sessions, api.snapshots) == ({}, {})

    async def test_what_exists_is_not_published_again(self, client: Both) -> None:
        await adding(client)
        with pytest.raises(Forbidden, match="exists"):
            await adding(client)

    async def test_without_a_version_the_last_one_is_meant(self, client: Both) -> None:
        await adding(client, "v1")
        await adding(client, "v2")
        assert (await client.services.get("Add")).version == "v2"
        assert (await client.call("Add", x=1, y=2)).output() == 3

    async def test_a_name_without_versions_is_an_empty_list_and_no_service(self, client: Both) -> None:
        assert await client.services.list("Nobody") == []
        with pytest.raises(NotFound, match="Nobody"):
            await client.services.get("Nobody")

    @pytest.mark.parametrize("name", ["", "a/b", "..", "a\nb"])
    async def test_a_name_that_no_path_carries_is_refused_unsent(self, client: Both, api: RestApi, name: str) -> None:
        with pytest.raises(InputInvalid, match="is no name"):
            await client.services.get(name, "v1")
        assert not api.seen

    async def test_names_of_any_letters_are_carried(self, client: Both) -> None:
        await client.services.publish("Größe %1 ?", "v 1", SCRIPT, script=True, outputs=OUTPUTS)
        assert (await client.call("Größe %1 ?", "v 1", x=1, y=1)).output() == 2

    async def test_the_last_lines_of_its_sessions_are_told(self, client: Both, api: RestApi) -> None:
        read = {"node": "worker-1", "pod": "add-1", "lines": ["one", "two"], "cut": False, "error": None}
        away = {"node": "worker-2", "pod": "add-2", "lines": [], "cut": False, "error": "its node is away"}
        body = {"name": "Add", "version": "v1", "pods": [read, away], "notRead": 3}
        api.fail("GET /services/Add/v1/logs", Reply(200, body), Reply(200, body))
        found = await client.services.logs("Add", "v1")
        assert [(each.node, each.lines, each.error) for each in found.pods] == [
            ("worker-1", ("one", "two"), ""),
            ("worker-2", (), "its node is away"),
        ]
        assert found.not_read == 3
        await client.services.logs("Add", "v1", 5, node="worker-2")
        asked = [each.params for each in api.asked("GET /services/Add/v1/logs")]
        assert asked == [{"lines": "100"}, {"lines": "5", "node": "worker-2"}]

    async def test_force_is_passed_on(self, client: Both, api: RestApi) -> None:
        await adding(client)
        await client.services.update("Add", "v1", description="other", force=True)
        assert api.asked("PATCH .*")[0].params == {"force": "true"}
        assert api.asked("PATCH .*")[0].json() == {"description": "other"}

    async def test_the_init_of_the_code_before_goes_with_it(self, client: Both, api: RestApi, tmp_path: Path) -> None:
        path = tmp_path / "score.py"
        path.write_text("def load(): ...\ndef predict(x):\n    return x\n")
        await client.services.publish("Score", "v1", path)
        path.write_text("def predict(x):\n    return -x\n")
        await client.services.update("Score", "v1", path)
        sent = [each.json()["init"] for each in api.asked("(POST|PATCH) /services/Score/v1")]
        assert sent == ["score:load", ""]
        assert (await client.call("Score", "v1", x=4)).output() == -4

    async def test_an_empty_init_is_sent_and_one_that_is_left_out_is_not(self, client: Both, api: RestApi) -> None:
        await client.services.publish("Add", "v1", SCRIPT, script=True, init="y = 1\n")
        await client.services.update("Add", "v1", script=True, init="", description="adds")
        await client.services.update("Add", "v1", description="adds again")
        first, second = (each.json() for each in api.asked("PATCH /services/Add/v1"))
        assert first["initCode"] == ""
        assert second.keys() == {"description"}

    async def test_an_update_of_nothing_and_an_unknown_field_are_refused(self, client: Both) -> None:
        with pytest.raises(InputInvalid, match="nothing to update"):
            await client.services.update("Add", "v1")
        with pytest.raises(InputInvalid, match="'output' is no field"):
            await client.services.publish("Add", "v1", SCRIPT, script=True, output={})


class TestCalls:
    async def test_arrays_and_frames_go_both_ways(self, client: Both) -> None:
        code = "answer = rows\nfirst = [rows['a'][0], factors[1]]\n"
        await client.services.publish(
            "Echo", "v1", code, script=True, outputs={"answer": pd.DataFrame, "first": "vector"}
        )
        frame = pd.DataFrame({"a": [1.5, float("nan")], "b": ["x", "y"]})
        result = await client.call("Echo", "v1", rows=frame, factors=np.array([1, 2]))
        assert result.outputs["answer"] == {"a": [1.5, None], "b": ["x", "y"]}
        pd.testing.assert_frame_equal(result.frame("answer"), frame)
        assert result.array("first").tolist() == [1.5, 2]

    async def test_files_and_printed_lines_come_with_the_result(self, client: Both) -> None:
        await adding(client)
        result = await client.call("Add", "v1", x=1, y=2)
        assert (result.console, result.file("plot.png")) == ("adding\n", b"plotted")
        assert result.request_id
        with pytest.raises(InputInvalid, match=r"there are 'plot.png'"):
            result.file("other.png")

    async def test_code_that_raises_is_an_error_with_what_it_printed(self, client: Both) -> None:
        await adding(client)
        with pytest.raises(CallFailed, match="Add v1: TypeError") as error:
            await client.call("Add", "v1", x=1, y="2")
        assert error.value.result.console == "adding\n"

    async def test_inputs_of_any_name_are_given_as_dict(self, client: Both, api: RestApi) -> None:
        await client.services.publish("Odd", "v1", "answer = timeout\n", script=True, outputs=OUTPUTS)
        assert (await client.call("Odd", "v1", {"timeout": 3, "self": 1}, name=2)).output() == 3
        assert api.asked("POST /api/.*")[0].json() == {"timeout": 3, "self": 1, "name": 2}
        with pytest.raises(InputInvalid, match="given twice"):
            await client.call("Odd", "v1", {"x": 1}, x=2)

    async def test_what_has_no_json_form_is_refused_unsent(self, client: Both, api: RestApi) -> None:
        with pytest.raises(InputInvalid, match="input 'x': infinity"):
            await client.call("Add", "v1", x=float("inf"))
        assert not api.seen

    async def test_the_services_document_is_had(self, client: Both) -> None:
        await adding(client)
        assert (await client.swagger("Add", "v1"))["info"] == {"title": "Add", "version": "v1"}


class TestPools:
    async def test_a_pool_is_made_awaited_and_ended(self, client: Both, api: RestApi) -> None:
        await adding(client)
        api.warming = 2
        await client.pools.create_or_update("Add", "v1", 2, 4)
        seen: list[PoolUsage] = []
        ready = await client.pools.wait_until_ready("Add", "v1", timeout=20, progress=seen.append)
        assert [each.status for each in seen] == ["Pending", "Success"]
        assert (ready.ready, ready.desired, ready.wait.p99_seconds) == (2, 2, 0.25)
        assert [pool.label for pool in await client.pools.list()] == ["Add v1"]

        api.leaving = 2
        await client.pools.delete("Add", "v1")
        gone = await client.pools.wait_until_gone("Add", "v1", timeout=20)
        assert [(node.name, node.status) for node in gone.nodes] == [("worker-1", "NotFound")]
        assert await client.pools.list() == []

    async def test_a_pool_that_can_not_become_ready_is_not_awaited(self, client: Both, api: RestApi) -> None:
        await adding(client)
        api.stalled = "ModuleNotFoundError: No module named 'foo' (import service)"
        await client.pools.create_or_update("Add", "v1", 1, 1)
        with pytest.raises(PoolStalled, match="pool of Add v1: ModuleNotFoundError") as error:
            await client.pools.wait_until_ready("Add", "v1", timeout=60)
        assert error.value.status.nodes[0].message == api.stalled

    async def test_a_wait_ends_and_says_where_it_stood(self, client: Both, api: RestApi) -> None:
        await adding(client)
        api.warming = 1000
        await client.pools.create_or_update("Add", "v1", 1, 1)
        with pytest.raises(
            WaitTimeout, match=r"0 of 1 sessions are ready: worker-1: Pending, importing service after 0.1 s"
        ):
            await client.pools.wait_until_ready("Add", "v1", timeout=0.1)

    async def test_the_status_is_that_of_machine_learning_server(self, client: Both) -> None:
        await adding(client)
        status = await client.pools.status("Add", "v1")
        assert (status.status, [node.endpoint for node in status.nodes]) == ("NotFound", [NODE])
        await client.pools.create_or_update("Add", "v1", 1, 1)
        assert (await client.pools.status("Add", "v1")).status == "Success"

    async def test_sizes_that_contradict_each_other_are_refused_unsent(self, client: Both, api: RestApi) -> None:
        with pytest.raises(InputInvalid, match="0 <= initial <= maximum"):
            await client.pools.create_or_update("Add", "v1", 3, 2)
        assert not api.seen

    async def test_a_pool_of_no_service_is_refused(self, client: Both) -> None:
        with pytest.raises(NotFound, match="no service 'Add' version 'v1'"):
            await client.pools.create_or_update("Add", "v1", 1, 2)


class TestBatches:
    @pytest.mark.parametrize(
        "records",
        [
            [{"x": 1, "y": 2}, {"x": 3, "y": "four"}],
            pd.DataFrame({"x": [1, 3], "y": [2, "four"]}),
            {"x": [1, 3], "y": [2, "four"]},
        ],
    )
    async def test_a_batch_runs_each_record_and_tells_failures_apart(self, client: Both, records: Any) -> None:
        await adding(client)
        batch = await client.batches.start("Add", "v1", records, parallel=3)
        status = await client.batches.wait(batch, timeout=20)
        assert (status.state, status.completed, status.total) == ("complete", 2, 2)
        assert status.results[0].output() == 3
        assert [item.index for item in status.failed] == [1]
        assert "TypeError" in status.failed[0].error

    async def test_files_of_an_item_are_listed_and_read(self, client: Both) -> None:
        await adding(client)
        batch = await client.batches.start("Add", "v1", [{"x": 1, "y": 2}])
        assert await client.batches.files(batch, 0) == ["plot.png"]
        assert await client.batches.file(batch, 0, "plot.png") == b"plotted"

    async def test_a_batch_is_listed_until_it_is_cancelled(self, client: Both, api: RestApi) -> None:
        await adding(client)
        batch = await client.batches.start("Add", "v1", [{"x": 1, "y": 1}], parallel=7)
        assert api.asked("POST .*/batch")[0].params == {"parallelCount": "7"}
        assert await client.batches.list("Add", "v1") == [batch]
        await client.batches.cancel(batch)
        with pytest.raises(NotFound):
            await client.batches.poll(batch)


class TestServer:
    async def test_the_servers_parts_and_nodes_are_told(self, client: Both) -> None:
        status = await client.status()
        assert (status.status, [part.name for part in status.components]) == ("pass", ["backends"])
        assert [(node.name, node.endpoint) for node in await client.nodes()] == [("worker-1", NODE)]

    async def test_a_token_says_whose_it_is(self, client: Both) -> None:
        identity = await client.whoami()
        assert (identity.user, identity.role) == ("admin", "Owner")


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    def methods(client: Any) -> dict[str, inspect.Signature]:
        parts = {"": client, "services": client.services, "pools": client.pools, "batches": client.batches}
        return {
            f"{part}.{name}": inspect.signature(found)
            for part, thing in parts.items()
            for name, found in inspect.getmembers(thing, callable)
            if not name.startswith("_")
        }

    blocking, awaiting = methods(Client("http://a")), methods(AsyncClient("http://a"))
    assert {name: str(found) for name, found in blocking.items() if name != ".close"} == {
        name: str(found) for name, found in awaiting.items() if name != ".close"
    }
    assert "pools.wait_until_ready" in blocking
