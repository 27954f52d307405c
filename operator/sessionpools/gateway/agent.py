"""Keeps HAProxy true to the cluster. Wires cluster.py, podwatch.py, routes.py, config.py, sync.py and runtime.py.

One loop: something changed → routes (pure) → files, written only when they differ → the difference to what HAProxy has
→ commands. The files come first, so that HAProxy may restart at any moment, with or without the agent. Another loop
looks after HAProxy: whether it is still the one that was read, servers that can be deleted now, backends that no pool
uses any more, and pods to which connections failed.

Nothing is changed before the caches are complete, nor while the API server is away: the reflectors then hold what was
true last. What HAProxy has is read when the agent starts, when HAProxy was replaced, and when a command was not
confirmed; in between it is remembered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from sessionpools.api import names
from sessionpools.gateway import config, files
from sessionpools.gateway.backends import Allocation, allocate, release
from sessionpools.gateway.cluster import Cluster
from sessionpools.gateway.demand import COMMANDS, Lent
from sessionpools.gateway.model import Route
from sessionpools.gateway.podwatch import PodWatch
from sessionpools.gateway.routes import routes, usable
from sessionpools.gateway.runtime import (
    BackendStats,
    HaproxyError,
    Refused,
    Runtime,
    Server,
    Unreachable,
    parse_backends,
    parse_held,
    parse_map,
    parse_process,
    parse_server_stats,
    parse_servers,
)
from sessionpools.gateway.sync import Change, Running, Wanted, changes, deletions, excess, wanted_of
from sessionpools.kube.podclient import PodClient
from sessionpools.kube.protocol import KubeApi

__all__ = ["Agent"]

log = logging.getLogger(__name__)

# Changes that come together are made together; a pod that becomes ready waits no longer than this.
COALESCE_SECONDS: Final = 0.01
LOOK_SECONDS: Final = 0.25
LOOK_AGAIN_SECONDS: Final = 0.1  # while HAProxy does not answer
RETRY_SECONDS: Final = 0.5  # after a command that failed; doubled up to RETRY_AT_MOST_SECONDS
RETRY_AT_MOST_SECONDS: Final = 10.0
REREAD_SECONDS: Final = 2.0
REPLACED_WITHIN_SECONDS: Final = 10.0  # after a reload, until the new worker answers


class Agent:
    def __init__(
        self,
        api: KubeApi,
        settings: config.Settings,
        namespaces: Sequence[str] = (),
        *,
        ignored: Sequence[str] = (),
        pod_client: PodClient | None = None,
        control_port: int = names.CONTROL_PORT,
    ) -> None:
        directory = settings.directory
        self.runtime = Runtime(directory / files.ADMIN_SOCKET, directory / files.MASTER_SOCKET)
        self.cluster = Cluster(api, namespaces, self._changed, ignored)
        self.routes: tuple[Route, ...] = ()
        self.allocation = Allocation()
        self._taken_in: dict[str, dict[str, int]] = {}  # by pool uid: pods by revision, as HAProxy confirmed them
        self.heartbeat = time.monotonic()  # when the event loop last turned
        self.reloads = 0
        self.elsewhere: Callable[[], bool] = lambda: False  # whether another gateway takes the callers
        self._settings = settings
        self._map_file = directory / files.MAP
        self._client = pod_client or PodClient(control_port)
        self._pods = PodWatch(self._client, self._changed, control_port)
        self._dirty = asyncio.Event()
        self._haproxy = asyncio.Lock()  # one conversation at a time: what was read stays true until it was changed
        self._running: Running | None = None  # None: to be read
        self._wanted: Wanted | None = None
        self._emptied: set[str] = set()  # backends of pools that have moved, in which no call waits any more
        self._quiet_looks: dict[str, int] = {}
        # connection errors as last read: of backends, and of the servers of those that had any
        self._errors: dict[str, int] = {}
        self._server_errors: dict[tuple[str, str], int] = {}
        self._applied = False
        self._answers = False
        self._retry_after = RETRY_SECONDS
        self._retry_at = 0.0  # monotonic; not before, unless the cluster changes
        self._reload_at = 0.0  # monotonic; not before, as HAProxy has refused the configuration
        self._reread_at = 0.0  # monotonic; not before, for fewer open servers than there should be
        self._trouble = ""

    # --- for http.py, demand.py and the election ----------------------------------------------------------------------

    def not_ready_because(self) -> str:
        """ "" once HAProxy was given what the cluster says."""
        if not self.cluster.synced:
            return "caches are filling"
        return "" if self._applied else self._trouble or "HAProxy does not answer"

    async def answers(self) -> bool:
        """Whether HAProxy answers now, and knows what to serve: only then should callers be sent here."""
        await self.runtime.process()
        return self._applied

    def lent(self) -> Mapping[str, Lent]:
        """By backend, the pool whose calls go there."""
        return {
            backend: Lent(route.pool_uid, route.namespace, route.pool, self._taken_in.get(route.pool_uid, {}))
            for route in self.routes
            if (backend := self.allocation.backend_of(route))
        }

    # --- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled; HAProxy serves on."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.cluster.run())
                group.create_task(self._beat())
                await self.cluster.wait_synced()
                await self._begin()
                group.create_task(self._follow())
                group.create_task(self._look_after())
        finally:
            await self._pods.close()
            await self._client.close()

    async def _beat(self) -> None:
        while True:
            self.heartbeat = time.monotonic()
            await asyncio.sleep(1.0)

    def _changed(self) -> None:
        self._dirty.set()

    async def _begin(self) -> None:
        """Take up what an earlier agent has left."""
        try:
            self.allocation = files.load_allocation(self._settings.directory)
        except ValueError as error:
            log.warning("the configuration that is there is replaced", extra={"error": str(error)})
        try:
            self._running = await self._read()
        except HaproxyError as error:
            log.info("HAProxy does not answer yet", extra={"error": str(error)})
        else:
            self._pods.max_seen.update(self._slots_that_were_open(self._running))
        log.info("caches complete", extra={"pools": len(self.cluster.pools), "pods": len(self.cluster.pods)})
        self._dirty.set()

    def _slots_that_were_open(self, running: Running) -> dict[str, int]:
        """By pod uid, how many slots an earlier agent knew to be there: they stay open while the pods are asked."""
        counts: dict[tuple[str, str], int] = {}
        for server in running.servers.values():
            node, _, rest = server.name.partition(":")
            pod, _, slot = rest.partition(":")
            if server.open and slot.isdecimal():
                counts[node, pod] = max(counts.get((node, pod), 0), int(slot) + 1)
        found = ((pod, counts.get((pod.owner.node, pod.name), 0)) for pod in self.cluster.pods.values())
        return {pod.uid: count for pod, count in found if count and usable(pod)}

    # --- the cluster changed ------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(COALESCE_SECONDS)
            self._dirty.clear()
            try:
                async with self._haproxy:
                    await self._apply()
            except Unreachable as error:  # _look_after says when it is back
                self._lost(error)
            except HaproxyError as error:
                self._lost(error)
                self._retry()
            except Exception:
                log.exception("HAProxy could not be brought up to date")
                self._running = None
                self._retry()
            else:
                self._applied, self._trouble, self._retry_after = True, "", RETRY_SECONDS
                self._taken_in = {route.pool_uid: dict(route.pods) for route in self.routes}

    def _lost(self, error: HaproxyError) -> None:
        """What HAProxy has is not known any more."""
        self._running = None
        if self._trouble != str(error):
            self._trouble = str(error)
            log.warning("HAProxy could not be brought up to date", extra={"error": self._trouble})

    def _retry(self) -> None:
        self._retry_at = time.monotonic() + self._retry_after
        self._retry_after = min(self._retry_after * 2, RETRY_AT_MOST_SECONDS)

    async def _apply(self) -> None:
        self._decide()
        standby = self.elsewhere()
        rendered = config.render(self._settings, self.allocation, self.routes, standby=standby)
        files.write(self._settings.directory, rendered)
        if self._running is None:
            self._running = await self._read()
        if self.allocation.backends.keys() - self._running.backends and time.monotonic() >= self._reload_at:
            await self._reload(self._running.process)
            self._running = await self._read()
        running = self._running
        self._wanted = wanted_of(self.routes, self.allocation, running.backends, self._emptied, standby=standby)
        await self._make(changes(self._wanted, running, self._map_file), running)
        if self.allocation.backends.keys() - running.backends:
            raise Refused(self._trouble or "HAProxy has not all backends")

    def _decide(self) -> None:
        pools, pods = list(self.cluster.pools.values()), list(self.cluster.pods.values())
        self._pods.update(pools, pods)
        reachable = [pod for pod in pods if pod.uid not in self._pods.unreachable]
        self.routes = routes(pools, self.cluster.services.values(), reachable, self._pods.max_seen)
        self.allocation = allocate(self.allocation, self.routes)
        self._emptied.difference_update(self.lent())

    async def _make(self, wanted: Iterable[Change], running: Running) -> None:
        """Tell HAProxy, and remember what it confirmed. Raises Refused if it did not confirm all."""
        batch = list(wanted)
        if not batch:
            return
        answers = iter(await self.runtime.ask(command for change in batch for command in change.commands))
        refused = ""
        for change in batch:
            said = [next(answers) for _ in change.commands]
            if change.confirmed(said):
                change.apply(running)
            elif not refused:
                refused = f"{'; '.join(change.commands)}: {'; '.join(said)}"
        if refused:
            raise Refused(refused)

    async def _read(self) -> Running:
        info, backends, servers, entries = await self.runtime.ask(
            ("show info", "show backend", "show servers state", f"show map {self._map_file}")
        )
        if not backends.startswith("# name"):
            raise Refused(f"`show backend` gave {backends[:200]!r}")
        return Running(
            process=parse_process(info),
            backends=frozenset(backends.splitlines()[1:]) & self.allocation.backends.keys(),
            servers={
                (server.backend, server.name): server
                for server in parse_servers(servers)
                if server.backend != config.SUCCESSOR
            },
            map=parse_map(entries),
        )

    async def _reload(self, old: str) -> None:
        """The old worker ends with the calls that it has. Its servers can not be changed any more (HAProxy 2.8 says
        "Proxy is disabled"): a call that waits there for a pool's first slot waits in vain, one that finds a pod gone
        is sent to another."""
        try:
            await self.runtime.reload()
        except Refused as error:  # what needs no new backend is done all the same
            self._reload_at = time.monotonic() + RETRY_AT_MOST_SECONDS
            self._trouble = str(error)
            log.error("HAProxy refuses its configuration", extra={"error": str(error)})
            return
        self.reloads += 1
        log.info("HAProxy has reloaded its configuration", extra={"backends": len(self.allocation.backends)})
        deadline = time.monotonic() + REPLACED_WITHIN_SECONDS
        while await self.runtime.process() == old:
            if time.monotonic() > deadline:
                raise Refused("HAProxy said that it has reloaded, but the old process answers")
            await asyncio.sleep(0.01)

    # --- HAProxy changes ----------------------------------------------------------------------------------------------

    async def _look_after(self) -> None:
        while True:
            try:
                async with self._haproxy:
                    await self._look()
                self._answers = True
            except HaproxyError as error:
                self._answers = False
                self._lost(error)
            except Exception:
                log.exception("HAProxy could not be looked after")
            await asyncio.sleep(LOOK_SECONDS if self._answers else LOOK_AGAIN_SECONDS)

    async def _look(self) -> None:
        info, stat, held_lines = await self.runtime.ask(("show info", *COMMANDS))
        stats, held = parse_backends(stat), parse_held(held_lines)
        running = self._running
        if running is None or running.process != parse_process(info) or self._differs(running, stats):
            self._running = None
            if time.monotonic() >= self._retry_at:
                self._dirty.set()
            return
        if self.elsewhere() != (config.STANDBY in running.map):
            self._dirty.set()
        await self._find_unreachable(stats)
        if self._wanted is not None:
            await self._delete(excess(self._wanted, running), running)
            self._release({name: s.queued + held.get(name, 0) for name, s in stats.items()}, stats, running)

    def _differs(self, running: Running, stats: Mapping[str, BackendStats]) -> bool:
        """Whether somebody else may have changed it. HAProxy itself takes servers away that cannot be reached: that
        fewer are open is a reason to read again, but not each time."""
        counts = _open(running)
        if any(name not in stats or stats[name].open > count for name, count in counts.items()):
            return True
        if all(stats[name].open == count for name, count in counts.items()) or time.monotonic() < self._reread_at:
            return False
        self._reread_at = time.monotonic() + REREAD_SECONDS
        return True

    async def _delete(self, servers: Iterable[Server], running: Running) -> None:
        """Those that have no connection left; HAProxy refuses the others, and they have their turn again."""
        batch = deletions(servers)
        answers = await self.runtime.ask(change.commands[0] for change in batch) if batch else []
        for change, answer in zip(batch, answers, strict=True):
            if change.confirmed([answer]):
                change.apply(running)

    async def _show_servers(self, backends: Sequence[str]) -> list[str]:
        return await self.runtime.ask(f"show stat {name} 4 -1" for name in backends) if backends else []

    def _release(self, waiting: Mapping[str, int], stats: Mapping[str, BackendStats], running: Running) -> None:
        """Find backends that are not a pool's any more and have nothing left to do."""
        named = {value.partition("|")[0] for value in running.map.values()}
        occupied = {backend for backend, _ in running.servers}
        quiet = set()
        for name, uid in self.allocation.backends.items():
            # Two looks: a call that has just read the map may not be counted yet.
            idle = bool(uid) and name not in named and waiting.get(name, 0) == 0
            self._quiet_looks[name] = self._quiet_looks.get(name, 0) + 1 if idle else 0
            if self._quiet_looks[name] < 2:
                continue
            if name not in self._emptied:
                self._emptied.add(name)
                self._dirty.set()
            elif name not in occupied and name in stats and stats[name].busy == 0:
                quiet.add(name)
        released = release(self.allocation, self.routes, quiet)
        if released != self.allocation:
            self.allocation = released
            self._emptied -= quiet
            self._dirty.set()

    async def _find_unreachable(self, stats: Mapping[str, BackendStats]) -> None:
        """Pods to which connections failed since the last look are to be probed."""
        before, self._errors = self._errors, {name: each.errors for name, each in stats.items()}
        # counters begin at 0 in a HAProxy that was replaced
        worse = [name for name, count in self._errors.items() if count > before.get(name, 0)]
        failed: set[tuple[str, str]] = set()
        for name, answer in zip(worse, await self._show_servers(worse), strict=True):
            seen = {place: count for place, count in self._server_errors.items() if place[0] == name}
            for server in parse_server_stats(answer):
                place = (server.backend, server.name)
                if server.errors > seen.pop(place, 0):
                    node, _, rest = server.name.partition(":")
                    failed.add((node, rest.partition(":")[0]))
                self._server_errors[place] = server.errors
            for place in seen:  # not there any more
                del self._server_errors[place]
        if not failed:
            return
        for pod in self.cluster.pods.values():
            if (pod.owner.node, pod.name) in failed and usable(pod):
                self._pods.suspect(pod)


def _open(running: Running) -> dict[str, int]:
    """How many servers are open, by backend."""
    count = dict.fromkeys(running.backends, 0)
    for server in running.servers.values():
        if server.open:
            count[server.backend] = count.get(server.backend, 0) + 1
    return count
