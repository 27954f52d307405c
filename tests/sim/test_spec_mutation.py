"""Every field of both kinds is changed and changed back, as Acto (SOSP 2023) does it: a pool comes to the same whether
it was made so or changed to it, and is what it was when the change is taken back.

All mutations live in one simulated cluster, each in namespaces of its own: one in which a plain pool is changed, and
one in which a pool is made with the changed spec. Specs that the API server refuses are also tried, as an earlier or
later version of the CRDs may have let them pass: they may disturb nobody else, and nothing of them stays.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import jsonschema
import pytest

from sessionpools.api import crds, names
from sessionpools.api.v1alpha1 import SessionPool
from sessionpools.kube.protocol import CONFIG_MAPS, PODS, SESSION_POOLS, WEB_SERVICES, Resource
from support import mutations
from support.apiserver_objects import Json
from support.apiserver_store import Store
from support.kstatus import CURRENT, kstatus
from support.mutations import KEPT, LEFT_OUT
from support.out_of_schema import OUT_OF_SCHEMA
from support.outcome import differences, outcome
from support.refusal import Refusal
from support.refusals import REFUSALS
from support.seed import some_of
from support.simulation import Simulation
from support.tally import TALLY

PLAIN = "plain"  # the namespace of a pool that nobody changes
WELL = "well"  # of one that is used while others are not as they should be
KINDS: Mapping[str, Resource] = {"SessionPool": SESSION_POOLS, "WebService": WEB_SERVICES}
NOT_OF_SPEC = {"object_name_with_dot", "object_name_too_long"}  # a name can not be changed
SECONDS = 60.0


@pytest.fixture
async def sim() -> AsyncIterator[Simulation]:
    async with Simulation(kubelet_seconds=0.05) as simulation:
        simulation.add_node("worker-1", labels={"disk": "ssd"})
        # a session may stay where only a NoSchedule taint has come, as a DaemonSet's pod may
        simulation.add_node("worker-2", taints=[{"key": "gpu", "value": "yes", "effect": "NoExecute"}])
        yield simulation


def make(sim: Simulation, namespace: str, pool: Json, service: Json) -> None:
    store = sim.server.store
    code = {"metadata": {"name": "code"}, "data": {"service.py": "x = 1"}}
    store.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", **code}, namespace)
    for kind, spec in (("WebService", service), ("SessionPool", pool)):
        body = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": "score"}, "spec": spec}
        store.create(KINDS[kind], body, namespace)


def change(sim: Simulation, namespace: str, pool: Json, service: Json) -> None:
    for kind, spec in (("WebService", service), ("SessionPool", pool)):
        live = sim.server.store.get(KINDS[kind], "score", namespace)
        if spec != live["spec"]:
            sim.server.store.update(KINDS[kind], "score", {**live, "spec": spec}, namespace)


async def all_settle(sim: Simulation) -> None:
    with contextlib.suppress(AssertionError):  # who it is says more
        await sim.until(lambda: not _unsettled(sim.server.store), seconds=SECONDS)
    assert not _unsettled(sim.server.store)
    await sim.comes_to_rest(within_seconds=20)
    assert not _unsettled(sim.server.store)


def _unsettled(store: Store) -> list[str]:
    """Namespaces of what is not Current, and of pods that leave. A pool without a node is all that it can be."""
    things = [*store.all(SESSION_POOLS), *store.all(WEB_SERVICES)]
    waiting = [thing for thing in things if kstatus(thing) != CURRENT and not _has_no_node(thing)]
    leaving = [pod for pod in store.all(PODS) if "deletionTimestamp" in pod["metadata"]]
    return [each["metadata"]["namespace"] for each in (*waiting, *leaving)]


def _has_no_node(thing: Json) -> bool:
    current = thing["status"]["observedGeneration"] == thing["metadata"]["generation"]
    said = thing["status"].get("conditions", [])
    return current and any("NoEligibleNodes" in (each["reason"], *each["message"].split(": ")) for each in said)


def compare(sim: Simulation, pairs: Iterable[tuple[str, str, str]], without: Mapping[str, str] = {}) -> list[str]:
    """Lines about the pairs of namespaces whose outcomes differ; `without` are fields of their pods, by the first."""
    found = []
    for what, one, other in pairs:
        outcomes = [outcome(sim.server.store, namespace) for namespace in (one, other)]
        for pod in (pod for each in outcomes for pod in each["pods"]):
            pod["spec"].pop(without.get(one, ""), None)
        if not any(each["pods"] for each in outcomes):
            _forget_the_last_sessions(outcomes)
        found += [f"{what}: {line}" for line in differences(outcomes[0], outcomes[1])]
    return found


def _forget_the_last_sessions(outcomes: list[Json]) -> None:
    """Their code and what they said of themselves stand until others come; a pool that never had one has neither."""
    for each in outcomes:
        del each["code"]
        (pool,), (service,) = each["pool"], each["service"]
        pool["status"]["conditions"] = [c for c in pool["status"]["conditions"] if c["type"] != "Warmed"]
        for field in ("inputs", "outputs", "revision"):
            service["status"].pop(field)


async def test_a_pool_is_what_its_spec_says_however_it_came_to_it(sim: Simulation) -> None:
    plain = mutations.base()
    changes = {f"n{number}": mutation for number, mutation in enumerate(mutations.mutations())}
    make(sim, PLAIN, *plain)
    for namespace in changes:
        make(sim, namespace, *plain)
    await all_settle(sim)
    for namespace, mutation in changes.items():
        change(sim, namespace, mutation.pool, mutation.service)
        make(sim, f"{namespace}-fresh", mutation.pool, mutation.service)
    await all_settle(sim)
    there = [(f"{mutation}, changed and fresh", name, f"{name}-fresh") for name, mutation in changes.items()]
    kept = {name: KEPT[mutation.field] for name, mutation in changes.items() if mutation.field in KEPT}
    assert not compare(sim, there, kept)
    for namespace in changes:
        change(sim, namespace, *plain)
    await all_settle(sim)
    back = [(f"{mutation}, changed back", name, PLAIN) for name, mutation in changes.items()]
    assert not compare(sim, back, kept)
    TALLY.add("mutations of a spec, there and back", len(changes))


async def test_a_spec_that_is_refused_disturbs_nobody_where_it_was_let_pass(sim: Simulation) -> None:
    plain = mutations.base()
    refused = {f"n{number}": refusal for number, refusal in enumerate(_refusals())}
    for namespace in (PLAIN, WELL, *refused):
        make(sim, namespace, *plain)
    await all_settle(sim)
    for namespace, refusal in refused.items():
        change(sim, namespace, *_specs(refusal))
    store = sim.server.store
    for size in (2, 0, 1):
        store.edit(SESSION_POOLS, "score", {"spec": {"initialPoolSize": size}}, WELL)
        await sim.until(lambda size=size: len(store.all(PODS, WELL)) == size, f"{size} sessions are there", SECONDS)  # type: ignore[misc]
    await asyncio.sleep(0.5)
    for namespace in refused:
        change(sim, namespace, *plain)
    await all_settle(sim)
    back = [(f"{refusal.id}, changed back", name, PLAIN) for name, refusal in refused.items()]
    assert not compare(sim, [*back, ("the one in use", WELL, PLAIN)])
    TALLY.add("refused specs, there and back", len(refused))


def _refusals() -> list[Refusal]:
    """Of those of the schema each eighth."""
    of_schema = [beyond.refusal for beyond in some_of(OUT_OF_SCHEMA, 8)]
    return [*(refusal for refusal in REFUSALS if refusal.id not in NOT_OF_SPEC), *of_schema]


def _specs(refusal: Refusal) -> tuple[Json, Json]:
    pool, service = mutations.base()
    spec = refusal.object["spec"]
    return (spec, service) if refusal.object["kind"] == "SessionPool" else (pool, spec)


# --- that no field is forgotten, and that the values are what they should be ------------------------------------------


@pytest.mark.parametrize("kind", crds.KINDS, ids=lambda kind: kind.__name__)
def test_every_field_of_a_spec_is_changed_or_named_with_the_reason_why_not(kind: Any) -> None:
    schema = crds.open_api(kind)["properties"]["spec"]
    prefix = f"{kind.__name__}."
    fields = {f"{prefix}{path}" for path, _ in mutations.leaves(schema)}
    changed: set[str] = set()
    for mutation in mutations.mutations():
        if mutation.field.startswith(prefix):
            part = mutations.schema_at(schema, mutation.field.removeprefix(prefix))
            changed.update(mutations.touched(mutation.value, part, mutation.field))
    assert fields - changed == {field for field in LEFT_OUT if field.startswith(prefix)}


@pytest.mark.parametrize("kind", crds.KINDS, ids=lambda kind: kind.__name__)
def test_the_values_are_such_as_the_schema_takes(kind: Any) -> None:
    schema = jsonschema.Draft202012Validator(crds.open_api(kind)["properties"]["spec"])
    for mutation in mutations.mutations():
        schema.validate(mutation.pool if kind is SessionPool else mutation.service)
