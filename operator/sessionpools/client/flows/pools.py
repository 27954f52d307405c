"""Dedicated pools: create or update, status, delete, and waiting until they are ready or gone."""

import contextlib
from collections.abc import Iterable, Sequence
from typing import Final

from sessionpools.client.errors import InputInvalid, NotFound, PoolStalled
from sessionpools.client.exchange import Flow, Link
from sessionpools.client.flows.services import Services
from sessionpools.client.flows.waiting import Progress, until
from sessionpools.client.models import PoolStatus, PoolUsage, read
from sessionpools.client.wire import Repeat, Request, path_of, post_json

__all__ = ["Pools"]

_READY_SECONDS: Final = 600.0  # a pool's startTimeoutSeconds, unless somebody changed it
_GONE_SECONDS: Final = 300.0
# What a pool said before it was changed is no word on the change; the controller looks at a change within a second.
_STALLED_SECONDS: Final = 2.0
_TOLD: Final = 3  # nodes in a message


class Pools:
    def __init__(self, link: Link) -> None:
        self._link = link

    def create_or_update(
        self, name: str, version: str, initial: int, maximum: int, *, force: bool = False
    ) -> Flow[None]:
        """Ask for `initial` warm sessions on every compute node, at most `maximum` with demand.

        Returns when it is asked for; `wait_until_ready` returns when it is so. A change of size restarts no session.

        Raises BadRequest (sizes), NotFound, Forbidden, Conflict (something else manages it, unless forced).
        """
        if not 0 <= initial <= maximum:
            raise InputInvalid(f"{name} {version}: initial is {initial} and maximum {maximum}: 0 <= initial <= maximum")
        body = {"initialPoolSize": initial, "maxPoolSize": maximum}
        yield from self._link.exchange(
            post_json(_path(name, version), body, params=_forced(force), repeat=Repeat.IDEMPOTENT)
        )

    def status(self, name: str, version: str) -> Flow[PoolStatus]:
        """The pool on every compute node; NotFound everywhere where there is none."""
        request = Request("GET", _path(name, version))
        rows = (yield from self._link.exchange(request)).json()
        return read(PoolStatus, {"name": name, "version": version, "nodes": rows}, str(request))

    def usage(self, name: str, version: str) -> Flow[PoolUsage]:
        """What its sessions do, on each node, how many calls wait, and why it is not ready. Raises NotFound."""
        return (yield from self._usage(name, version))

    def _usage(self, name: str, version: str, *, fresh: bool = False) -> Flow[PoolUsage]:
        request = Request("GET", path_of("services", name, version, "pool", "usage"), fresh=fresh)
        response = yield from self._link.exchange(request)
        return read(PoolUsage, response.json(), str(request))

    def list(self) -> Flow[Sequence[PoolUsage]]:
        """The pools of all web services: a request for each version that is published."""
        found = []
        for service in (yield from Services(self._link).list()):
            with contextlib.suppress(NotFound):  # it has none
                found.append((yield from self.usage(service.name, service.version)))
        return found

    def delete(self, name: str, version: str, *, force: bool = False) -> Flow[None]:
        """Ask for its end; `wait_until_gone` returns when no node holds a session. Calls that run are answered."""
        request = Request("DELETE", _path(name, version), _forced(force), gone_is_done=True)
        yield from self._link.exchange(request)

    def wait_until_ready(
        self, name: str, version: str, *, timeout: float = _READY_SECONDS, progress: Progress[PoolUsage] | None = None
    ) -> Flow[PoolUsage]:
        """Where the pool is when it is Success on every node; `progress` gets each change on the way.

        Raises PoolStalled as soon as the pool says that it makes no progress without a change by somebody, with its
        words, WaitTimeout after `timeout` seconds, and NotFound when there is no such pool.
        """
        clock = self._link.clock
        stalled_since: float | None = None

        def ready(pool: PoolUsage) -> bool:
            nonlocal stalled_since
            if not pool.stalled:
                stalled_since = None
            elif stalled_since is None:
                stalled_since = clock.monotonic()
            elif clock.monotonic() - stalled_since >= _STALLED_SECONDS:
                raise PoolStalled(f"pool of {pool.label}: {pool.stalled}", pool)
            return pool.status == "Success" and not pool.stalled

        return (
            yield from until(
                lambda: self._usage(name, version, fresh=True),
                ready,
                timeout=timeout,
                clock=clock,
                what=_where,
                progress=progress,
            )
        )

    def wait_until_gone(
        self, name: str, version: str, *, timeout: float = _GONE_SECONDS, progress: Progress[PoolStatus] | None = None
    ) -> Flow[PoolStatus]:
        """The status when no node holds a session of the pool any more. Raises WaitTimeout after `timeout` seconds."""
        return (
            yield from until(
                lambda: self.status(name, version),
                lambda pool: pool.status == "NotFound",
                timeout=timeout,
                clock=self._link.clock,
                what=lambda pool: f"pool of {name} {version}: {_nodes((n.name, n.status, '') for n in pool.nodes)}",
                progress=progress,
            )
        )


def _where(pool: PoolUsage) -> str:
    slow = ((node.node, node.status, node.message) for node in pool.nodes if node.status != "Success")
    return f"pool of {pool.label}: {pool.ready} of {pool.desired} sessions are ready: {_nodes(slow) or pool.status}"


def _nodes(rows: Iterable[tuple[str, str, str]]) -> str:
    told = [f"{node}: {status}{f', {message}' if message else ''}" for node, status, message in rows]
    more = [f"and {len(told) - _TOLD} more nodes"] if len(told) > _TOLD else []
    return "; ".join(told[:_TOLD] + more)


def _path(name: str, version: str) -> str:
    return path_of("services", name, version, "pool")


def _forced(force: bool) -> dict[str, str]:
    return {"force": "true"} if force else {}
