"""azureml.deploy as Session Pools provides it, against a server that speaks Machine Learning Server's REST API."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

from sessionpools.client import HttpException as ClientsHttpException
from sessionpools_azureml.common import Configuration, HttpClient, HttpException
from sessionpools_azureml.common.utils import to_self_execution_block
from sessionpools_azureml.deploy import DeployClient
from sessionpools_azureml.deploy.operationalization import Operationalization
from sessionpools_azureml.deploy.server import Batch, EncodingType, MLServer, Service, ServiceResponse
from support.restapi import NODE, Reply, RestApi


@pytest.fixture
def client(api: RestApi) -> Iterator[Any]:
    yield DeployClient(api.url, use=MLServer, auth=("admin", "secret"))


def manual(hp: float, wt: float) -> float:
    """Of cars."""
    return float(intercept + hp * slope[0] + wt * slope[1])  # type: ignore[name-defined]  # noqa: F821


def start() -> None:
    import numpy as np

    global slope
    slope = np.array(coefficients)  # type: ignore[name-defined]  # noqa: F821


def deployed(client: Any, **more: Any) -> Any:
    return client.deploy_service(
        "mtcars",
        version="v1.0.0",
        code_fn=manual,
        init_fn=start,
        objects={"coefficients": [1.0, 2.0]},
        models={"intercept": np.float64(10)},
        inputs={"hp": float, "wt": "float"},
        outputs={"answer": float},
        description="of cars",
        **more,
    )


class TestDeployClient:
    def test_it_is_composed_of_the_implementation_and_itself(self, client: Any) -> None:
        assert type(client).__name__ == "DeployClientComposedMLServer"
        assert type(client).__mro__[1:3] == (MLServer, Operationalization)
        assert isinstance(client, DeployClient)

    @pytest.mark.parametrize("use", ["MLServer", "sessionpools_azureml.deploy.server.MLServer", MLServer])
    def test_the_implementation_is_given_as_class_or_name(self, api: RestApi, use: Any) -> None:
        assert DeployClient(api.url + "/", use=use, auth=("admin", "secret")).list_services() == []

    def test_it_may_come_from_a_file(self, api: RestApi, tmp_path: Path) -> None:
        path = tmp_path / "own.py"
        path.write_text("from sessionpools_azureml.deploy.server import MLServer\nclass Own(MLServer): mark = 1\n")
        assert DeployClient(api.url, use=("own_module", str(path))).mark == 1

    @pytest.mark.parametrize("use", [None, "Nothing", "no.such.Module", int, ("own", "/missing.py"), 3])
    def test_what_is_none_is_an_import_error_with_the_reason(self, use: Any) -> None:
        with pytest.raises(ImportError, match="No module named `use="):
            DeployClient("http://localhost:1", use=use)

    def test_a_wrong_password_is_an_http_exception(self, api: RestApi) -> None:
        with pytest.raises(HttpException) as error:
            DeployClient(api.url, use=MLServer, auth=("admin", "wrong"))
        assert (error.value.status, error.value.reason) == (401, "Unauthorized")
        assert HttpException is ClientsHttpException

    def test_a_token_is_taken_as_it_is(self, api: RestApi) -> None:
        token = api.new_tokens()["access_token"]
        assert DeployClient(api.url, use=MLServer, auth=token).list_services() == []

    def test_azure_active_directory_is_refused_with_what_there_is(self, api: RestApi) -> None:
        with pytest.raises(ValueError, match=r"not offered: give \(user, password\)"):
            DeployClient(api.url, use=MLServer, auth={"authuri": "", "tenant": ""})

    def test_nobody_listening_is_the_exception_of_requests(self) -> None:
        client = DeployClient("http://127.0.0.1:1", use=MLServer, auth="token")
        with pytest.raises(requests.exceptions.ConnectionError):
            client.get_service_pool_status("a", "v1")

    def test_a_token_that_expires_is_renewed(self, client: Any, api: RestApi) -> None:
        api.tokens.clear()
        assert client.list_services() == []
        assert len(api.asked("POST /login/refreshToken")) == 1

    def test_a_passing_failure_of_a_listing_is_not_seen(self, client: Any, api: RestApi) -> None:
        api.fail("GET /services", Reply(close=True), Reply(503))
        assert client.list_services() == []


class TestServices:
    def test_a_function_with_objects_is_published_and_called_by_its_name(self, client: Any, api: RestApi) -> None:
        service = deployed(client)
        assert type(service).__name__ == "MtcarsService"
        response = service.manual(120, wt=2.8)
        assert response.output("answer") == pytest.approx(135.6)
        assert response.error == ""
        assert str(inspect.signature(service.manual)) == "(hp, wt)"
        assert not api.sessions
        assert not api.snapshots

    def test_listing_getting_and_deleting(self, client: Any) -> None:
        deployed(client)
        assert [each["version"] for each in client.list_services("mtcars")] == ["v1.0.0"]
        assert client.list_services("mtcars", version="v1.0.0")[0]["description"] == "of cars"
        assert client.get_service("mtcars").capabilities()["version"] == "v1.0.0"
        assert client.delete_service("mtcars", version="v1.0.0") is True
        with pytest.raises(ValueError, match="No service found for mtcars"):
            client.get_service("mtcars")
        with pytest.raises(ValueError, match="Missing the required parameter `version`"):
            client.delete_service("mtcars")
        with pytest.raises(HttpException) as error:
            client.delete_service("mtcars", version="v1.0.0")
        assert error.value.status == 404

    def test_the_fluent_definition_does_the_same(self, client: Any) -> None:
        service = (
            client.service("fluent")
            .version("v2")
            .alias("add")
            .code_str("total = x + y + z + w + base\n", "base = start\n")
            .objects(start=100)
            .inputs(x=int, y=int)
            .inputs(z=int, w=int)
            .outputs(total=float)
            .artifact("plot.png")
            .description("adds")
            .deploy()
        )
        response = service.add(1, 2, 3, w=4)  # more than the three inputs of the old client
        assert response.output("total") == 110.0
        assert response.artifact("plot.png") == b"plotted"
        assert response.artifact("plot.png", encoding="utf-8") == "plotted"
        assert response.artifact("plot.png", decode=False) == "cGxvdHRlZA=="
        assert response.artifact("other.png") is None

    def test_redeploying_changes_what_is_given_of_the_last_version(self, client: Any) -> None:
        deployed(client)
        service = client.redeploy_service("mtcars", description="of old cars")
        assert service.capabilities()["description"] == "of old cars"
        assert [each["name"] for each in service.capabilities()["inputs"]] == ["hp", "wt"]
        again = client.service("mtcars").version("v1.0.0").code_str("answer = hp * wt").redeploy()
        assert again.manual(2, 3).output("answer") == 6

    def test_without_a_version_a_unique_one_is_made(self, client: Any) -> None:
        first = client.deploy_service("unique", code_str="y = 1", outputs={"y": int})
        second = client.deploy_service("unique", code_str="y = 2", outputs={"y": int})
        assert first.capabilities()["version"] != second.capabilities()["version"]
        assert second.consume().output("y") == 2

    def test_several_outputs_of_a_function_are_the_items_of_a_tuple(self, client: Any) -> None:
        def both(x: float) -> tuple[float, float]:
            return x + 1, x + 2

        service = client.deploy_service(
            "both", version="v1", code_fn=both, inputs={"x": float}, outputs={"a": float, "b": float}
        )
        assert service.both(1).outputs == {"a": 2.0, "b": 3.0}

    def test_arrays_matrices_and_frames_go_both_ways(self, client: Any) -> None:
        types = {"vector": np.array, "matrix": "numpy.matrix", "frame": pd.DataFrame}
        code = "v, m, f = vector, matrix, frame\n"
        service = client.deploy_service(
            "echo", version="v1", code_str=code, inputs=types, outputs=dict(zip("vmf", types.values(), strict=True))
        )
        frame = pd.DataFrame({"n": [2.0, 3.0], "s": ["a", "b"]})
        response = service.consume(np.array([1, 2]), np.matrix([[1, 2], [3, 4]]), frame)
        assert response.output("v").tolist() == [1, 2]
        assert isinstance(response.output("m"), np.matrix)
        pd.testing.assert_frame_equal(response.output("f"), frame)

    def test_code_that_raises_is_told_and_not_raised(self, client: Any) -> None:
        service = client.deploy_service("bad", version="v1", code_str="print('on it')\ny = 1 / 0", outputs={"y": float})
        response = service.consume()
        assert response.error.startswith("ZeroDivisionError")
        assert response.console_output == "on it\n"
        assert response.output("y") is None

    @pytest.mark.parametrize(
        ("opts", "why"),
        [
            ({"code_fn": manual, "inputs": {"hp": float}, "outputs": {"answer": float}}, "Input wt not declared"),
            (
                {"code_fn": manual, "inputs": {"hp": float, "wt": float, "x": int}, "outputs": {"a": float}},
                "Input x not a code argument",
            ),
            ({"code_str": "y = 1", "outputs": {"y": dict}}, "Invalid `encoding` type"),
            ({"code_fn": lambda: 1, "outputs": {"y": float}}, "a lambda has no source"),
            ({"outputs": {"y": float}}, "give code_fn or code_str"),
            ({"code_str": "y = 1", "objects": {"o": (each for each in range(0))}}, "Error serializing o"),
        ],
    )
    def test_what_can_not_be_published_is_refused_unsent(
        self, client: Any, api: RestApi, opts: dict[str, Any], why: str
    ) -> None:
        before = len(api.seen)
        with pytest.raises(ValueError, match=why):
            client.deploy_service("bad", version="v1", **opts)
        assert len(api.seen) == before

    def test_what_was_made_to_publish_is_removed_when_publishing_fails(self, client: Any, api: RestApi) -> None:
        api.fail("POST /services/mtcars/v1.0.0", Reply(400, {"message": "no"}))
        with pytest.raises(HttpException, match="no"):
            deployed(client)
        assert (api.sessions, api.snapshots) == ({}, {})

    def test_wrong_arguments_of_a_call_are_named(self, client: Any) -> None:
        service = deployed(client)
        with pytest.raises(TypeError, match=r"manual\(hp, wt\): missing a required argument: 'wt'"):
            service.manual(1)
        with pytest.raises(ValueError, match="name: hp type: numeric"):
            service.manual("many", 1)

    def test_a_service_tells_what_it_can(self, client: Any, api: RestApi) -> None:
        service = deployed(client, alias="score")
        told = service.capabilities()
        assert told["swagger"] == f"{api.url}/api/mtcars/v1.0.0/swagger.json"
        assert told["inputs_encoded"] == [{"name": "hp", "type": "float"}, {"name": "wt", "type": "float"}]
        for name, call in told["public-functions"].items():
            assert callable(getattr(service, name)), call
        assert told["public-functions"]["score"] == "score(hp, wt)"
        assert '"title": "mtcars"' in service.swagger()
        assert service.swagger(json=False)["info"]["title"] == "mtcars"
        assert "Consume the mtcars service." in service.score.__doc__
        assert str(service).startswith("<MtcarsService>")

    def test_a_realtime_model_is_checked_before_it_is_sent(self, client: Any) -> None:
        for model in (b"other", "text", b"", None):
            with pytest.raises(ValueError, match="serialized_model"):
                client.deploy_realtime("rt", version="v1", serialized_model=model)
        with pytest.raises(HttpException):
            client.realtime_service("rt").version("v1").serialized_model(b"blob...").deploy()
        with pytest.raises(ValueError, match="one and only one"):
            client.realtime_service("rt").serialized_model(b"blob").serialized_model(b"blob")


class TestPools:
    def test_a_pool_is_made_told_and_deleted_as_in_the_documentation(self, client: Any, api: RestApi) -> None:
        deployed(client)
        api.warming, api.leaving = 1, 1
        named = {"name": "mtcars", "version": "v1.0.0"}
        assert (
            repr(client.create_or_update_service_pool(**named, initial_pool_size=5, max_pool_size=10))
            == "<Response [200]>"
        )
        assert client.get_service_pool_status(**named) == [{"computeNodeEndpoint": NODE, "status": "Pending"}]
        assert client.get_service_pool_status(**named)[0]["status"] == "Success"
        response = client.delete_service_pool(**named)
        assert isinstance(response, requests.models.Response)
        assert response.status_code == 200
        assert [client.get_service_pool_status(**named)[0]["status"] for _ in range(2)] == ["Pending", "NotFound"]

    def test_the_size_of_the_references_examples_is_taken_too(self, client: Any, api: RestApi) -> None:
        deployed(client)
        client.create_or_update_service_pool("mtcars", version="v1.0.0", initial_pool_size=1, maximum_pool_size=10)
        assert api.asked("POST .*/pool")[0].json() == {"initialPoolSize": 1, "maxPoolSize": 10}
        with pytest.raises(ValueError, match="max_pool_size"):
            client.create_or_update_service_pool("mtcars", "v1.0.0", 1)
        with pytest.raises(TypeError, match="'max_size' is no option"):
            client.create_or_update_service_pool("mtcars", "v1.0.0", 1, 2, max_size=3)

    def test_sizes_that_contradict_each_other_are_the_servers_to_refuse(self, client: Any) -> None:
        deployed(client)
        with pytest.raises(HttpException) as error:
            client.create_or_update_service_pool("mtcars", "v1.0.0", 3, 2)
        assert error.value.status == 400


class TestBatch:
    @pytest.fixture
    def service(self, client: Any) -> Any:
        return deployed(client)

    @pytest.mark.parametrize(
        "records",
        [
            pd.DataFrame({"wt": [2.0, 4.0], "hp": [1, 3]}),
            {"wt": [2.0, 4.0], "hp": [1, 3]},
            [{"hp": 1, "wt": 2.0}, {"hp": np.int64(3), "wt": 4.0}],
        ],
    )
    def test_records_of_each_form_are_run(self, service: Any, api: RestApi, records: Any) -> None:
        batch = service.batch(records, parallel_count=3)
        assert batch.results() is None
        assert batch.start() is batch
        assert batch.start().execution_id == batch.execution_id
        assert len(api.asked("POST .*/batch")) == 1
        assert api.asked("POST .*/batch")[0].params == {"parallelCount": "3"}
        results = batch.results()
        assert (results.state, results.completed_item_count, results.total_item_count) == ("complete", 2, 2)
        assert [results.execution(place).output("answer") for place in (0, 1)] == [15.0, 21.0]
        assert batch.state() == "complete"
        with pytest.raises(IndexError, match="item 7 has no result: 2 of 2 have"):
            results.execution(7)

    def test_a_batch_is_found_again_by_its_id_until_it_is_cancelled(self, service: Any) -> None:
        started = service.batch([{"hp": 1, "wt": 2}]).start()
        assert service.list_batch_executions() == [started.execution_id]
        service.get_batch(started.execution_id).cancel()
        assert service.list_batch_executions() == []

    def test_files_are_downloaded_into_a_folder(self, service: Any, tmp_path: Path) -> None:
        batch = service.batch([{"hp": 1, "wt": 2}, {"hp": 1, "wt": 2}]).start()
        assert batch.list_artifacts(1) == ["plot.png"]
        assert batch.artifact(1, "plot.png") == b"plotted"
        assert batch.download(1, destination=tmp_path) == [str(tmp_path / "plot.png")]
        assert (tmp_path / "plot.png").read_bytes() == b"plotted"
        with pytest.raises(ValueError, match="No such file or directory"):
            batch.download(1, destination=tmp_path / "missing")

    def test_what_was_not_started_says_so(self, service: Any) -> None:
        batch = Batch(service)
        for act in (batch.cancel, batch.state, lambda: batch.list_artifacts(0)):
            with pytest.raises(ValueError, match="Batch not started"):
                act()

    def test_records_that_do_not_fit_the_inputs_are_refused(self, client: Any, service: Any) -> None:
        with pytest.raises(ValueError, match='no column "wt"'):
            service.batch(pd.DataFrame({"hp": [1]}))
        with pytest.raises(ValueError, match="same length"):
            service.batch({"hp": [1], "wt": [1, 2]})
        nothing = client.deploy_service("nothing", version="v1", code_str="y = 1", outputs={"y": int})
        with pytest.raises(ValueError, match="void inputs"):
            nothing.batch([{}])

    def test_partial_results_are_found_by_their_item(self) -> None:
        from sessionpools_azureml.deploy.server import BatchResponse

        answer = {
            "state": "inProgress",
            "completedItemCount": 1,
            "totalItemCount": 3,
            "batchExecutionResults": [{"index": 2, "outputParameters": {"y": 5}}],
        }
        response = BatchResponse("/api/a/v1", "id", answer, [{"name": "y", "type": "integer"}])
        assert response.execution(2).output("y") == 5
        with pytest.raises(IndexError):
            response.execution(0)


class TestSmallParts:
    @pytest.mark.parametrize(
        ("name", "class_name"),
        [("test", "TestService"), ("12345", "Service12345Service"), ("a!b-c.d_word", "ABCDWordService")],
    )
    def test_the_class_of_a_service_is_named_after_it(self, name: str, class_name: str) -> None:
        made = Service({"name": name, "version": "v1"}, HttpClient("http://localhost:1"))
        assert type(made).__name__ == class_name

    def test_an_alias_that_is_no_name_is_not_taken(self) -> None:
        made = Service({"name": "a", "version": "v1", "operationId": "not a name"}, HttpClient("http://localhost:1"))
        assert callable(made.consume)  # type: ignore[attr-defined]

    def test_a_functions_text_calls_itself(self) -> None:
        def add(x: float, y: float) -> float:
            return x + y

        text = to_self_execution_block(add, "answer")
        assert text.startswith("def add(")
        assert text.endswith("\nanswer = add(x, y)")
        variables = {"x": 1, "y": 2}
        exec(text, variables)
        assert variables["answer"] == 3

    @pytest.mark.parametrize("kind", ["integer", "numeric", "character", "logical", "vector", "matrix", "data.frame"])
    def test_nothing_stays_nothing(self, kind: str) -> None:
        assert EncodingType.cast_from_python(kind, None) is None
        assert EncodingType.cast_to_python(kind, None) is None

    def test_a_response_without_outputs_is_one(self) -> None:
        response = ServiceResponse("/api/a/v1", {"errorMessage": "no"}, [{"name": "y", "type": "vector"}])
        assert (response.error, response.output("y"), response.artifacts) == ("no", None, {})

    def test_the_configuration_is_one_for_the_process(self) -> None:
        Configuration().host = "http://example.org/"
        assert Configuration().host == "http://example.org"
        assert Configuration() is Configuration()

    def test_headers_are_set_and_told(self) -> None:
        http = HttpClient("http://localhost:1", access_token="abc")
        http.set_header("X-Own", "1")
        assert (http.get_header("X-Own"), http.accept, http.authorization) == ("1", "application/json", "Bearer abc")
