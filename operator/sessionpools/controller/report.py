"""What is told to users of a custom resource: its status, and Events for the transitions in it."""

import logging
from typing import Any

from sessionpools.api import names
from sessionpools.api.v1alpha1 import ObjectMeta, SessionPoolStatus, WebServiceStatus
from sessionpools.core.transitions import transitions
from sessionpools.kube.events import EventRecorder
from sessionpools.kube.protocol import Conflict, KubeApi, NotFound, ObjectRef, Resource

__all__ = ["Reporter"]

log = logging.getLogger(__name__)

Status = SessionPoolStatus | WebServiceStatus


class Reporter:
    def __init__(self, api: KubeApi, recorder: EventRecorder) -> None:
        self._api = api
        self._recorder = recorder

    async def report(self, resource: Resource, metadata: ObjectMeta, before: Status, after: Status) -> bool:
        """Writes `after`, and an Event for each transition from `before`. False if the object is no longer there."""
        body: dict[str, Any] = {
            "metadata": {"name": metadata.name, "uid": metadata.uid},
            "status": after.to_json(),
        }
        try:
            await self._api.apply_status(
                resource, metadata.name, body, namespace=metadata.namespace, field_manager=names.FIELD_MANAGER
            )
        except (NotFound, Conflict):
            return False  # deleted, or deleted and made again: the watch will say
        ref = ObjectRef(resource.api_version, resource.kind, metadata.name, metadata.namespace, metadata.uid)
        for change in transitions(before.conditions, after.conditions):
            fields = {"namespace": metadata.namespace, "object": metadata.name, "reason": change.reason}
            log.info("transition", extra={"kind": resource.kind, "detail": change.message, **fields})
            await self._recorder.record(ref, change.type, change.reason, change.message, action="Reconcile")
        return True
