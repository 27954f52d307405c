"""Carries out a plan: the writes of the reconciler, and what the API server said to them."""

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

from sessionpools.api import names
from sessionpools.api.v1alpha1 import SessionPool
from sessionpools.controller.metrics import Metrics
from sessionpools.controller.store import Store
from sessionpools.core import pods as manifests
from sessionpools.core.holds import POD_REFUSED, refusal
from sessionpools.core.model import Failure
from sessionpools.core.plan import CreatePod, DeletePod, Plan, SettingsPatch
from sessionpools.core.target import Target
from sessionpools.kube import protocol
from sessionpools.kube.protocol import AlreadyExists, Conflict, Forbidden, Invalid, Json, KubeApi, NotFound

__all__ = ["CREATES_AT_ONCE", "Executor", "names_of"]

log = logging.getLogger(__name__)

T = TypeVar("T")

# A name that is still taken by a pod on its way out is followed by the next one; more of them than this means that
# something else makes pods of these names.
INCARNATIONS_TRIED = 8
# So many session pods are created in one run: the next one sees a change of the pool, and other pools have their turn.
CREATES_AT_ONCE = 64


class Executor:
    def __init__(self, api: KubeApi, store: Store, pull_policy: str, metrics: Metrics) -> None:
        self._api = api
        self._store = store
        self._pull_policy = pull_policy
        self._metrics = metrics

    def unsent(self, pool: SessionPool, revision: str, creates: Sequence[CreatePod]) -> tuple[CreatePod, ...]:
        """Without those that were sent, as far as this run comes: what is refused to it, is to all the others."""
        rest = iter(creates)
        left = (create for create in rest if not self._sent(pool, _name(pool, revision, create)))
        return (*islice(left, CREATES_AT_ONCE), *rest)

    def _sent(self, pool: SessionPool, name: str) -> bool:
        return self._store.awaits(pool, name) or self._store.has(pool, name)

    async def execute(self, pool: SessionPool, target: Target | None, plan: Plan) -> dict[str, Failure]:
        """Does all that `plan` says, but for creations beyond the first CREATES_AT_ONCE; returns why session pods were
        refused, by node name. A KubeError that may pass (the server is away, say) is raised after everything else was
        tried."""
        refused: dict[str, Failure] = {}
        work: list[Awaitable[Any]] = [self._delete(pool, delete) for delete in plan.deletes]
        work += [self._patch(patch) for patch in plan.patches]
        if target and plan.creates:
            work.append(self._create_all(pool, target, plan.creates, refused))
        await _all(work)
        return refused

    async def _create_all(
        self, pool: SessionPool, target: Target, creates: Sequence[CreatePod], refused: dict[str, Failure]
    ) -> None:
        if not await self._still_wanted(pool):
            return
        # What is refused once (quota, pod security, an unknown service account) would be refused on every node.
        first, *others = creates
        template = manifests.pod_template(pool, target.service, target.revision, self._pull_policy)
        failure = await self._ensure_config_map(target) or await self._create(template, first)
        if failure:
            refused.update({create.node.name: failure for create in creates})
            return
        others = others[: CREATES_AT_ONCE - 1]
        failures = await _all([self._create(template, create) for create in others])
        refused.update({c.node.name: f for c, f in zip(others, failures, strict=True) if f})

    async def _still_wanted(self, pool: SessionPool) -> bool:
        """Whether the pool is what the cache says. Each resource has its own watch: the pods' may already show that
        a deleted pool's pods are gone while the pools' does not show yet that the pool is. One read for each batch."""
        try:
            there = await self._api.get(protocol.SESSION_POOLS, pool.metadata.name, namespace=pool.metadata.namespace)
        except NotFound:
            return False
        metadata = there["metadata"]
        return (
            metadata["uid"] == pool.metadata.uid
            and metadata["generation"] == pool.metadata.generation
            and "deletionTimestamp" not in metadata
        )

    async def _create(self, template: manifests.PodTemplate, create: CreatePod) -> Failure | None:
        pool = template.pool
        for incarnation in range(create.incarnation, create.incarnation + INCARNATIONS_TRIED):
            body = manifests.session_pod(template, create.node, create.slot, incarnation)
            name = body["metadata"]["name"]
            if self._sent(pool, name):
                return None
            try:
                await self._send_creation(pool, name, create.node.name, body)
            except AlreadyExists:
                taken = await self._taken_by(pool, name)
                if taken == "ours":
                    return None
                if taken == "other":
                    return Failure("NameTaken", f"a pod {name!r} exists that is not this pool's; delete it")
                continue
            except (Forbidden, Invalid) as error:
                return refusal(POD_REFUSED, error.message)
            else:
                self._metrics.pods_created.labels(**_of(pool), why=create.why).inc()
                fields = {"pod": name, "node": create.node.name, "slot": create.slot, "why": create.why, **_of(pool)}
                log.info("pod created", extra=fields)
                return None
        return Failure("NameTaken", f"all names tried for slot {create.slot} are taken by pods that are being deleted")

    async def _send_creation(self, pool: SessionPool, name: str, node: str, body: Json) -> None:
        self._store.creation_sent(pool, name, node)
        try:
            await self._api.create(protocol.PODS, body, namespace=pool.metadata.namespace, unseen=True)
        except BaseException:  # whatever has become of it: the next run asks for it again, and is told
            self._store.creation_failed(pool, name)
            raise

    async def _taken_by(self, pool: SessionPool, name: str) -> str:
        """Who has the name: "ours" (it is done), "leaving" (the next incarnation is free) or "other"."""
        try:
            pod = await self._api.get(protocol.PODS, name, namespace=pool.metadata.namespace)
        except NotFound:
            return "leaving"
        metadata = pod["metadata"]
        if (metadata.get("labels") or {}).get(names.LABEL_POOL_UID) != pool.metadata.uid:
            return "other"
        return "leaving" if metadata.get("deletionTimestamp") else "ours"

    async def _delete(self, pool: SessionPool, delete: DeletePod) -> None:
        """A pod that was not ready goes only if it still is as it was seen: it may have become the one that serves."""
        pod, version = delete.pod, ""
        if not pod.ready:
            known = self._store.pods.get(pod.namespace, pod.name)
            if known != pod:
                return
            version = known.version
        try:
            await self._api.delete(
                protocol.PODS,
                pod.name,
                namespace=pod.namespace,
                uid=pod.uid,
                version=version,
                grace_period_seconds=manifests.grace_seconds(pool),
            )
        except (NotFound, Conflict):
            return  # gone, changed, or another pod has its name: the watch will say
        self._store.deletion_accepted(pod)
        self._metrics.pods_deleted.labels(**_of(pool), why=delete.why).inc()
        log.info("pod deleted", extra={"pod": pod.name, "node": pod.owner.node, "why": delete.why, **_of(pool)})

    async def _patch(self, patch: SettingsPatch) -> None:
        body: Json = {"metadata": {"annotations": {names.ANNOTATION_SETTINGS: patch.settings}, "uid": patch.pod.uid}}
        try:
            await self._api.merge_patch(protocol.PODS, patch.pod.name, body, namespace=patch.pod.namespace)
        except (NotFound, Conflict):
            return

    async def _ensure_config_map(self, target: Target) -> Failure | None:
        body = manifests.code_config_map(target.service, target.revision)
        namespace = target.service.metadata.namespace
        try:
            try:
                await self._api.create(protocol.CONFIG_MAPS, body, namespace=namespace)
            except AlreadyExists:
                await self._own_config_map(body, namespace)
        except (Forbidden, Invalid) as error:
            return refusal("ConfigMapRefused", error.message)
        return None

    async def _own_config_map(self, body: Json, namespace: str) -> None:
        """The name holds the hash of the content, so one that exists has it; unless it belongs to a WebService of the
        same name that was deleted, and goes with that one: then it has to be made anew."""
        name = body["metadata"]["name"]
        try:
            there = await self._api.get(protocol.CONFIG_MAPS, name, namespace=namespace)
        except NotFound:
            there = {"metadata": {}}
        owners = [owner["uid"] for owner in there["metadata"].get("ownerReferences") or []]
        if (
            there["metadata"].get("deletionTimestamp") is None
            and body["metadata"]["ownerReferences"][0]["uid"] in owners
        ):
            return
        if there["metadata"]:
            await self._api.delete(protocol.CONFIG_MAPS, name, namespace=namespace, uid=there["metadata"]["uid"])
        await self._api.create(protocol.CONFIG_MAPS, body, namespace=namespace)


async def _all(work: Sequence[Awaitable[T]]) -> list[T]:
    """The results, once everything was tried; raises the first error then."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


def names_of(creates: Iterable[CreatePod], pool: SessionPool, revision: str) -> set[str]:
    """The names of the session pods that are asked for first."""
    return {_name(pool, revision, create) for create in creates}


def _name(pool: SessionPool, revision: str, create: CreatePod) -> str:
    return manifests.session_pod_name(pool, revision, create.node, create.slot, create.incarnation)


def _of(pool: SessionPool) -> dict[str, str]:
    return {"namespace": pool.metadata.namespace, "pool": pool.metadata.name}
