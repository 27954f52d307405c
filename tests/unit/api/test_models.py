"""Reading and writing objects through the models."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from sessionpools.api.v1alpha1 import (
    Condition,
    Isolation,
    NodeStatus,
    Parameter,
    ParameterType,
    PoolKind,
    SessionPool,
    SessionPoolStatus,
    SignatureParameter,
    State,
    WebService,
)

METADATA = {
    "name": "score",
    "namespace": "demo",
    "uid": "u",
    "generation": 3,
    "resourceVersion": "17",
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "managedFields": [{"manager": "kubectl"}],
}
POOL = {
    "apiVersion": "sessionpools.dev/v1alpha1",
    "kind": "SessionPool",
    "metadata": METADATA,
    "spec": {"serviceName": "Score", "serviceVersion": "v1", "initialPoolSize": 1, "maxPoolSize": 2},
}


def test_an_object_of_the_api_server_is_read() -> None:
    pool = SessionPool.model_validate(POOL)
    assert (pool.metadata.name, pool.metadata.generation, pool.metadata.resource_version) == ("score", 3, "17")
    assert pool.metadata.creation_timestamp == datetime(2026, 1, 1, tzinfo=UTC)
    assert pool.metadata.deletion_timestamp is None
    assert pool.spec.isolation is Isolation.POD
    assert pool.status == SessionPoolStatus()


def test_fields_of_a_later_version_are_ignored() -> None:
    later = POOL | {"spec": {**POOL["spec"], "sparePoolSize": 3}, "extra": 1}  # type: ignore[dict-item]
    assert SessionPool.model_validate(later) == SessionPool.model_validate(POOL)


def test_what_a_stricter_version_would_refuse_is_still_read() -> None:
    spec = {"serviceName": "a/b" * 100, "serviceVersion": "", "initialPoolSize": -1, "maxPoolSize": 10**6}
    pool = SessionPool.model_validate({"spec": spec})
    assert pool.spec.max_pool_size == 10**6


def test_a_wrong_type_is_refused() -> None:
    with pytest.raises(ValidationError, match="maxPoolSize"):
        SessionPool.model_validate({"spec": {"initialPoolSize": 1, "maxPoolSize": "many"}})


def test_a_model_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SessionPool.model_validate(POOL).spec.max_pool_size = 3  # type: ignore[misc]


def test_spec_is_written_as_its_author_would_write_it() -> None:
    assert SessionPool.model_validate(POOL).spec.to_json(defaults=False) == POOL["spec"]


def test_warmup_and_pod_fields_are_handed_on_untouched() -> None:
    spec = {
        "name": "Score",
        "version": "v1",
        "code": {"inline": {"a.py": ""}},
        "warmup": {"a_b": {"c_d": None}, "cD": [1.5]},
        "volumes": [{"name": "m", "persistentVolumeClaim": {"claimName": "m"}}],
        "resources": {"limits": {"memory": "1Gi"}},
    }
    assert WebService.model_validate({"spec": spec}).spec.to_json(defaults=False) == spec


def test_status_is_written_with_its_zeros_and_without_what_is_unknown() -> None:
    written = SessionPoolStatus(nodes=[NodeStatus(name="n", state=State.PENDING)]).to_json()
    assert written["nodes"] == [{"name": "n", "state": "Pending", "desired": 0, "ready": 0, "message": ""}]
    assert written["sessions"] == {"desired": 0, "ready": 0, "updated": 0, "old": 0}
    assert "state" not in written


def test_a_time_is_written_in_utc_and_whole_seconds() -> None:
    time = datetime(2026, 1, 1, 12, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=2)))
    condition = Condition(type="Ready", status="True", reason="R", message="m", last_transition_time=time)
    assert condition.to_json()["lastTransitionTime"] == "2026-01-01T10:00:00Z"


def test_a_status_survives_writing_and_reading() -> None:
    status = SessionPoolStatus(
        state=State.SUCCESS, nodes=[NodeStatus(name="n", state=State.SUCCESS, desired=1, ready=1)]
    )
    assert SessionPoolStatus.model_validate(status.to_json()) == status


def test_absent_inputs_and_no_inputs_are_two_things() -> None:
    spec = {"name": "Score", "version": "v1", "code": {}}
    assert WebService.model_validate({"spec": spec}).spec.inputs is None
    assert WebService.model_validate({"spec": spec | {"inputs": []}}).spec.inputs == []


def test_the_types_of_ml_server_are_written_in_its_words() -> None:
    assert Parameter(name="x", type=ParameterType.DATA_FRAME).to_json() == {"name": "x", "type": "data.frame"}
    assert SignatureParameter(name="x", type=ParameterType.ANY).to_json() == {
        "name": "x",
        "type": "any",
        "required": True,
    }
    assert [kind.value for kind in PoolKind] == ["dedicated", "generic", "none"]
