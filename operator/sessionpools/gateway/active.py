"""Which of the gateways takes the callers: the holder of the Lease, whose pod alone carries the label `active`.

The Service selects by that label, so that there is one queue per pool and one owner of the slots. The holder labels its
own pod first and then takes the label from all others, as a gateway that is dead, or cut off, cannot do it itself: for
a moment there are two, both of which serve; there is never none.

- While the API server is away nobody stands down, and no label changes: callers are served as before.
- A gateway whose HAProxy does not answer, or whose pod is being deleted, releases the Lease; its label stays until
  another has taken over, since a gateway that may yet answer is better than none.
- The Lease of a pod that is known to be deleted is taken without waiting for its end.
- A gateway that finds another one to hold the Lease closes its callers' connections, each with its next answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from sessionpools.api import names
from sessionpools.kube.lease import Election
from sessionpools.kube.protocol import PODS, Json, KubeApi, KubeError, NotFound
from sessionpools.kube.reflector import Reflector

__all__ = ["Active", "GatewayPod", "label_changes"]

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 6.0
RENEW_SECONDS: Final = 1.5
LOOK_SECONDS: Final = 0.5  # how often who does not hold the Lease reads it: a release is noticed within this time
# HAProxy is asked this often, and is out of service when it has not answered for so long. A reload takes milliseconds.
ASK_SECONDS: Final = 0.25
SILENT_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class GatewayPod:
    name: str
    labelled: bool
    deleting: bool = False
    ended: bool = False  # evicted, say: none of its containers will run again


def label_changes(pods: Iterable[GatewayPod], holder: str) -> list[tuple[str, bool]]:
    """(pod, whether it is to carry the label), in the order in which they are to be done: the holder's first."""
    by_name = {pod.name: pod for pod in pods}
    own = by_name.pop(holder, None)
    changes = [] if own is not None and own.labelled else [(holder, True)]
    return changes + [(name, False) for name, pod in sorted(by_name.items()) if pod.labelled]


class Active:
    """This gateway's part in it. `run()` until the gateway stops; `active` is whether callers come here.

    `selector` finds all gateway pods of the release in `namespace`, `pod` is the name of this one. `answers()` asks
    HAProxy for a sign of life; that it fails, or takes longer than a second, counts as none.
    """

    def __init__(
        self,
        api: KubeApi,
        *,
        namespace: str,
        pod: str,
        lease: str,
        selector: str,
        answers: Callable[[], Awaitable[bool]],
        lease_seconds: float = LEASE_SECONDS,
        renew_seconds: float = RENEW_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._pod = pod
        self._answers = answers
        self._clock = clock
        self._answered_at: float | None = None
        self._gone: set[str] = set()
        self._look = asyncio.Event()
        self._pods = Reflector(api, PODS, _pod, self._pod_changed, [namespace], _without_active(selector))
        self._election = Election(
            api,
            namespace,
            lease,
            pod,
            lease_seconds=lease_seconds,
            renew_seconds=renew_seconds,
            keep_when_unreachable=True,
            poll_seconds=min(LOOK_SECONDS, renew_seconds),
            labels={
                "app.kubernetes.io/name": names.PRODUCT,
                "app.kubernetes.io/component": "gateway",
            },
            fit=lambda: self.fit,
            holder_is_gone=self._gone.__contains__,
        )

    @property
    def active(self) -> bool:
        return self._election.leading

    @property
    def holder(self) -> str:
        """The pod that holds the Lease, as last read; "" is none, or not known yet."""
        return self._election.holder

    @property
    def elsewhere(self) -> bool:
        """Whether another gateway takes the callers; as long as nobody is known to, false."""
        return self.holder not in ("", self._pod)

    @property
    def fit(self) -> bool:
        """Whether callers could be sent here: HAProxy has answered lately, and the pod is there to stay."""
        answered = self._answered_at
        own = self._pods.get(self._namespace, self._pod)
        return (
            answered is not None
            and self._clock() - answered <= SILENT_SECONDS
            and not (own is not None and own.deleting)
        )

    async def run(self) -> None:
        """Until cancelled; then the Lease is released and another gateway takes over, while this HAProxy serves on."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pods.run())
            group.create_task(self._ask())
            group.create_task(self._label())
            group.create_task(self._election.run(lambda _: self._look.set()))

    # --- HAProxy ----------------------------------------------------------------------------------------------------

    async def _ask(self) -> None:
        while True:
            asked = self._clock()
            try:
                async with asyncio.timeout(SILENT_SECONDS):
                    if await self._answers():
                        self._answered_at = asked
            except Exception as error:  # whatever it is: no sign of life
                log.debug("HAProxy does not answer", extra={"error": repr(error)})
            await asyncio.sleep(ASK_SECONDS)

    # --- labels -----------------------------------------------------------------------------------------------------

    def _pod_changed(self, old: GatewayPod | None, new: GatewayPod | None) -> None:
        for pod in filter(None, (old, new)):
            if new is None or new.ended:
                self._gone.add(pod.name)  # a Deployment never gives a name again
        self._look.set()

    async def _label(self) -> None:
        """Whenever the holder or the pods change, and again after a failure."""
        await self._pods.synced.wait()
        while True:
            self._look.clear()
            again = None
            if self._election.leading:
                try:
                    await self._relabel()
                except KubeError as error:
                    log.warning("gateway pod not labelled", extra={"error": str(error)})
                    again = RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again):
                    await self._look.wait()

    async def _relabel(self) -> None:
        for name, active in label_changes(self._pods.values(), self._pod):
            if not self._election.leading:
                return
            labels = {names.LABEL_GATEWAY: names.GATEWAY_ACTIVE if active else None}
            try:
                await self._api.merge_patch(PODS, name, {"metadata": {"labels": labels}}, namespace=self._namespace)
            except NotFound:
                if active:
                    raise
            else:
                log.info("gateway pod labelled" if active else "label taken from gateway pod", extra={"pod": name})


def _pod(body: Json) -> GatewayPod:
    metadata = body["metadata"]
    return GatewayPod(
        name=metadata["name"],
        labelled=(metadata.get("labels") or {}).get(names.LABEL_GATEWAY) == names.GATEWAY_ACTIVE,
        deleting="deletionTimestamp" in metadata,
        ended=(body.get("status") or {}).get("phase") in ("Failed", "Succeeded"),
    )


def _without_active(selector: str) -> str:
    """All gateways, given the selector of the active one as well."""
    parts = (part.strip() for part in selector.split(","))
    return ",".join(part for part in parts if part and not part.startswith(names.LABEL_GATEWAY))
