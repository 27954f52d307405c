"""Quantities, placement, reports, transitions and the status of web services."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionpools.api.v1alpha1 import Condition, Isolation, PoolKind, SessionPool
from sessionpools.core.model import Failure, SessionReport, Taint
from sessionpools.core.placement import place
from sessionpools.core.quantity import times, to_bytes, to_whole
from sessionpools.core.reports import STARTING_PODS_AT_MOST, reports_wanted
from sessionpools.core.services import parameters, service_status, signature_needed
from sessionpools.core.transitions import transitions
from support.builders import node, pod, pool, process_pool, service, target_of

NOW = datetime(2026, 11, 22, tzinfo=UTC)
LATER = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("quantity", "factor", "product"),
    [("500m", 3, "1500m"), ("1.5Gi", 3, "4.5Gi"), ("2", 4, "8"), (1, 2, "2"), (0.5, 4, "2"), ("1e3", 2, "2e3")],
)
def test_a_quantity_is_multiplied_in_its_own_unit(quantity: str | int | float, factor: int, product: str) -> None:
    assert times(quantity, factor) == product


@pytest.mark.parametrize(
    ("quantity", "size"),
    [("1Ki", 1024), ("1k", 1000), ("1.5Mi", 1572864), ("1e3", 1000), ("1500m", 2), (12, 12), ("2E", 2 * 10**18)],
)
def test_a_memory_quantity_has_so_many_bytes(quantity: str | int, size: int) -> None:
    assert to_bytes(quantity) == size


@given(st.integers(0, 10**6), st.sampled_from(["", "m", "k", "Mi", "Gi"]), st.integers(1, 1000))
def test_multiplying_is_adding_up(number: int, unit: str, factor: int) -> None:
    assert abs(to_bytes(times(f"{number}{unit}", factor)) - factor * to_bytes(f"{number}{unit}")) <= factor


@pytest.mark.parametrize(("quantity", "whole"), [("8", 8), (4, 4), ("3920m", 3), ("500m", 0), ("1k", 1000)])
def test_whole_units_are_rounded_down(quantity: str | int, whole: int) -> None:
    assert to_whole(quantity) == whole


@pytest.mark.parametrize("wrong", ["", "1 Gi", "x", "1Zi"])
def test_what_is_no_quantity_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        times(wrong, 2)


class TestPlacement:
    def test_an_own_taint_keeps_the_pool_away_unless_tolerated(self) -> None:
        taint = Taint("team", "data", "NoSchedule")
        p = pool()
        assert not place(p.spec.placement, node(taints=(taint,))).compute_node
        for toleration in (
            {"key": "team", "operator": "Equal", "value": "data", "effect": "NoSchedule"},
            {"key": "team", "operator": "Exists"},
            {"operator": "Exists"},
        ):
            tolerant = pool(placement={"tolerations": [toleration]})
            assert place(tolerant.spec.placement, node(taints=(taint,))).compute_node

    def test_a_toleration_of_another_value_or_effect_does_not_help(self) -> None:
        taint = Taint("team", "data", "NoExecute")
        for toleration in ({"key": "team", "value": "web"}, {"key": "team", "value": "data", "effect": "NoSchedule"}):
            p = pool(placement={"tolerations": [toleration]})
            found = place(p.spec.placement, node(taints=(taint,)))
            assert (found.compute_node, found.may_stay) == (False, False)

    def test_a_taint_that_is_tolerated_for_a_while_keeps_new_sessions_away(self) -> None:
        p = pool(placement={"tolerations": [{"key": "team", "operator": "Exists", "tolerationSeconds": 60}]})
        found = place(p.spec.placement, node(taints=(Taint("team", "", "NoExecute"),)))
        assert (found.compute_node, found.may_stay) == (False, True)

    def test_a_taint_of_the_nodes_condition_only_closes_it(self) -> None:
        found = place(
            pool().spec.placement, node(taints=(Taint("node.kubernetes.io/memory-pressure", "", "NoSchedule"),))
        )
        assert (found.compute_node, found.counts) == (True, True)
        assert found.closed is not None
        assert (found.closed.reason, found.closed.lasts) == ("NodePressure", True)
        message = "NodePressure: the node has the taint node.kubernetes.io/memory-pressure"
        assert found.closed.message.startswith(message)

    def test_a_taint_of_a_node_that_joins_is_no_pressure(self) -> None:
        taint = Taint("node.kubernetes.io/network-unavailable", "", "NoSchedule")
        found = place(pool().spec.placement, node(taints=(taint,)))
        assert found.closed is not None
        assert (found.closed.reason, found.closed.lasts) == ("NodeTainted", False)
        message = "NodeTainted: the node has the taint node.kubernetes.io/network-unavailable"
        assert found.closed.message.startswith(message)

    def test_prefer_no_schedule_is_only_a_preference(self) -> None:
        assert place(pool().spec.placement, node(taints=(Taint("a", "", "PreferNoSchedule"),))).closed is None


class TestReports:
    def test_none_is_wanted_while_nothing_changes(self) -> None:
        p = pool(2, 4)
        t = target_of(p)
        pods = [pod(t, p, 0), pod(t, p, 1)]
        known = {pods[0].uid: SessionReport(1, 0, "ready", 0.0, 1, 1)}
        assert reports_wanted(p, t.revision.name, pods, known) == []

    def test_one_ready_pod_is_asked_what_its_warm_up_found(self) -> None:
        p = pool(2, 4)
        t = target_of(p)
        pods = [pod(t, p, 0), pod(t, p, 1)]
        assert reports_wanted(p, t.revision.name, pods, {}) == [pods[0]]

    def test_starting_pods_are_asked_one_a_node_and_not_all_of_a_large_pool(self) -> None:
        p = pool(2, 4)
        t = target_of(p)
        pods = [pod(t, p, s, on=f"worker-{n}", ready=False) for n in range(100) for s in (0, 1)]
        asked = reports_wanted(p, t.revision.name, pods, {})
        assert len(asked) == STARTING_PODS_AT_MOST == len({a.owner.node for a in asked})

    def test_a_pod_that_has_failed_has_said_why(self) -> None:
        p = pool(1, 4)
        t = target_of(p)
        assert reports_wanted(p, t.revision.name, [pod(t, p, 0, ready=False, failure=Failure("X", "x"))], {}) == []

    def test_process_pods_are_asked_until_they_have_the_pools_sizes(self) -> None:
        p = process_pool(3, 6)
        t = target_of(p)
        there = pod(t, p, 0)
        for report, wanted in (
            (SessionReport(2, 0, "ready", 0.0, 2, 6), True),
            (SessionReport(2, 0, "ready", 0.0, 3, 6), True),
            (SessionReport(3, 0, "ready", 0.0, 3, 6), False),
        ):
            assert bool(reports_wanted(p, t.revision.name, [there], {there.uid: report})) is wanted

    def test_a_pod_of_one_session_has_no_sizes_to_take_over_whatever_its_pool_is_now(self) -> None:
        p = process_pool(3, 6)
        t = target_of(p)
        single = pod(t, p, 0, revision="old", isolation=Isolation.POD)
        assert reports_wanted(p, t.revision.name, [single], {}) == []

    def test_where_sessions_have_to_go_all_are_asked(self) -> None:
        p = pool(1, 4)
        t = target_of(p)
        pods = [pod(t, p, s) for s in range(3)]
        assert reports_wanted(p, t.revision.name, pods, {}) == pods

    def test_where_a_rollout_may_leave_fewer_than_are_wanted_old_ones_are_asked_before_any_goes(self) -> None:
        p = pool(3, 4, update={"maxSurge": 0, "maxUnavailable": 1})
        t = target_of(p)
        old, left = ([pod(t, p, s, revision="old") for s in range(count)] for count in (3, 2))
        assert reports_wanted(p, t.revision.name, old, {}) == old
        assert reports_wanted(p, t.revision.name, left, {}) == []  # the next new one has to be ready first
        new = pod(t, p, 2)
        known = {new.uid: SessionReport(1, 0, "ready", 0.0, 1, 1)}
        assert reports_wanted(p, t.revision.name, [*left, new], known) == [*left, new]

    def test_where_there_is_no_choice_nobody_is_asked(self) -> None:
        p = pool(1, 4, update={"maxSurge": 0, "maxUnavailable": 1})
        t = target_of(p)
        old = [pod(t, p, 0, on=f"worker-{n}", revision="old") for n in range(3)]
        assert reports_wanted(p, t.revision.name, old, {}) == []

    def test_sessions_that_demand_asked_for_do_not_have_to_go(self) -> None:
        p = pool(1, 4)
        t = target_of(p)
        pods = [pod(t, p, s) for s in range(3)]
        assert reports_wanted(p, t.revision.name, pods, {}, {"worker-1": 3}) == pods[:1]
        assert reports_wanted(p, t.revision.name, pods, {}, {"worker-1": 2}) == pods


def condition(type_: str, status: str, reason: str) -> Condition:
    return Condition.model_validate(
        {"type": type_, "status": status, "reason": reason, "message": "m", "lastTransitionTime": NOW}
    )


class TestTransitions:
    def test_becoming_ready_is_one_event(self) -> None:
        ready = condition("Ready", "True", "SessionsReady")
        assert [t.reason for t in transitions([condition("Ready", "False", "x")], [ready])] == ["SessionsReady"]
        assert transitions([ready], [ready]) == []

    def test_a_new_reason_to_be_stalled_is_a_warning(self) -> None:
        before, after = condition("Stalled", "True", "ImagePullBackOff"), condition("Stalled", "True", "OOMKilled")
        assert [(t.type, t.reason) for t in transitions([before], [after])] == [("Warning", "OOMKilled")]

    def test_the_end_of_a_rollout_is_an_event_as_ready_never_turns(self) -> None:
        rolling, done = condition("Reconciling", "True", "RollingOut"), condition("Reconciling", "False", "UpToDate")
        assert [(t.type, t.reason) for t in transitions([rolling], [done])] == [("Normal", "RolledOut")]
        assert transitions([condition("Reconciling", "True", "Filling")], [done]) == []
        assert transitions([rolling], [condition("Reconciling", "False", "Stalled")]) == []

    def test_filling_up_is_no_event(self) -> None:
        assert transitions([], [condition("Ready", "False", "SessionsStarting")]) == []


class TestWebServiceStatus:
    def ready_pool(self) -> SessionPool:
        status = pool().status.model_copy(
            update={"revision": "r1", "conditions": [condition("Ready", "True", "SessionsReady")]}
        )
        return pool().model_copy(update={"status": status})

    def test_without_a_pool_it_can_not_be_called(self) -> None:
        seen = service_status(service(), None, None, None, 1, NOW)
        assert (seen.pool, seen.conditions[0].status, seen.conditions[0].reason) == (PoolKind.NONE, "False", "NoPool")

    def test_with_a_ready_pool_it_shows_the_running_signature(self) -> None:
        answer = {"inputs": [{"name": "bmi", "type": "numeric", "required": False}], "outputs": []}
        seen = service_status(service(), None, self.ready_pool(), answer, 1, NOW)
        assert (seen.pool, seen.revision, seen.conditions[0].status) == (PoolKind.DEDICATED, "r1", "True")
        assert [(p.name, p.type, p.required) for p in seen.inputs] == [("bmi", "numeric", False)]

    def test_the_signature_is_asked_for_once_a_revision(self) -> None:
        p = self.ready_pool()
        answer = {"inputs": [{"name": "bmi", "type": "numeric"}], "outputs": []}
        seen = service().model_copy(update={"status": service_status(service(), None, p, answer, 1, NOW)})
        assert signature_needed(service(), p)
        assert not signature_needed(seen, p)

    def test_it_is_not_ready_before_its_pool_has_seen_the_new_generation(self) -> None:
        changed = service(meta={"generation": 2})
        seen = {c.type: c.status for c in service_status(changed, None, self.ready_pool(), None, 1, NOW).conditions}
        assert (seen["Ready"], seen["Reconciling"]) == ("False", "True")

    def test_what_was_said_of_a_generation_stands_while_the_controller_has_not_looked_at_the_pool_yet(self) -> None:
        p = self.ready_pool()
        seen = service().model_copy(update={"status": service_status(service(), None, p, None, 1, NOW)})
        assert service_status(seen, None, p, None, None, LATER) == seen.status
        not_seen = service(meta={"generation": 2})
        waiting = not_seen.model_copy(update={"status": service_status(not_seen, None, p, None, 1, NOW)})
        assert service_status(waiting, None, p, None, None, LATER) == waiting.status

    def test_of_a_generation_or_a_pool_that_nobody_looked_at_nothing_is_said_to_be_ready(self) -> None:
        p = self.ready_pool()
        seen = service().model_copy(update={"status": service_status(service(), None, p, None, 1, NOW)})
        changed = seen.model_copy(update={"metadata": service(meta={"generation": 2}).metadata})
        for of, served in ((changed, p), (seen, pool())):
            found = {c.type: c.status for c in service_status(of, None, served, None, None, LATER).conditions}
            assert (found["Ready"], found["Reconciling"]) == ("False", "True")

    def test_it_is_stalled_with_its_pool(self) -> None:
        conditions = [condition("Ready", "True", "SessionsReady"), condition("Stalled", "True", "RevisionFailed")]
        status = pool().status.model_copy(update={"revision": "r1", "conditions": conditions})
        p = pool().model_copy(update={"status": status})
        seen = {c.type: c for c in service_status(service(), None, p, None, 1, NOW).conditions}
        assert (seen["Ready"].status, seen["Stalled"].reason) == ("True", "PoolStalled")
        assert "RevisionFailed" in seen["Stalled"].message

    def test_the_former_signature_stands_until_the_new_revision_answers(self) -> None:
        p = self.ready_pool()
        answer = {"inputs": [{"name": "bmi", "type": "numeric"}], "outputs": []}
        seen = service().model_copy(update={"status": service_status(service(), None, p, answer, 1, NOW)})
        newer = p.model_copy(update={"status": p.status.model_copy(update={"revision": "r2"})})
        kept = service_status(seen, None, newer, None, 1, NOW)
        assert (kept.revision, kept.inputs) == ("r1", seen.status.inputs)

    def test_names_that_the_api_server_would_refuse_are_left_out(self) -> None:
        names = ["x", "x", "y" * 600, "z"]
        answer = {"inputs": [{"name": name, "type": "any"} for name in names], "outputs": []}
        found = parameters(answer)
        assert found is not None
        assert [p.name for p in found[0]] == ["x", "z"]

    def test_what_a_pod_answers_is_not_trusted(self) -> None:
        for answer in ({}, {"inputs": 3, "outputs": []}, {"inputs": [{"name": 1}], "outputs": []}):
            assert parameters(answer) is None

    def test_the_newer_of_two_says_which_one_is_served(self) -> None:
        seen = service_status(service(), service(meta={"name": "first"}), self.ready_pool(), None, 1, NOW)
        assert [(c.type, c.status, c.reason) for c in seen.conditions] == [
            ("Ready", "False", "DuplicateService"),
            ("Reconciling", "False", "UpToDate"),
            ("Stalled", "True", "DuplicateService"),
        ]
