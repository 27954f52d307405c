"""A bundle that moves is no rollout: sessions that have it stay, ones that ask for it in vain are made anew."""

from collections.abc import AsyncIterator

import pytest

from sessionpools.api import names
from support.apiserver_objects import Json
from support.kubelet import Crash, Fate, NeverReady, Ready
from support.simulation import Simulation

OLD, NEW = "https://old/b.tar.gz", "https://new/b.tar.gz"


@pytest.fixture
async def sim() -> AsyncIterator[Simulation]:
    async with Simulation() as simulation:
        for name in ("worker-1", "worker-2"):
            simulation.add_node(name)
        yield simulation


def at(url: str) -> Json:
    return {"inline": None, "bundle": {"url": url, "sha256": "0" * 64}}


def publish(sim: Simulation, **pool: object) -> None:
    service = sim.service()
    service["spec"]["code"] = {"bundle": at(OLD)["bundle"]}
    sim.apply(service, sim.pool(**pool))  # type: ignore[arg-type]


def url_of(pod: Json) -> str:
    return next(str(e["value"]) for e in pod["spec"]["containers"][0]["env"] if e["name"] == names.ENV_BUNDLE_URL)


async def test_sessions_that_have_their_bundle_stay_and_new_ones_have_the_new_address(sim: Simulation) -> None:
    publish(sim, initial=1)
    await sim.until_success()
    before, revision = sim.uids(), sim.status()["revision"]
    sim.edit_service(code=at(NEW))
    await sim.comes_to_rest()
    assert sim.uids() == before
    assert sim.status()["revision"] == revision
    sim.edit_pool(initialPoolSize=2)
    await sim.until(lambda: len(sim.ready_pods()) == 4)
    assert before < sim.uids()
    assert sorted(map(url_of, sim.pods())) == [NEW, NEW, OLD, OLD]


@pytest.mark.parametrize("isolation", ["Pod", "Process"])
async def test_sessions_that_fail_for_its_address_are_made_anew_when_that_is_corrected(
    sim: Simulation, isolation: str
) -> None:
    def fate(pod: Json) -> Fate:
        return Crash(f"BundleUnreachable: {OLD}: answered 404 Not Found") if url_of(pod) == OLD else Ready()

    sim.kubelet.fate = fate
    publish(sim, isolation=isolation)
    await sim.until(lambda: sim.condition("Stalled").get("reason") == "BundleUnreachable", "it says why")
    failed = sim.uids()
    sim.edit_service(code=at(NEW))
    await sim.until_success(seconds=2)
    assert not failed & sim.uids()
    await sim.comes_to_rest()


async def test_so_are_those_that_still_try(sim: Simulation) -> None:
    sim.kubelet.fate = lambda pod: NeverReady() if url_of(pod) == OLD else Ready()
    sim.pods_say.phase = "fetch bundle (Connection refused)"
    publish(sim)
    message = "fetch bundle (Connection refused) for more than"
    await sim.until(lambda: any(message in row["message"] for row in sim.status().get("nodes", [])), "it says why")
    sim.edit_service(code=at(NEW))
    await sim.until_success(seconds=2)
    assert {url_of(pod) for pod in sim.pods()} == {NEW}
