"""API objects as the API server sends them, to what the core decides on."""

from typing import Any

import pytest

from sessionpools.api.v1alpha1 import Isolation
from sessionpools.core.model import Failure
from sessionpools.core.observe import node_view, pod_view


def pod(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "score-0",
            "namespace": "demo",
            "uid": "u",
            "creationTimestamp": "2026-11-22T12:00:00Z",
            "labels": {
                "sessionpools.dev/pool": "score",
                "sessionpools.dev/pool-uid": "p",
                "sessionpools.dev/revision": "r",
                "sessionpools.dev/slot": "2",
                "sessionpools.dev/incarnation": "1",
            },
            "ownerReferences": [{"kind": "SessionPool", "uid": "p", "controller": True}],
            "annotations": {"sessionpools.dev/node": "worker-1", "sessionpools.dev/node-uid": "n"},
        }
        | metadata,
        "spec": {"containers": [{"name": "session", "image": "image:1"}]},
        "status": status,
    }


def container(**fields: Any) -> dict[str, Any]:
    return {"name": "session", "image": "image:1", "ready": False} | fields


def failure(status: dict[str, Any]) -> Failure | None:
    return pod_view(pod(status)).failure


def test_a_ready_pod_has_no_failure_and_says_where_it_belongs() -> None:
    ended = {"exitCode": 1, "reason": "Error", "message": "ImportError: old"}
    seen = pod_view(
        pod(
            {
                "phase": "Running",
                "podIP": "10.1.2.3",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [container(state={"running": {}}, lastState={"terminated": ended})],
            }
        )
    )
    assert (seen.ready, seen.started, seen.failure, seen.address) == (True, True, None, "10.1.2.3")
    assert seen.image == "image:1"
    assert (seen.owner.node, seen.owner.slot, seen.owner.incarnation, seen.owner.revision) == ("worker-1", 2, 1, "r")


@pytest.mark.parametrize(
    ("said", "isolation"),
    [({}, None), ({"sessionpools.dev/isolation": "Process"}, Isolation.PROCESS),
     ({"sessionpools.dev/isolation": "of-a-later-version"}, None)],
)  # fmt: skip
def test_a_pod_says_its_own_isolation_or_has_the_pools(said: dict[str, str], isolation: Isolation | None) -> None:
    body = pod({})
    body["metadata"]["annotations"] |= said
    assert pod_view(body).owner.isolation is isolation


def test_a_pod_that_the_api_server_has_just_accepted_is_pending() -> None:
    seen = pod_view(pod({}))
    assert (seen.ended, seen.ready, seen.failure, seen.alive) == (False, False, None, True)


def test_a_pod_on_its_way_out_is_not_alive() -> None:
    seen = pod_view(pod({"phase": "Running"}, deletionTimestamp="2026-11-22T12:01:00Z"))
    assert (seen.deleting, seen.alive) == (True, False)


def test_a_pod_of_others_with_our_label_is_refused() -> None:
    copied = pod({}, ownerReferences=[{"kind": "ReplicaSet", "uid": "other", "controller": True}])
    with pytest.raises(ValueError, match="not controlled"):
        pod_view(copied)
    with pytest.raises((KeyError, ValueError)):
        pod_view(
            {"metadata": {"name": "x", "namespace": "d", "uid": "u", "labels": {"sessionpools.dev/pool-uid": "p"}}}
        )


@pytest.mark.parametrize("when", ["state", "lastState"])
def test_the_exception_that_ended_the_warm_up_is_read_from_the_termination_log(when: str) -> None:
    message = "ModuleNotFoundError: No module named 'foo' (import foo)\nTraceback...\n  more"
    ended = {when: {"terminated": {"exitCode": 1, "reason": "Error", "message": message}}}
    assert failure({"phase": "Running", "containerStatuses": [container(restartCount=1, **ended)]}) == Failure(
        "SessionFailed", "ModuleNotFoundError: No module named 'foo' (import foo)"
    )


def test_of_a_log_that_stands_in_for_the_termination_log_the_last_line_is_taken() -> None:
    message = 'Traceback (most recent call last):\n  File "x.py"\nKeyError: 3\n'
    ended = {"terminated": {"exitCode": 1, "message": message}}
    found = failure({"containerStatuses": [container(state=ended, restartCount=1)]})
    assert found == Failure("SessionFailed", "KeyError: 3")


def test_the_first_crash_may_pass_and_the_second_lasts() -> None:
    ended = {"terminated": {"exitCode": 1, "message": "OSError: no route (init)"}}
    for restarts, lasts in ((0, False), (1, True)):
        found = failure({"containerStatuses": [container(state=ended, restartCount=restarts)]})
        assert found is not None
        assert found.lasts is lasts


def test_what_ended_before_the_container_was_ready_once_says_nothing_of_today() -> None:
    status = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-22T12:00:00Z"}],
        "containerStatuses": [
            container(
                restartCount=1,
                state={"running": {"startedAt": "2026-11-01T00:00:00Z"}},
                lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            )
        ],
    }
    assert failure(status) is None


@pytest.mark.parametrize(
    "reason",
    [
        *("StartTimeout", "EntrypointNotFound", "EntrypointInvalid", "SyntaxError"),
        *("BundleUnreachable", "BundleDigestMismatch", "BundleInvalid", "BundleTooLarge"),
    ],
)
def test_causes_of_their_own_keep_their_reason(reason: str) -> None:
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": f"{reason}: init took longer than 600 s"}}
    found = failure({"phase": "Running", "containerStatuses": [container(state=ended)]})
    assert found is not None
    assert found.reason == reason


@pytest.mark.parametrize(("reason", "lasts"), [("BundleUnreachable", False), ("BundleDigestMismatch", True)])
def test_a_server_that_is_away_may_be_back_and_a_wrong_digest_stays(reason: str, lasts: bool) -> None:
    for restarts in (0, 1):
        ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": f"{reason}: http://host/b: words"}}
        found = failure({"phase": "Running", "containerStatuses": [container(state=ended, restartCount=restarts)]})
        assert found is not None
        assert found.lasts is (lasts or restarts > 0)


def test_a_container_killed_for_memory_is_oom_killed_whoever_says_it() -> None:
    by_kubelet = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    by_supervisor = {"terminated": {"exitCode": 1, "reason": "Error", "message": "OOMKilled: killed in init"}}
    for state in (by_kubelet, by_supervisor):
        found = failure({"phase": "Running", "containerStatuses": [container(state=state)]})
        assert found is not None
        assert found.reason == "OOMKilled"


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff"])
def test_the_two_turns_of_a_pull_that_fails_are_one_reason(reason: str) -> None:
    waiting = {"waiting": {"reason": reason, "message": "not found"}}
    assert failure({"phase": "Pending", "containerStatuses": [container(state=waiting)]}) == Failure(
        "ImagePullBackOff", "ImagePullBackOff: image image:1: not found"
    )


def test_a_container_that_is_being_created_is_no_failure() -> None:
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    assert failure({"phase": "Pending", "containerStatuses": [container(state=waiting)]}) is None


def unscheduled(message: str, reason: str = "Unschedulable") -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def test_what_is_missing_on_the_node_is_taken_out_of_the_schedulers_sentence() -> None:
    message = (
        "0/3 nodes are available: 1 Insufficient memory, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. "
        "preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod."
    )
    assert failure(unscheduled(message)) == Failure("Unschedulable", "Unschedulable: Insufficient memory")


def test_another_reason_of_the_scheduler_stands_as_it_is() -> None:
    found = failure(unscheduled('0/3 nodes are available: persistentvolumeclaim "data" not found.'))
    assert found is not None
    assert 'persistentvolumeclaim "data" not found' in found.message


def test_a_scheduling_gate_is_no_failure() -> None:
    assert failure(unscheduled("waiting", reason="SchedulingGated")) is None


def test_an_evicted_pod_has_ended_at_the_time_that_it_says() -> None:
    conditions = [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-22T12:30:00Z"}]
    seen = pod_view(pod({"phase": "Failed", "reason": "Evicted", "message": "low on memory", "conditions": conditions}))
    assert (seen.ended, seen.failure) == (True, Failure("Evicted", "low on memory"))
    assert seen.ended_at - seen.created_at == 30 * 60


def test_a_pod_that_the_kubelet_ended_without_a_word_is_no_failure_of_the_session() -> None:
    """As Kubernetes 1.34 reports an eviction when the container's process ends in time."""
    terminated = {"exitCode": 0, "reason": "Completed"}
    containers = [{"name": "session", "state": {"terminated": terminated}, "restartCount": 0}]
    seen = pod_view(pod({"phase": "Succeeded", "containerStatuses": containers}))
    assert seen.ended
    assert seen.failure is not None
    assert (seen.failure.reason, seen.failure.lasts) == ("PodEnded", True)


def test_a_node_is_read_with_its_condition_and_taints() -> None:
    seen = node_view(
        {
            "metadata": {"name": "n", "uid": "u", "labels": {"a": "b"}},
            "spec": {"unschedulable": True, "taints": [{"key": "k", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
        }
    )
    assert (seen.ready, seen.schedulable, seen.labels, seen.taints[0].key) == (False, False, {"a": "b"}, "k")


@pytest.mark.parametrize(("allocatable", "cpus"), [("3920m", 3), ("16", 16), ("100m", 1), (None, 1)])
def test_a_node_has_the_whole_cpus_that_pods_may_use(allocatable: str | None, cpus: int) -> None:
    status = {"allocatable": {"cpu": allocatable}} if allocatable else {}
    assert node_view({"metadata": {"name": "a", "uid": "u"}, "status": status}).cpus == cpus
