"""Which session pods the agent asks for their slots."""

from collections.abc import Iterable

import pytest

from sessionpools.api.v1alpha1 import Isolation, SessionPool
from sessionpools.core.model import PodView, SessionReport
from sessionpools.gateway.podwatch import PodWatch
from sessionpools.kube.podclient import PodClient
from support.builders import pod, pool, process_pool, target_of
from support.waiting import until


class Pods(PodClient):
    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots = slots

    async def reports(self, pods: Iterable[PodView]) -> dict[str, SessionReport]:
        return {each.uid: SessionReport(1, 0, "ready", 0.0, 1, self.slots) for each in pods}


@pytest.mark.parametrize("of_pool", [pool(2, 4), process_pool(2, 4)], ids=["Pod", "Process"])
async def test_a_pod_is_asked_if_it_has_several_slots_whatever_its_pools_isolation_is_now(of_pool: SessionPool) -> None:
    target = target_of(of_pool)
    single = pod(target, of_pool, 0, isolation=Isolation.POD)
    whole = pod(target, of_pool, 1, isolation=Isolation.PROCESS)
    changes: list[None] = []
    watch = PodWatch(Pods(4), lambda: changes.append(None))
    watch.update([of_pool], [single, whole])
    await until(lambda: changes, "an answer")
    assert watch.max_seen == {whole.uid: 4}
    await watch.close()
