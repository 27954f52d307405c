"""The state behind the in-process API server: objects, their history, watches, deletion and garbage collection.

Synchronous and without I/O. `support.apiserver` puts HTTP before it; tests and `support.kubelet` also use it directly,
as the parts of a cluster that are not under test. It refuses with `Refused`, in the API server's own words. That it
behaves as the real one is proved by tests/contract.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from support import apiserver_objects as objects
from support.apiserver_history import Change, History, Subscription
from support.apiserver_objects import FOREGROUND, NODES, ORPHAN, PODS, Json, Path, Refused, Resource

Key = tuple[str, str]  # namespace, name


class Store:
    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC), seed: int | None = None) -> None:
        self.clock = clock
        self.garbage_collection = True  # at once, after each write; False: only by collect_garbage()
        self.version = 1000
        self.history = History(self.version)
        self._rng = random.Random(seed)
        self._objects: dict[Resource, dict[Key, Json]] = {resource: {} for resource in objects.RESOURCES}
        self._by_uid: dict[str, tuple[Resource, Key]] = {}
        self._dependents: dict[str, set[str]] = {}  # owner's uid -> uids
        self._owned: dict[str, dict[str, frozenset[Path]]] = {}  # uid -> manager -> fields of the status
        self._pages: dict[str, tuple[str, list[Json]]] = {}  # continue token -> what is still to come
        self._frozen: tuple[int, dict[Resource, dict[Key, Json]]] | None = None  # version and objects that lists show

    # --- reads ------------------------------------------------------------------------------------------------------

    def get(self, resource: Resource, name: str, namespace: str = "") -> Json:
        try:
            return self._objects[resource][_key(resource, namespace, name)]
        except KeyError:
            raise objects.not_found(resource, name) from None

    def all(self, resource: Resource, namespace: str | None = None, selector: str = "", fields: str = "") -> list[Json]:
        return _select(self._objects[resource], _selection(resource, namespace, selector, fields))

    def page(
        self, resource: Resource, namespace: str | None, selector: str, fields: str, limit: int, token: str
    ) -> tuple[list[Json], str, str, int]:
        """Items, resourceVersion, continue token, how many remain. Later pages are of the first one's moment."""
        if token:
            if token not in self._pages:
                raise objects.expired("The provided continue parameter is too old to display a consistent list result.")
            version, rest = self._pages[token]
        else:
            at, objects_ = self._frozen or (self.version, self._objects)
            version, rest = str(at), _select(objects_[resource], _selection(resource, namespace, selector, fields))
        if not limit or len(rest) <= limit:
            return rest, version, "", 0
        following = f"{version}.{len(self._pages)}.{self._rng.getrandbits(32):08x}"
        self._pages[following] = version, rest[limit:]
        return rest[:limit], version, following, len(rest) - limit

    def expire_continue_tokens(self) -> None:
        self._pages.clear()

    def freeze_lists(self) -> None:
        """Lists show what there is now, whatever happens; single objects are read as they are."""
        self._frozen = self.version, {resource: dict(held) for resource, held in self._objects.items()}

    def thaw_lists(self) -> None:
        self._frozen = None

    @property
    def frozen(self) -> bool:
        return self._frozen is not None

    # --- writes -----------------------------------------------------------------------------------------------------

    def create(self, resource: Resource, body: Json, namespace: str = "") -> Json:
        body = json.loads(json.dumps(body))
        meta: Json = body.setdefault("metadata", {})
        self._check_identity(resource, body, namespace)
        if meta.get("resourceVersion"):
            raise Refused(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + "".join(self._rng.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
        name = str(meta.get("name") or "")
        objects.check_name(resource, name)
        if resource.namespaced:
            meta["namespace"] = namespace
        key = _key(resource, namespace, name)
        if key in self._objects[resource]:
            raise Refused(409, "AlreadyExists", f'{resource} "{name}" already exists')
        meta["uid"] = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        meta["creationTimestamp"] = self.now()
        for server_owned in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation", "managedFields"):
            meta.pop(server_owned, None)
        if resource in objects.WITH_GENERATION:
            meta["generation"] = 1
        if resource is PODS:
            body = objects.new_pod(body)
        elif resource in objects.WITH_STATUS and resource is not NODES:
            body["status"] = {"observedGeneration": -1}  # what it came with is dropped; this is the CRDs' default
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        created = self._commit(resource, key, None, body)
        self._collect_if_orphan(created)
        return created

    def update(self, resource: Resource, name: str, body: Json, namespace: str = "", *, subresource: str = "") -> Json:
        """PUT."""
        self._check_identity(resource, body, namespace)
        live = self.get(resource, name, namespace)
        wanted = json.loads(json.dumps(body))
        wanted["metadata"] = {**live["metadata"], **wanted.get("metadata", {})}
        return self._write(resource, name, live, wanted, body.get("metadata", {}), subresource)

    def patch(self, resource: Resource, name: str, patch: Json, namespace: str = "", *, subresource: str = "") -> Json:
        """A JSON merge patch."""
        live = self.get(resource, name, namespace)
        wanted = objects.merge_patch(live, patch)
        return self._write(resource, name, live, wanted, patch.get("metadata") or {}, subresource)

    def apply_status(self, resource: Resource, name: str, body: Json, namespace: str, manager: str) -> Json:
        live = self.get(resource, name, namespace)
        if not manager:
            raise Refused(400, "BadRequest", "fieldManager is required for apply patch")
        self._check_identity(resource, body, namespace)
        uid = live["metadata"]["uid"]
        status, owned = objects.apply_status(
            live.get("status") or {}, body.get("status") or {}, self._owned.get(uid, {}), manager
        )
        self._owned[uid] = owned
        entries = [
            {"manager": each, "operation": "Apply", "subresource": "status", "apiVersion": resource.api_version}
            for each in sorted(owned)
        ]
        wanted = {**live, "status": status, "metadata": {**live["metadata"], "managedFields": entries}}
        return self._write(resource, name, live, wanted, body.get("metadata") or {}, "status")

    def edit(self, resource: Resource, name: str, patch: Json, namespace: str = "") -> Json:
        """A merge patch that may change anything, as the parts of a cluster that are not under test do."""
        live = self.get(resource, name, namespace)
        return self._settle(resource, live, objects.merge_patch(live, patch))

    def _write(
        self, resource: Resource, name: str, live: Json, wanted: Json, sent_meta: Json, subresource: str
    ) -> Json:
        """The rules of an update, whichever way it came: preconditions, what may change, what is ignored."""
        meta = live["metadata"]
        if sent_meta.get("resourceVersion") not in (None, "", meta["resourceVersion"]):
            modified = "the object has been modified; please apply your changes to the latest version and try again"
            raise objects.conflict(resource, name, modified)
        if subresource != "status" and sent_meta.get("uid") not in (None, "", meta["uid"]):
            problem = f'metadata.uid: Invalid value: "{sent_meta["uid"]}": field is immutable'
            raise objects.invalid(resource, name, problem)
        if subresource == "status":
            if resource not in objects.WITH_STATUS:
                raise Refused(404, "NotFound", "the server could not find the requested resource")
            managed = (
                {"managedFields": wanted["metadata"]["managedFields"]} if "managedFields" in wanted["metadata"] else {}
            )
            wanted = {**live, "status": wanted.get("status", {}), "metadata": {**meta, **managed}}
        else:
            if resource in objects.WITH_STATUS:
                wanted = {**wanted, "status": live["status"]} if "status" in live else _drop(wanted, "status")
            kept = ("name", "namespace", "uid", "creationTimestamp", "generation", "deletionTimestamp",
                    "deletionGracePeriodSeconds", "resourceVersion")  # fmt: skip
            fixed = {field: meta[field] for field in kept if field in meta}
            wanted = {**wanted, "metadata": {**{k: v for k, v in wanted["metadata"].items() if k not in kept}, **fixed}}
            if resource is PODS and wanted["spec"] != live["spec"]:
                raise objects.invalid(resource, name, "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`")  # fmt: skip  # noqa: E501
            if live.get("immutable") and (wanted.get("data"), wanted.get("immutable")) != (live.get("data"), True):
                raise objects.invalid(resource, name, "data: Forbidden: field is immutable when `immutable` is set")
        return self._settle(resource, live, wanted)

    def _settle(self, resource: Resource, live: Json, wanted: Json) -> Json:
        """Write it if it is a change; remove it if that took the last finalizer of a deleted object away."""
        if wanted == live:
            return live
        meta = wanted["metadata"]
        if resource in objects.WITH_GENERATION and _content(wanted) != _content(live):
            meta = {**meta, "generation": meta["generation"] + 1}
            wanted = {**wanted, "metadata": meta}
        key = _key(resource, meta.get("namespace", ""), meta["name"])
        released = live["metadata"].get("finalizers") and not meta.get("finalizers")
        if released and meta.get("deletionTimestamp") and not meta.get("deletionGracePeriodSeconds"):
            return self._remove(resource, key, {**live, "metadata": meta})
        return self._commit(resource, key, live, wanted)

    # --- deletion ---------------------------------------------------------------------------------------------------

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        version: str = "",
        grace: int | None = None,
        propagation: str = "Background",
    ) -> Json | None:
        """The object if it stays for a while, None if it is gone."""
        live = self.get(resource, name, namespace)
        meta = live["metadata"]
        if uid and uid != meta["uid"]:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {meta['uid']}"
            raise objects.conflict(resource, name, why)
        if version and version != meta["resourceVersion"]:
            seen, there = f"ResourceVersion in precondition: {version}", meta["resourceVersion"]
            why = f"Precondition failed: {seen}, ResourceVersion in object meta: {there}"
            raise objects.conflict(resource, name, why)
        finalizers = [each for each in meta.get("finalizers", ()) if each not in (FOREGROUND, ORPHAN)]
        if propagation == "Foreground":
            finalizers.append(FOREGROUND)
        elif propagation == "Orphan":
            self._orphan(meta["uid"])
        seconds = objects.grace(resource, live, grace)
        if "deletionTimestamp" in meta:
            seconds = min(seconds, meta.get("deletionGracePeriodSeconds", 0))
        if not finalizers and not seconds:
            self._remove(resource, _key(resource, namespace, name), live)
            return None
        changed = {**meta, "finalizers": finalizers} if finalizers else _drop(meta, "finalizers")
        if meta.get("deletionGracePeriodSeconds") != seconds or "deletionTimestamp" not in meta:
            changed["deletionGracePeriodSeconds"] = seconds
            changed["deletionTimestamp"] = self.now(seconds)
            if "generation" in meta:
                changed["generation"] = meta["generation"] + 1
        wanted = {**live, "metadata": changed}
        stays = live if wanted == live else self._commit(resource, _key(resource, namespace, name), live, wanted)
        if self.garbage_collection:
            self._foreground(meta["uid"])
        return stays if meta["uid"] in self._by_uid else None

    def _remove(self, resource: Resource, key: Key, last: Json) -> Json:
        before = self._objects[resource].pop(key)
        uid = before["metadata"]["uid"]
        del self._by_uid[uid]
        self._owned.pop(uid, None)
        owners = [ref["uid"] for ref in before["metadata"].get("ownerReferences", ())]
        for owner in owners:
            self._dependents.get(owner, set()).discard(uid)
        self.version += 1
        last = {**last, "metadata": {**last["metadata"], "resourceVersion": str(self.version)}}
        self.history.publish(Change(self.version, resource, before, None, last))
        if self.garbage_collection:
            self._background(uid)
            for owner in owners:
                self._foreground(owner)
        return last

    # --- garbage collection -----------------------------------------------------------------------------------------

    def collect_garbage(self) -> None:
        """One pass over everything, for tests that do it by hand."""
        for uid in list(self._dependents):
            if uid not in self._by_uid:
                self._background(uid)
            self._foreground(uid)

    def _collect_if_orphan(self, body: Json) -> None:
        references = body["metadata"].get("ownerReferences") or ()
        if self.garbage_collection and references and all(ref["uid"] not in self._by_uid for ref in references):
            self._delete_uid(body["metadata"]["uid"])

    def _background(self, owner: str) -> None:
        for uid in sorted(self._dependents.get(owner, ())):
            resource, key = self._by_uid[uid]
            references = self._objects[resource][key]["metadata"].get("ownerReferences", ())
            if all(ref["uid"] not in self._by_uid for ref in references):
                self._delete_uid(uid)

    def _foreground(self, owner: str) -> None:
        if owner not in self._by_uid:
            return
        resource, key = self._by_uid[owner]
        if FOREGROUND not in self._objects[resource][key]["metadata"].get("finalizers", ()):
            return
        for uid in sorted(self._dependents.get(owner, ())):
            if uid in self._by_uid:
                self._delete_uid(uid)
        if owner in self._by_uid and not any(self._blocks(uid, owner) for uid in self._dependents.get(owner, ())):
            live = self._objects[resource][key]
            finalizers = [each for each in live["metadata"]["finalizers"] if each != FOREGROUND]
            self._settle(resource, live, {**live, "metadata": {**live["metadata"], "finalizers": finalizers}})

    def _blocks(self, uid: str, owner: str) -> bool:
        resource, key = self._by_uid[uid]
        references = self._objects[resource][key]["metadata"]["ownerReferences"]
        return any(ref["uid"] == owner and ref.get("blockOwnerDeletion") for ref in references)

    def _delete_uid(self, uid: str) -> None:
        resource, (namespace, name) = self._by_uid[uid]
        if "deletionTimestamp" not in self._objects[resource][namespace, name]["metadata"]:
            self.delete(resource, name, namespace)

    def _orphan(self, owner: str) -> None:
        for uid in sorted(self._dependents.pop(owner, ())):
            resource, key = self._by_uid[uid]
            live = self._objects[resource][key]
            kept = [ref for ref in live["metadata"]["ownerReferences"] if ref["uid"] != owner]
            self._commit(resource, key, live, {**live, "metadata": {**live["metadata"], "ownerReferences": kept}})

    def _commit(self, resource: Resource, key: Key, before: Json | None, body: Json) -> Json:
        self.version += 1
        after = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        self._objects[resource][key] = after
        uid = after["metadata"]["uid"]
        self._by_uid[uid] = resource, key
        for ref in after["metadata"].get("ownerReferences") or ():
            self._dependents.setdefault(ref["uid"], set()).add(uid)
        self.history.publish(Change(self.version, resource, before, after, after))
        return after

    # --- watches ----------------------------------------------------------------------------------------------------

    def subscribe(
        self,
        resource: Resource,
        namespace: str | None,
        selector: str,
        fields: str,
        version: str,
        wake: Callable[[], None],
    ) -> Subscription:
        """A watch of what happens after `version`; if that is "" or 0, of all there is and of what happens then."""
        after = objects.resource_version(version)
        subscription = Subscription(resource, _selection(resource, namespace, selector, fields), wake)
        there = [] if after else self.all(resource, namespace, selector, fields)
        self.history.open(subscription, after or self.version, [{"type": "ADDED", "object": body} for body in there])
        return subscription

    def compact(self) -> None:
        """Forget what was: a watch that begins before now is Gone, and so are pages still to come."""
        self.history.compact(self.version)
        self.expire_continue_tokens()

    # --- the rest ---------------------------------------------------------------------------------------------------

    def now(self, plus_seconds: float = 0) -> str:
        return (self.clock() + timedelta(seconds=plus_seconds)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _check_identity(self, resource: Resource, body: Json, namespace: str) -> None:
        said = body.get("apiVersion", resource.api_version), body.get("kind", resource.kind)
        if said != (resource.api_version, resource.kind):
            raise Refused(400, "BadRequest", f"{said[1]} in version {said[0]!r} cannot be handled as a {resource.kind}")
        if resource.namespaced and body.get("metadata", {}).get("namespace", namespace) != namespace:
            message = "the namespace of the provided object does not match the namespace sent on the request"
            raise Refused(400, "BadRequest", message)

    def __iter__(self) -> Iterator[Json]:
        return (body for held in self._objects.values() for body in held.values())


def _key(resource: Resource, namespace: str, name: str) -> Key:
    return (namespace if resource.namespaced else "", name)


def _selection(resource: Resource, namespace: str | None, selector: str, fields: str) -> objects.Matches:
    labels, chosen = objects.label_selector(selector), objects.field_selector(fields)
    anywhere = namespace is None or not resource.namespaced
    return lambda body: (anywhere or body["metadata"]["namespace"] == namespace) and labels(body) and chosen(body)


def _select(held: dict[Key, Json], matches: objects.Matches) -> list[Json]:
    return [held[key] for key in sorted(held) if matches(held[key])]


def _content(body: Json) -> Json:
    """What a generation counts changes of."""
    return {field: value for field, value in body.items() if field not in ("metadata", "status")}


def _drop(body: Json, field: str) -> Json:
    return {key: value for key, value in body.items() if key != field}
