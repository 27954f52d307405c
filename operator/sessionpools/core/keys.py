"""Who belongs to whom: pools and web services of a namespace find each other by (name, version), case-sensitively; of
two with one key the oldest counts.
"""

from collections.abc import Iterable
from typing import TypeVar

from sessionpools.api.v1alpha1 import SessionPool, WebService

__all__ = ["Served", "age_of", "elder_of", "key_of", "pool_of", "service_of"]

Served = tuple[str, str, str]  # namespace, name, version
T = TypeVar("T", SessionPool, WebService)


def key_of(thing: SessionPool | WebService) -> Served:
    if isinstance(thing, SessionPool):
        return (thing.metadata.namespace, thing.spec.service_name, thing.spec.service_version)
    return (thing.metadata.namespace, thing.spec.name, thing.spec.version)


def service_of(pool: SessionPool, services: Iterable[WebService]) -> WebService | None:
    """The web service that a pool is for."""
    return _oldest(service for service in services if key_of(service) == key_of(pool))


def pool_of(service: WebService, pools: Iterable[SessionPool]) -> SessionPool | None:
    """The dedicated pool of a web service."""
    return _oldest(p for p in pools if key_of(p) == key_of(service) and not p.metadata.deletion_timestamp)


def elder_of(thing: T, others: Iterable[T]) -> T | None:
    """The older one of the same key, if any: it counts, and `thing` does not. One that is being deleted is no elder."""
    same = (o for o in others if key_of(o) == key_of(thing) and not o.metadata.deletion_timestamp)
    return _oldest(o for o in same if o.metadata.uid != thing.metadata.uid and age_of(o) < age_of(thing))


def _oldest(things: Iterable[T]) -> T | None:
    return min(things, key=age_of, default=None)


def age_of(thing: SessionPool | WebService) -> tuple[str, str]:
    """Oldest first; the uid decides between two of one second, so that the answer is the same each time."""
    return (str(thing.metadata.creation_timestamp or ""), thing.metadata.uid)
