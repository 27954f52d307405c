"""The rules of the kinds, put to a real API server: what it refuses, what it says then, and what it accepts."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import yaml

from sessionpools.api.v1alpha1 import SessionPool, WebService
from support.cluster import KubectlError, apply, get, kubectl, temporary_namespace
from support.kinds import generic_pool, pool, service
from support.out_of_schema import OUT_OF_SCHEMA
from support.refusal import Refusal
from support.refusals import REFUSALS
from support.tools import ROOT

Object = dict[str, Any]
pytestmark = pytest.mark.usefixtures("crds")


@pytest.fixture(scope="module")
def place(kube_context: str) -> Iterator[str]:
    """A namespace for objects that are only tried (dry run)."""
    with temporary_namespace("validation") as name:
        yield name


def tried(thing: Object, place: str, validate: str = "strict") -> Object:
    """What the API server would store; raises KubectlError with what it says when it would not."""
    done = kubectl(
        *(
            "create",
            "--dry-run=server",
            f"--validate={validate}",
            "--namespace",
            place,
            "--output=json",
            "--filename=-",
        ),
        input=json.dumps(thing),
    )
    stored: Object = json.loads(done.stdout)
    return stored


@pytest.fixture(scope="module")
def answers(place: str) -> str:
    """What kubectl says about all refused objects, a line each."""
    return said_of([named(refusal) for refusal in REFUSALS], place)


def said_of(things: Sequence[Object], place: str) -> str:
    """By one call, as 80 of them take a minute."""
    done = kubectl(
        *("create", "--dry-run=server", "--validate=ignore", "--namespace", place, "--filename=-"),
        input=json.dumps({"apiVersion": "v1", "kind": "List", "items": things}),
        check=False,
    )
    return done.stdout + done.stderr


def named(refusal: Refusal) -> Object:
    """The refused object under a name of its own, unless it is refused for its name."""
    metadata = refusal.object["metadata"]
    if metadata["name"] in ("score", "generic"):
        metadata = {"name": refusal.id.replace("_", "-")}
    return refusal.object | {"metadata": metadata}


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.id)
def test_a_bad_object_is_refused_with_the_field_and_the_remedy(refusal: Refusal, answers: str) -> None:
    name = named(refusal)["metadata"]["name"]
    (answer,) = [line for line in answers.splitlines() if f'"{name}" is invalid: ' in line]
    assert refusal.says in answer


def test_a_value_beyond_the_schema_is_refused_with_its_field(place: str) -> None:
    names = [f"beyond-{number}" for number in range(len(OUT_OF_SCHEMA))]
    things = [
        each.refusal.object | {"metadata": {"name": name}} for name, each in zip(names, OUT_OF_SCHEMA, strict=True)
    ]
    lines = said_of(things, place).splitlines()
    wrong = []
    for name, each in zip(names, OUT_OF_SCHEMA, strict=True):
        answers = [line for line in lines if f'"{name}" is invalid: ' in line]
        if not any(each.refusal.says in answer for answer in answers):
            wrong.append((each.refusal.id, each.refusal.says, [answer[:500] for answer in answers]))
    assert not wrong


# --- what is accepted -----------------------------------------------------------------------------------------


def test_a_pool_gets_the_defaults_that_the_models_have(place: str) -> None:
    stored = tried(pool(), place)
    assert stored["spec"] == {
        "serviceName": "Score",
        "serviceVersion": "v1",
        "initialPoolSize": 0,
        "maxPoolSize": 2,
        "isolation": "Pod",
        "idleTimeoutSeconds": 300,
        "requestTimeoutSeconds": 60,
        "startTimeoutSeconds": 600,
        "drainTimeoutSeconds": 60,
        "recycleAfterRequests": 0,
        "queue": {"maxLength": 100, "timeoutSeconds": 10},
        "update": {"maxSurge": 1, "maxUnavailable": 0},
    }
    assert SessionPool.model_validate(stored).spec == SessionPool.model_validate(pool()).spec


def test_a_web_service_gets_the_defaults_that_the_models_have(place: str) -> None:
    given = service()
    stored = tried(given, place)
    assert stored["spec"] == given["spec"] | {"forkSafe": True}
    assert WebService.model_validate(stored).spec == WebService.model_validate(given).spec


FULL_POOL = pool(
    initialPoolSize=5,
    maxPoolSize=1000,
    isolation="Process",
    requestTimeoutSeconds=120,
    drainTimeoutSeconds=120,
    queue={"maxLength": 0},
    update={"maxSurge": 0, "maxUnavailable": 5},
    placement={
        "nodeSelector": {"kubernetes.io/arch": "amd64", "disk": ""},
        "tolerations": [
            {"operator": "Exists"},
            {"key": "gpu", "value": "a100", "effect": "NoSchedule"},
            {"key": "lost", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30},
        ],
        "priorityClassName": "high",
    },
    image="",
)
FULL_SERVICE = service(
    description="Progression of diabetes",
    image="registry/models/diabetes@sha256:" + "0" * 64,
    script="",
    init="package.module:load",
    modules=["numpy", "sklearn.linear_model"],
    warmup={"bmi": 0.06, "tags": ["a", None], "nested": {"deep": {"x": [1, 2.5, True, None]}}, "none": None},
    inputs=[{"name": "bmi", "type": "numeric"}, {"name": "größe", "type": "data.frame"}],
    outputs=[],
    outputFiles=["plot.png", "out/.hidden"],
    forkSafe=False,
    env=[
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token", "optional": True}}},
        {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app.kubernetes.io/name']"}}},
        {"name": "D", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ],
    envFrom=[{"configMapRef": {"name": "settings"}}, {"prefix": "DB_", "secretRef": {"name": "db"}}],
    volumes=[
        {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        {
            "name": "labels",
            "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
        },
        {"name": "config", "configMap": {"name": "c", "items": [{"key": "a.txt", "path": "x/a.txt", "mode": 0o400}]}},
        {
            "name": "all",
            "projected": {"sources": [{"secret": {"name": "keys"}}, {"configMap": {"name": "settings"}}]},
        },
    ],
    volumeMounts=[
        {"name": "models", "mountPath": "/models", "readOnly": True},
        {"name": "shm", "mountPath": "/dev/shm"},
        {"name": "all", "mountPath": "/etc/all", "subPath": "token"},
    ],
    imagePullSecrets=[{"name": "regcred"}],
    serviceAccountName="models",
    resources={"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": 536870912, "nvidia.com/gpu": 1}},
)


@pytest.mark.parametrize("full", [FULL_POOL, FULL_SERVICE], ids=["pool", "service"])
def test_every_field_is_kept_as_given(full: Object, place: str) -> None:
    stored = tried(full, place)
    missing = {field: value for field, value in full["spec"].items() if field not in stored["spec"]}
    assert missing == {}
    assert {
        field: stored["spec"][field] for field in ("warmup", "volumes", "env", "inputs") if field in full["spec"]
    } == {field: full["spec"][field] for field in ("warmup", "volumes", "env", "inputs") if field in full["spec"]}
    model: type[SessionPool | WebService] = SessionPool if full["kind"] == "SessionPool" else WebService
    assert model.model_validate(stored).spec == model.model_validate(full).spec


@pytest.mark.parametrize(
    "key",
    ["n" * 128, "ü" * 128, "糖尿病 スコア", "v1.0.0", "...", "a b", "50%", "a?b#c;d", "-_~", "Score"],
    ids=[
        "128_characters",
        "128_umlauts",
        "japanese",
        "dots",
        "three_dots",
        "blank",
        "percent",
        "reserved",
        "marks",
        "plain",
    ],
)
def test_a_name_is_whatever_a_path_segment_can_carry(key: str, place: str) -> None:
    stored = tried(pool(serviceName=key, serviceVersion=key), place)
    assert (stored["spec"]["serviceName"], stored["spec"]["serviceVersion"]) == (key, key)
    assert tried(service(name=key, version=key), place)["spec"]["name"] == key


EDGES = {
    "no_sessions": pool(initialPoolSize=0, maxPoolSize=0),
    "object_name_of_63": pool("n" * 63),
    "generic_pool": generic_pool(image="registry/session:1"),
    "bundle": service(code={"bundle": {"url": "https://host/b.tar.gz", "sha256": "0" * 64}}),
    "script_from_config_map": service(code={"configMap": {"name": "code"}}, entrypoint=None, script="main.py"),
    "image_path": service(code={"imagePath": "/app"}),
    "files_64": service(code={"inline": {f"p/f{n}.py": "" for n in range(64)}}),
    "file_of_512_kib": service(code={"inline": {"service.py": "#" * 512 * 1024}}),
    "no_inputs": service(inputs=[], warmup={}),
}


@pytest.mark.parametrize("accepted", EDGES.values(), ids=EDGES.keys())
def test_what_is_at_the_edge_is_accepted(accepted: Object, place: str) -> None:
    stored = tried(accepted, place)
    model: type[SessionPool | WebService] = SessionPool if accepted["kind"] == "SessionPool" else WebService
    assert model.model_validate(stored).spec == model.model_validate(accepted).spec


@pytest.mark.parametrize("page", ["sessionpool.md", "webservice.md"])
def test_the_example_of_the_reference_page_is_accepted(page: str, place: str) -> None:
    text = (ROOT / "docs/reference" / page).read_text(encoding="utf-8")
    example = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert tried(example, place)["metadata"]["name"] == "diabetes-score"


def test_no_warmup_and_a_warmup_without_inputs_are_two_things(place: str) -> None:
    assert WebService.model_validate(tried(service(), place)).spec.warmup is None
    assert WebService.model_validate(tried(service(warmup={}), place)).spec.warmup == {}


# --- unknown fields -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thing", "field"),
    [
        (pool(maxPoolsize=5), "spec.maxPoolsize"),
        (pool(queue={"length": 5}), "spec.queue.length"),
        (service(command=["sh"]), "spec.command"),
        (service(volumes=[{"name": "root", "hostPath": {"path": "/"}}]), "spec.volumes[0].hostPath"),
    ],
    ids=["wrong_case", "nested", "not_offered", "host_path"],
)
def test_an_unknown_field_is_named_under_strict_validation(thing: Object, field: str, place: str) -> None:
    with pytest.raises(KubectlError) as refused:
        tried(thing, place)
    assert f'strict decoding error: unknown field "{field}"' in str(refused.value)


def test_an_unknown_field_is_pruned_without_validation(place: str) -> None:
    stored = tried(service(command=["sh"], code={"inline": {"a.py": ""}, "git": "x"}), place, validate="ignore")
    assert "command" not in stored["spec"]
    assert stored["spec"]["code"] == {"inline": {"a.py": ""}}


@pytest.mark.parametrize("source", ["hostPath", "csi", "nfs", "ephemeral", "image"])
def test_a_volume_that_is_not_offered_is_refused_even_without_validation(source: str, place: str) -> None:
    with pytest.raises(KubectlError, match="volume root must have exactly one source"):
        tried(service(volumes=[{"name": "root", source: {}}]), place, validate="ignore")


def test_a_service_account_token_cannot_be_projected(place: str) -> None:
    token = {"sources": [{"serviceAccountToken": {"path": "token"}}]}
    with pytest.raises(KubectlError, match="no other source is supported"):
        tried(service(volumes=[{"name": "token", "projected": token}]), place, validate="ignore")


def test_status_is_written_through_its_subresource_only(place: str) -> None:
    assert "state" not in tried(pool() | {"status": {"state": "Success"}}, place).get("status", {})


# --- over time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (pool(), pool(serviceName="score"), "spec.serviceName: Forbidden: serviceName is immutable"),
        (pool(), pool(serviceVersion="v2"), "spec.serviceVersion: Forbidden: serviceVersion is immutable"),
        (pool(), pool(serviceName=None, serviceVersion=None), "spec.serviceName: Forbidden: serviceName is immutable"),
        (generic_pool(), pool("generic"), "spec.serviceName: Forbidden: serviceName is immutable"),
        (service(), service(name="score"), "spec.name: Forbidden: name is immutable"),
        (service(), service(version="v2"), "spec.version: Forbidden: version is immutable"),
    ],
    ids=["name_of_pool", "version_of_pool", "pool_to_generic", "generic_to_pool", "name", "version"],
)
def test_the_key_is_immutable(before: Object, after: Object, says: str, namespace: str) -> None:
    apply(before, namespace=namespace)
    with pytest.raises(KubectlError) as refused:
        apply(after, namespace=namespace)
    assert f"{says}: create another object for another service or version" in str(refused.value)


def test_everything_but_the_key_can_be_changed(namespace: str) -> None:
    apply(pool(), service(), namespace=namespace)
    apply(
        pool(maxPoolSize=7, queue={"maxLength": 1}), service(entrypoint=None, script="service.py"), namespace=namespace
    )
    assert get("sp", "score", namespace)["spec"]["maxPoolSize"] == 7
    assert get("ws", "score", namespace)["spec"]["script"] == "service.py"


def test_names_that_differ_in_case_only_are_two_services(namespace: str) -> None:
    apply(service("upper", name="Score"), service("lower", name="score"), namespace=namespace)
    assert get("ws", "upper", namespace)["spec"]["name"] == "Score"
    assert get("ws", "lower", namespace)["spec"]["name"] == "score"


def test_two_appliers_can_own_one_variable_each(namespace: str) -> None:
    for name in ("A", "B"):
        document = service(env=[{"name": name, "value": name}])
        arguments = (
            "apply",
            "--server-side",
            f"--field-manager={name.lower()}",
            "--namespace",
            namespace,
            "--filename=-",
        )
        kubectl(*arguments, input=json.dumps(document))
    assert [variable["name"] for variable in get("ws", "score", namespace)["spec"]["env"]] == ["A", "B"]
