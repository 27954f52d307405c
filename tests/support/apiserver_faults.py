"""What the in-process API server notes of a request, and what it may do to one instead of answering it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from sessionpools.kube.protocol import EVENTS, LEASES
from support.apiserver_objects import Json, Refused, Resource

WRITES: Final = frozenset({"create", "update", "patch", "delete"})


class Kind(NamedTuple):
    """What requests have in common that ask for the same to be done to the same kind of thing."""

    verb: str
    plural: str
    subresource: str


@dataclass(slots=True)
class Request:
    """One line of the request log."""

    time: float
    verb: str
    resource: Resource
    namespace: str
    name: str
    subresource: str
    user_agent: str
    body: Json
    status: int = 0  # of the answer; 0: none was given

    @property
    def writes(self) -> bool:
        """Whether it is a write, but for Events and Leases, which are counted apart."""
        return self.verb in WRITES and self.resource not in (EVENTS, LEASES)

    @property
    def kind(self) -> Kind:
        return Kind(self.verb, self.resource.plural, self.subresource)


@dataclass(slots=True)
class Fault:
    """A refusal, a delay or both, for so many requests."""

    verb: str
    resource: Resource | None
    times: float
    refusal: Refused | None = None
    after: bool = False
    seconds: float = 0.0
    by: str = ""
    outside: frozenset[str] = frozenset()  # only of requests that are about none of these namespaces

    def strikes(self, request: Request) -> bool:
        return (
            self.times > 0
            and self.verb in ("*", request.verb)
            and (self.resource is None or self.resource == request.resource)
            and request.user_agent.startswith(self.by)
            and not (self.outside and request.namespace in self.outside)
        )


@dataclass(slots=True)
class Break:
    """What happens at one write of a kind, counted from when it was asked for; without a kind, of any."""

    kind: Kind | None
    left: int
    when: Literal["before", "after"]
    then: Callable[[], object]

    def strikes(self, request: Request) -> bool:
        counts = request.writes and self.kind in (None, request.kind)
        self.left -= counts
        return counts and self.left == 0
