"""Publish, update and delete web services: from a request to a bundle in the store and a WebService in the cluster.

The bundle is stored first, then the WebService is written: if either fails there is nothing half-made that anybody
could see, and a bundle that no WebService names is collected. Of two who publish the same name and version at once the
API server takes one, as both write the same object name; of two objects with different names (kubectl) the older one
stays.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sessionpools.api import names
from sessionpools.api.v1alpha1 import WebService
from sessionpools.core.keys import age_of
from sessionpools.kube.protocol import SESSION_POOLS, WEB_SERVICES, AlreadyExists, Conflict, Json, NotFound
from sessionpools.web import objects
from sessionpools.web.auth.identity import Principal, Role
from sessionpools.web.auth.roles import Action, require
from sessionpools.web.bundlefiles import unpacked
from sessionpools.web.cluster import Cluster
from sessionpools.web.errors import BadRequest, Clash, Forbidden, Missing, storable
from sessionpools.web.managed import managed_by
from sessionpools.web.models.services import PublishRequest
from sessionpools.web.objects import Published
from sessionpools.web.signatures import owner_of
from sessionpools.web.store.authoring import Authoring
from sessionpools.web.store.bundles import Bundles, Content, packed_at_most, publish_files
from sessionpools.web.store.documents import Snapshot
from sessionpools.web.store.received import size_of

__all__ = ["INIT_BLOCK", "SCRIPT", "Publishing", "guard", "new_version", "owner_in", "service_missing"]

SCRIPT: Final = "service_script.py"
INIT_BLOCK: Final = "init_block.py"
INIT: Final = "service_init:load"
_TEXTS: Final = (SCRIPT, INIT_BLOCK)
_TEXT_BYTES_AT_MOST: Final = 128 << 20  # of both, which came in a body of JSON, at most 64 MiB
_OBJECT, _OBJECT_SUFFIX, _FILE = "objects/", ".dill", "files/"


@dataclass(frozen=True, slots=True)
class Publishing:
    cluster: Cluster
    bundles: Bundles
    authoring: Authoring
    bundles_url: str  # http://session-pools-web.NAMESPACE:12803
    clock: Callable[[], float] = time.time

    async def publish(self, who: Principal, name: str, version: str, request: PublishRequest) -> None:
        """Raises Problem (Forbidden if the service exists), StoreError, KubeError."""
        objects.check_key(name, version)
        _check_runtime(request)
        self._check_absent(who, name, version)
        if request.code is None and request.entrypoint is None:
            raise BadRequest(
                "code: give the block of code that answers a call, or entrypoint (module:function) together with files"
            )
        published = await self._published(who, request, {})
        annotations = dict(published.annotations)
        annotations[names.ANNOTATION_PUBLISHED_AT] = datetime.fromtimestamp(self.clock(), UTC).isoformat()
        body = objects.new_service(
            self.cluster.namespace, name, version, who.name, Published(published.spec, annotations)
        )  # fmt: skip
        try:
            created = await self.cluster.create(WEB_SERVICES, body)
        except AlreadyExists:
            raise Clash(
                f"service {name!r} version {version!r} was published by another request at the same time: PATCH it to "
                "change it",
                kind="PublishedMeanwhile",
            ) from None
        await self._give_way(created, name, version)

    async def update(self, who: Principal, name: str, version: str, request: PublishRequest, force: bool) -> None:
        """Change what the request names. Raises Problem, StoreError, KubeError."""
        service = self._existing(name, version)
        require(who, Action.UPDATE_SERVICE, owner_of(service))
        _check_runtime(request)
        with _gone(name, version):
            first = await self.cluster.read(WEB_SERVICES, service.metadata.name)
            guard(first, "service", force)
            before = first["spec"]
            published = await self._published(who, request, before)

            def changed(read: Json) -> Json:
                require(who, Action.UPDATE_SERVICE, owner_in(read))
                guard(read, "service", force)
                ours = (before.get("code"), published.spec.get("code"))  # written already, where an answer was lost
                if published.changes_code and read["spec"].get("code") not in ours:
                    raise Clash(f"the code of {name!r} version {version!r} was changed meanwhile: look, and try again")
                return objects.updated_service(read, published)

            await self.cluster.change(WEB_SERVICES, service.metadata.name, changed)

    async def delete(self, who: Principal, name: str, version: str, force: bool) -> None:
        """The service goes first, so that its calls get 404 at once; then the pool that this API made for it. A pool
        that others made stays, and is NotFound."""
        service = self._existing(name, version)
        with _gone(name, version):
            read = await self.cluster.read(WEB_SERVICES, service.metadata.name)
            require(who, Action.DELETE_SERVICE, owner_in(read))
            guard(read, "service", force)
            await self.cluster.delete(WEB_SERVICES, read)
        for pool in self.cluster.pools_of(name, version):
            if not objects.made_here(pool.metadata.model_dump()) or pool.metadata.deletion_timestamp:
                continue
            with contextlib.suppress(NotFound, Conflict):  # somebody else deletes it, or has made another
                read = await self.cluster.read(SESSION_POOLS, pool.metadata.name)
                if not managed_by(read["metadata"]):
                    await self.cluster.delete(SESSION_POOLS, read, "Foreground")

    def _existing(self, name: str, version: str) -> WebService:
        service = self.cluster.service(name, version)
        if service is None:
            raise service_missing(name, version)
        return service

    def _check_absent(self, who: Principal, name: str, version: str) -> None:
        versions = [service for service in self.cluster.services() if service.spec.name == name]
        # A further version of another's service would be what callers who ask for the latest get.
        owners: set[str | None] = {owner_of(service) for service in versions}
        for owner in owners or {None}:
            require(who, Action.PUBLISH_SERVICE, owner)
        if any(service.spec.version == version for service in versions):
            raise Forbidden(
                f"service {name!r} version {version!r} exists: PATCH it to change it, or choose another version",
                kind="ServiceExists",
            )

    async def _give_way(self, created: Json, name: str, version: str) -> None:
        """To an object of the same key that was made a moment earlier under another name."""
        oldest = self.cluster.service(name, version)
        mine = WebService.model_validate(created)
        if oldest is None or oldest.metadata.uid == mine.metadata.uid or age_of(oldest) > age_of(mine):
            return
        with contextlib.suppress(NotFound, Conflict):
            await self.cluster.delete(WEB_SERVICES, created)
        raise Clash(
            f"service {name!r} version {version!r} exists (WebService {oldest.metadata.name!r}): PATCH it to change it",
            kind="PublishedMeanwhile",
        )

    # --- what is published ------------------------------------------------------------------------------------------

    async def _published(self, who: Principal, request: PublishRequest, before: Mapping[str, Any]) -> Published:
        """The fields that the request decides; `before` is the spec that it updates, {} for a new service."""
        spec: dict[str, Any] = {}
        if request.description is not None:
            spec["description"] = request.description
        if request.input_parameter_definitions is not None:
            spec["inputs"] = _distinct(
                "inputParameterDefinitions", objects.definitions(request.input_parameter_definitions)
            )
        if request.output_parameter_definitions is not None:
            outputs = objects.definitions(request.output_parameter_definitions)
            spec["outputs"] = _distinct("outputParameterDefinitions", outputs)
        if request.code is not None and not before.get("script"):
            spec.setdefault("outputs", [])  # a block gives the variables that are declared, and no others
            spec.setdefault("inputs", None)
        elif request.entrypoint is not None and not before.get("entrypoint"):
            spec = {"inputs": None, "outputs": None} | spec  # those of a function are its own, unless declared
        if request.output_file_names is not None:
            spec["outputFiles"] = list(dict.fromkeys(request.output_file_names))
        if request.modules is not None:
            spec["modules"] = request.modules
        if request.warmup is not None:
            spec["warmup"] = storable("warmup", request.warmup)
        annotations: dict[str, str | None] = {}
        if request.operation_id is not None:
            annotations[names.ANNOTATION_OPERATION_ID] = request.operation_id or None
        if request.snapshot_id is not None:
            annotations[names.ANNOTATION_SNAPSHOT] = request.snapshot_id
        if request.code is not None and request.entrypoint is not None:
            raise BadRequest("code and entrypoint: give one of them, code for a block or entrypoint for a function")
        if request.entrypoint is not None or request.files is not None or request.init is not None:
            spec |= await self._native(who, request, before)
        elif request.code is not None or request.init_code is not None or request.snapshot_id is not None:
            spec |= await self._script(who, request, before)
        return Published(spec, annotations)

    async def _native(self, who: Principal, request: PublishRequest, before: Mapping[str, Any]) -> dict[str, Any]:
        """A function in files that were sent, or that a snapshot has, which is the way for large ones. An update may
        name another function of the files that there are, or send other files for it."""
        if request.init_code is not None:
            raise BadRequest("initCode: goes with code, a block of it; with entrypoint use init (module:function)")
        entrypoint = request.entrypoint or before.get("entrypoint")
        if not entrypoint:
            raise BadRequest("entrypoint: give module:function, the function in files that answers a call")
        kept = before.get("init") if before.get("entrypoint") else None
        spec: dict[str, Any] = {
            "entrypoint": entrypoint,
            "init": kept if request.init is None else request.init or None,
        }
        async with contextlib.AsyncExitStack() as stack:
            files: dict[str, Content] = {}
            sent = _decoded(request.files or {})
            if request.snapshot_id is not None:
                snapshot = await self.snapshot(who, request.snapshot_id)
                if snapshot.objects:
                    raise BadRequest(
                        "snapshotId: has objects, which go with code: with entrypoint it may have files only"
                    )
                await self._room(stack, snapshot.size + sum(map(size_of, sent.values())), snapshot.size)
                files |= (await stack.enter_async_context(self.authoring.checkout(snapshot)))[1]
            elif sent:
                await self._room(stack, sum(map(size_of, sent.values())))
            files |= sent
            if files:
                return spec | {"code": await self._stored(files)}
        if not before.get("code"):
            raise BadRequest("files: give the code, relative paths and their contents in base64")
        return spec | {"code": before["code"]}

    async def _script(self, who: Principal, request: PublishRequest, before: Mapping[str, Any]) -> dict[str, Any]:
        """A block of code, its init block and the snapshot's objects; what an update leaves out comes from the bundle
        that there is."""
        decided = {"script": SCRIPT, "init": INIT}
        async with contextlib.AsyncExitStack() as stack:
            there: Mapping[str, Content] = {}
            sha256 = objects.bundle_of(before) if before.get("script") == SCRIPT else ""
            if before and not sha256 and request.code is None:
                raise BadRequest("code: this service was not published as a block of code: give one, or entrypoint")
            snapshot = None if request.snapshot_id is None else await self.snapshot(who, request.snapshot_id)
            # Machine Learning Server's Python client sends a snapshot with every update, empty unless objects are
            # named: to describe a service anew must not take its model away.
            if snapshot is not None and sha256 and not (snapshot.objects or snapshot.files):
                snapshot = None
            content = snapshot.size if snapshot else 0  # bytes of the new bundle
            local = content
            only = _TEXTS if snapshot else ()
            if sha256:
                most = (_TEXT_BYTES_AT_MOST,) if snapshot else ()
                kept = await self.bundles.room_of(sha256, *most)
                content, local = content + kept, local + kept
            sent = sum(len(text.encode("utf-8", "replace")) for text in (request.code, request.init_code) if text)
            await self._room(stack, content + sent, local)
            if sha256:
                there = await stack.enter_async_context(unpacked(self.bundles, sha256, only))
            kept_objects = _below(there, _OBJECT, _OBJECT_SUFFIX)
            kept_files = _below(there, _FILE, "")
            if snapshot is not None:
                taken = await stack.enter_async_context(self.authoring.checkout(snapshot))
                kept_objects, kept_files = dict(taken[0]), dict(taken[1])
            code = _text(there, SCRIPT) if request.code is None else request.code
            init = _text(there, INIT_BLOCK) if request.init_code is None else request.init_code
            return decided | {"code": await self._stored(publish_files(code, init, kept_objects, kept_files))}

    async def _room(self, stack: contextlib.AsyncExitStack, content: int, local: int = 0) -> None:
        """Take it for a bundle of so many bytes of files, `local` bytes of which are local files, until the stack is
        left. Raises NoRoom."""
        await stack.enter_async_context(self.authoring.room.take(local + packed_at_most(content), "publishing"))

    async def snapshot(self, who: Principal, snapshot_id: str) -> Snapshot:
        """One that `who` may use. Raises NotFound of the store, Denied."""
        snapshot = await self.authoring.snapshot(snapshot_id, None if who.role is Role.OWNER else who.name)
        require(who, Action.USE_SNAPSHOT, snapshot.owner)
        return snapshot

    async def _stored(self, files: Mapping[str, Content]) -> Json:
        bundle = await self.bundles.put(files)
        return {"bundle": {"url": f"{self.bundles_url}/bundles/{bundle.sha256}.tar.gz", "sha256": bundle.sha256}}


def guard(read: Json, what: str, force: bool) -> None:
    """Raises Clash for an object that somebody else manages, unless forced."""
    manager = managed_by(read["metadata"])
    if manager and not force:
        raise Clash(
            f"the {what} is managed by {manager}, which would undo the change: change it there, or add ?force=true",
            kind="ManagedElsewhere",
        )


def owner_in(read: Json) -> str:
    return str((read["metadata"].get("annotations") or {}).get(names.ANNOTATION_OWNER, ""))


def new_version() -> str:
    """Of a service that is published by its name alone."""
    return str(uuid.uuid4())


def _check_runtime(request: PublishRequest) -> None:
    if request.runtime_type is not None and request.runtime_type.lower() != "python":
        raise BadRequest(f"runtimeType: {request.runtime_type!r} is not supported, only Python is: publish Python code")


def _distinct(what: str, given: list[Json]) -> list[Json]:
    seen = [each["name"] for each in given]
    twice = sorted({name for name in seen if seen.count(name) > 1})
    if twice:
        raise BadRequest(f"{what}: {', '.join(twice)} is there twice: give each name once")
    return given


def _decoded(files: Mapping[str, str]) -> dict[str, Content]:
    decoded: dict[str, Content] = {}
    for path, text in files.items():
        try:
            decoded[path] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise BadRequest(f"files.{path}: is not base64: encode the file's content so") from None
    return decoded


def _below(files: Mapping[str, Content], folder: str, suffix: str) -> dict[str, Content]:
    return {
        path.removeprefix(folder).removesuffix(suffix): content
        for path, content in files.items()
        if path.startswith(folder) and path.endswith(suffix)
    }


def _text(files: Mapping[str, Content], path: str) -> str:
    content = files.get(path, b"")
    return (content if isinstance(content, bytes) else content.read_bytes()).decode()


def service_missing(name: str, version: str) -> Missing:
    return Missing(
        f"there is no service {name!r} version {version!r}: GET /services lists them; case matters",
        kind="ServiceNotFound",
    )


@contextlib.contextmanager
def _gone(name: str, version: str) -> Iterator[None]:
    """What was deleted between two looks at it is not there."""
    try:
        yield
    except NotFound:
        raise service_missing(name, version) from None
