"""Dedicated pools: create or update, status, delete, and waiting until they are ready or gone."""

from typing import Final

from sessionpools.client.errors import InputInvalid, PoolStalled
from sessionpools.client.exchange import Flow, Link
from sessionpools.client.flows.waiting import Progress, until
from sessionpools.client.models import PoolStatus, read
from sessionpools.client.wire import Repeat, Request, path_of, post_json

__all__ = ["Pools"]

_READY_SECONDS: Final = 600.0  # a pool's startTimeoutSeconds, unless somebody changed it
_GONE_SECONDS: Final = 300.0


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
        body = (yield from self._link.exchange(request)).json()
        fields = body if isinstance(body, dict) else {"nodes": body}
        return read(PoolStatus, {**fields, "name": name, "version": version}, str(request))

    def delete(self, name: str, version: str, *, force: bool = False) -> Flow[None]:
        """Ask for its end; `wait_until_gone` returns when no node holds a session. Calls that run are answered."""
        request = Request("DELETE", _path(name, version), _forced(force), gone_is_done=True)
        yield from self._link.exchange(request)

    def wait_until_ready(
        self,
        name: str,
        version: str,
        *,
        timeout: float = _READY_SECONDS,
        progress: Progress[PoolStatus] | None = None,
    ) -> Flow[PoolStatus]:
        """The status when the pool is Success on every node; `progress` gets each change on the way.

        Raises PoolStalled as soon as the pool says that it makes no progress without a change by somebody, with its
        words, and WaitTimeout after `timeout` seconds.
        """

        def ready(status: PoolStatus) -> bool:
            if status.stalled:
                raise PoolStalled(f"pool of {status.label}: {status.stalled}", status)
            return status.state == "Success"

        return (
            yield from until(
                lambda: self.status(name, version),
                ready,
                timeout=timeout,
                clock=self._link.clock,
                what=_where,
                progress=progress,
            )
        )

    def wait_until_gone(
        self,
        name: str,
        version: str,
        *,
        timeout: float = _GONE_SECONDS,
        progress: Progress[PoolStatus] | None = None,
    ) -> Flow[PoolStatus]:
        """The status when no node holds a session of the pool any more. Raises WaitTimeout after `timeout` seconds."""
        return (
            yield from until(
                lambda: self.status(name, version),
                lambda status: status.state == "NotFound",
                timeout=timeout,
                clock=self._link.clock,
                what=_where,
                progress=progress,
            )
        )


def _where(status: PoolStatus) -> str:
    slow = [node for node in status.nodes if node.status != "Success"]
    why = "; ".join(f"{node.label}: {node.status}{f', {node.message}' if node.message else ''}" for node in slow[:3])
    more = f"; and {len(slow) - 3} more" if len(slow) > 3 else ""
    return f"pool of {status.label}: {status.state}{f' ({why}{more})' if why else ''}"


def _path(name: str, version: str) -> str:
    return path_of("services", name, version, "pool")


def _forced(force: bool) -> dict[str, str]:
    return {"force": "true"} if force else {}
