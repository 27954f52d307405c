"""What the rest of the project may ask of the Kubernetes API server, and how it fails. No I/O here.

`KubeApi` is the narrow waist: `kube.client` speaks it to a real server, tests speak it to an in-process one, and one
suite (tests/contract) is run against both. Objects are the API server's own JSON as dicts: they are turned into models
or facts once, at the edge (`kube.reflector` does it), and no dict travels further inward.

Everything that can go wrong is a `KubeError`; nothing else leaves an implementation of `KubeApi` but cancellation:

    KubeError                  any answer that is not a success; `status`, `reason` and `message` are the server's
    ├── Unreachable            no answer: connection refused or lost, timeout, TLS, no usable credentials (status 0)
    ├── Unauthorized    401    who we are was not accepted
    ├── Forbidden       403    RBAC or admission says no; the message names user, verb and resource
    ├── NotFound        404    the object, or its whole resource, does not exist
    ├── Conflict        409    it changed meanwhile, or a precondition (uid) does not hold
    │   └── AlreadyExists      the name is taken; by whom is for the caller to read
    ├── Gone            410    the resourceVersion or continue token is too old: list again
    ├── Invalid      400 422   the request is wrong and will stay wrong; the message names the field
    ├── TooManyRequests 429    come again after `retry_after` seconds
    ├── ServerError     5xx    the server's own trouble: try later
    └── NotLeading             a write that was not sent: only the leader writes (status 0)

`retriable` says whether the same request may succeed later without anyone changing anything.
"""

# ruff: noqa: N818  (errors are named after the answers that they stand for)
from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object as the API server addresses it."""

    group: str  # "" is the core group
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """The URL path of the collection (of one namespace or of all), of one object or of its subresource."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace is not None and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


SESSION_POOLS: Final = Resource("sessionpools.dev", "v1alpha1", "sessionpools", "SessionPool")
WEB_SERVICES: Final = Resource("sessionpools.dev", "v1alpha1", "webservices", "WebService")
PODS: Final = Resource("", "v1", "pods", "Pod")
NODES: Final = Resource("", "v1", "nodes", "Node", namespaced=False)
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
EVENTS: Final = Resource("", "v1", "events", "Event")
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """Which object an Event is about."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""  # "" for what has no namespace, a node
    uid: str = ""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One line of a watch. A BOOKMARK's object carries nothing but its resourceVersion."""

    type: str  # ADDED, MODIFIED, DELETED or BOOKMARK; an ERROR is raised, never yielded
    object: Json

    @property
    def resource_version(self) -> str:
        return str(self.object.get("metadata", {}).get("resourceVersion", ""))


class KubeError(Exception):
    """An answer that is not a success. The subclasses say which."""

    retriable: ClassVar[bool] = False

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.status} {self.reason})" if self.status else self.message


class Unreachable(KubeError):
    """There was no answer. A write may have been done all the same: read before doing it again."""

    retriable = True


class Unauthorized(KubeError):
    """401. Retriable: a rotated token is read again."""

    retriable = True


class Forbidden(KubeError):
    """403, from RBAC, a quota or an admission plugin such as PodSecurity."""


class NotFound(KubeError):
    """404. For a create: the namespace, or the CRD, does not exist."""


class Conflict(KubeError):
    """409: the object changed meanwhile, or it is not the one that the precondition names. Read it again."""


class AlreadyExists(Conflict):
    """409 to a create: an object of this name exists, be it ours or another's, be it even on its way out."""


class Gone(KubeError):
    """410: the history that was asked for is no longer kept. Raised by lists (continue) and watches."""


class Invalid(KubeError):
    """400, 413 or 422. The same request will never succeed; the message is fit to be shown to the user."""


class TooManyRequests(KubeError):
    """429: the server, or an eviction's budget, asks to come again later."""

    retriable = True

    def __init__(self, message: str, *, status: int = 429, reason: str = "", retry_after: float = 1.0) -> None:
        super().__init__(message, status=status, reason=reason)
        self.retry_after = retry_after


class ServerError(KubeError):
    """5xx. A write may have been done all the same."""

    retriable = True


class NotLeading(KubeError):
    """The write was not sent, as another process may lead by now (`kube.lease`). Nothing was done."""


_BY_STATUS: Final[dict[int, type[KubeError]]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: Invalid,
    422: Invalid,
}


def error_from_status(status: Mapping[str, Any], code: int = 0, retry_after: float = 1.0) -> KubeError:
    """The error that a `Status` object means, be it the body of an answer or the object of a watch's ERROR."""
    code = int(status.get("code") or code)
    reason = str(status.get("reason") or "")
    message = str(status.get("message") or reason or f"the API server answered {code}")
    if code == 429:
        return TooManyRequests(message, status=code, reason=reason, retry_after=retry_after)
    if code == 409 and reason == "AlreadyExists":
        return AlreadyExists(message, status=code, reason=reason)
    if code >= 500:
        return ServerError(message, status=code, reason=reason)
    return _BY_STATUS.get(code, KubeError)(message, status=code, reason=reason)


class KubeApi(Protocol):
    """The calls. `namespace=None` means every namespace for lists and watches, and is right for what has none."""

    async def list_page(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 500,
        continue_token: str = "",
    ) -> Json:
        """One page of a list: `items`, and `metadata` with `resourceVersion` and, if there is more, `continue`."""
        ...

    def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str,
        timeout_seconds: int = 300,
    ) -> AsyncGenerator[WatchEvent, None]:
        """What happened after `resource_version`, bookmarks included, until the server ends it after `timeout_seconds`.

        It also ends when nothing at all was heard for longer than a live server is silent: go on with another from
        where this one was. Raises Gone when that is too long ago, at once or in the middle, and Unreachable when the
        connection breaks. Close the iterator (contextlib.aclosing) to end it earlier.
        """
        ...

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json: ...

    async def create(
        self, resource: Resource, body: Json, *, namespace: str | None = None, unseen: bool = False
    ) -> Json:
        """What was created; nothing of it ({}) if it may remain `unseen`, as a watch shows it anyway: that spares both
        sides most of the answer."""
        ...

    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        uid: str = "",
        version: str = "",
        grace_period_seconds: int | None = None,
        propagation: str = "Background",
    ) -> None:
        """Delete it; with `uid` only if it is still that one, with `version` (resourceVersion) only if nothing of it
        has changed since (else Conflict)."""
        ...

    async def merge_patch(self, resource: Resource, name: str, body: Json, *, namespace: str | None = None) -> Json: ...

    async def update(self, resource: Resource, body: Json, *, namespace: str | None = None) -> Json:
        """Put `body` in the place of the object that it names, as it was read and then changed: Conflict if its
        resourceVersion is no longer the object's. What a merge patch can not say, a null for one, it can."""
        ...

    async def apply_status(
        self, resource: Resource, name: str, body: Json, *, namespace: str | None = None, field_manager: str
    ) -> Json:
        """Server-side apply of `{"status": ...}` on /status, with force: what `body` no longer says is taken away."""
        ...

    async def log(self, pod: str, container: str, *, namespace: str, lines: int, limit_bytes: int) -> bytes:
        """The last `lines` lines that a pod's container has written, as they are; nothing if it has not started. Of
        those lines the first `limit_bytes`, so that what was written last is missing where they are more."""
        ...

    async def close(self) -> None: ...
