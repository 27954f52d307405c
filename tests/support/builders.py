"""Makes what the pure core decides on: each builder gives something ordinary, and a test says what is special."""

from typing import Any

from sessionpools.api.v1alpha1 import Isolation, SessionPool, WebService
from sessionpools.core.model import Failure, NodeView, Ownership, PodView, Taint
from sessionpools.core.placement import Place, place
from sessionpools.core.pods import settings_of
from sessionpools.core.revision import code_files_of, resolve
from sessionpools.core.target import Target

CODE = "def predict(bmi: float) -> float:\n    return bmi * 2\n"
NAMESPACE = "demo"


def pool(initial: int = 2, maximum: int = 4, *, meta: dict[str, Any] | None = None, **spec: Any) -> SessionPool:
    fields = {"serviceName": "Score", "serviceVersion": "v1", "initialPoolSize": initial, "maxPoolSize": maximum} | spec
    metadata = {"name": "score", "namespace": NAMESPACE, "uid": "pool-uid", "generation": 1} | (meta or {})
    return SessionPool.model_validate({"metadata": metadata, "spec": fields})


def process_pool(initial: int = 2, maximum: int = 4, **spec: Any) -> SessionPool:
    return pool(initial, maximum, isolation=Isolation.PROCESS, **spec)


def service(*, meta: dict[str, Any] | None = None, **spec: Any) -> WebService:
    metadata = {"name": "score", "namespace": NAMESPACE, "uid": "service-uid", "generation": 1} | (meta or {})
    fields = {
        "name": "Score",
        "version": "v1",
        "code": {"inline": {"service.py": CODE}},
        "entrypoint": "service:predict",
    }
    return WebService.model_validate({"metadata": metadata, "spec": fields | spec})


def target_of(pool_: SessionPool, service_: WebService | None = None, image: str = "default:1") -> Target:
    of = service_ or service()
    return Target(of, resolve(pool_, of, code_files_of(of), image))


def node(name: str = "worker-1", *, ready: bool = True, schedulable: bool = True, taints: tuple[Taint, ...] = (),
         labels: dict[str, str] | None = None) -> NodeView:  # fmt: skip
    return NodeView(name, f"uid-{name}", ready, schedulable, labels or {}, taints)


def places(pool_: SessionPool, *nodes: NodeView) -> dict[str, Place]:
    return {n.name: place(pool_.spec.placement, n) for n in nodes}


def pod(
    target: Target,
    pool_: SessionPool,
    slot: int = 0,
    *,
    on: str = "worker-1",
    ready: bool = True,
    revision: str = "",
    incarnation: int = 0,
    deleting: bool = False,
    ended: bool = False,
    failure: Failure | None = None,
    settings: str | None = None,
    node_uid: str = "",
    ended_at: float = 0.0,
    isolation: Isolation | None = None,
) -> PodView:
    name = revision or target.revision.name
    return PodView(
        namespace=NAMESPACE,
        name=f"score-{name}-{on}-{slot}-{incarnation}",
        uid=f"pod-{name}-{on}-{slot}-{incarnation}",
        owner=Ownership("score", "pool-uid", on, node_uid or f"uid-{on}", name, slot, incarnation, isolation),
        ended=ended,
        ready=ready,
        deleting=deleting,
        settings=settings_of(pool_, isolation) if settings is None else settings,
        address="10.0.0.1",
        failure=failure,
        started=True,
        ended_at=ended_at,
    )
