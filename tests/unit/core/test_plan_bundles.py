"""Bundles that move: session pods that ask where they no longer are make room for ones that know better."""

from dataclasses import replace

import pytest

from sessionpools.core.model import Failure, PodView, SessionReport
from sessionpools.core.plan import DeletePod, Plan, plan
from sessionpools.core.target import Target
from support.builders import node, places, pod, pool, service, target_of

POOL = pool(1, 2)
UNREACHABLE = Failure("BundleUnreachable", "BundleUnreachable: https://old/b: answered 404 Not Found")


def bundle_at(url: str) -> Target:
    return target_of(POOL, service(code={"bundle": {"url": url, "sha256": "0" * 64}}))


OLD, NEW = bundle_at("https://old/b"), bundle_at("https://new/b")


def session(url: str = "https://old/b", ready: bool = False, failure: Failure | None = None) -> PodView:
    return replace(pod(OLD, POOL, ready=ready, failure=failure), bundle_url=url)


def in_phase(phase: str) -> SessionReport:
    return SessionReport(0, 0, phase, 30.0, 1, 1)


def planned(there: PodView, phase: str = "") -> Plan:
    reports = {there.uid: in_phase(phase)} if phase else {}
    return plan(POOL, NEW, places(POOL, node()), [there], reports, 1e6)


def test_the_address_is_no_new_revision() -> None:
    assert OLD.revision.name == NEW.revision.name


@pytest.mark.parametrize("reason", ["BundleUnreachable", "BundleDigestMismatch", "BundleInvalid"])
def test_one_that_failed_for_its_bundle_is_replaced_once_that_has_moved(reason: str) -> None:
    there = session(failure=Failure(reason, reason))
    assert planned(there).deletes == (DeletePod(there, "BundleMoved"),)
    gone = replace(there, deleting=True)
    (create,) = plan(POOL, NEW, places(POOL, node()), [gone], {}, 1e6).creates
    assert (create.slot, create.incarnation) == (0, 1)


def test_so_is_one_that_still_tries() -> None:
    there = session()
    assert planned(there, "fetch bundle (Connection refused)").deletes == (DeletePod(there, "BundleMoved"),)


@pytest.mark.parametrize(
    ("there", "phase"),
    [
        (session(ready=True), ""),
        (session(ready=True), "ready"),
        (session(), ""),
        (session(), "import service"),
        (session(failure=Failure("SessionFailed", "ValueError: no model (init)")), ""),
        (replace(session(), was_ready=True), "fetch bundle"),
        (session("https://new/b", failure=UNREACHABLE), ""),
        (session("https://new/b"), "fetch bundle (Connection refused)"),
    ],
    ids=["ready", "ready and asked", "not asked", "has it", "fails by itself", "was ready", "fails anew", "tries anew"],
)
def test_all_others_stay(there: PodView, phase: str) -> None:
    assert planned(there, phase) == Plan()


def test_one_that_is_too_many_as_well_is_deleted_once() -> None:
    more = [
        session(failure=UNREACHABLE),
        replace(pod(OLD, POOL, 1, ready=False, failure=UNREACHABLE), bundle_url="https://old/b"),
    ]
    gone = [delete.pod for delete in plan(POOL, NEW, places(POOL, node()), [*more], {}, 1e6).deletes]
    assert sorted(each.uid for each in gone) == sorted(each.uid for each in more) != []
