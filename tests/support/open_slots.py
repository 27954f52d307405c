"""The slots that a gateway has open that sees the cluster as it is: the gateway's own decision, put to every moment."""

import json
from collections import Counter
from collections.abc import Iterable

from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.core.model import PodView
from sessionpools.gateway.routes import routes
from sessionpools.kube.protocol import SESSION_POOLS, WEB_SERVICES
from support.apiserver_store import Store


def open_slots(store: Store, pods: Iterable[PodView]) -> Counter[tuple[str, str]]:
    """How many, by the uid of the pool and the name of the node. `pods`: all session pods."""
    pods = list(pods)
    pools = [SessionPool.model_validate(body) for body in store.all(SESSION_POOLS)]
    services = [WebService.model_validate(body) for body in store.all(WEB_SERVICES)]
    seen = {pod.uid: json.loads(pod.settings)["maxPoolSize"] for pod in pods}
    found = routes(pools, services, pods, seen)
    return Counter((route.pool_uid, slot.server.partition(":")[0]) for route in found for slot in route.slots)
