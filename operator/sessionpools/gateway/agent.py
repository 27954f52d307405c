"""Keeps HAProxy true to the cluster. Wires cluster.py, podwatch.py, lookup.py, routes.py, config.py, sync.py and
runtime.py.

One loop: something changed → routes (pure) → files, written only when they differ → the difference to what HAProxy has
→ commands. The files come first, so that HAProxy may restart at any moment, with or without the agent. Another loop
looks after HAProxy: whether it is still the one that was read, servers that can be deleted now, backends that no pool
uses any more, and pods to which connections failed.

Nothing is changed before the caches are complete, nor while the API server is away: the reflectors then hold what was
true last. The keys that verify tokens stay when their ConfigMap goes; other keys need a reload, as HAProxy reads them
when it starts. What HAProxy has is read when the agent starts, when HAProxy was replaced, and when a command was not
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
from sessionpools.gateway.keys import digest
from sessionpools.gateway.lookup import Lookup, Resolve, addresses
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
    parse_process,
    parse_server_stats,
)
from sessionpools.gateway.sync import (
    Change,
    Running,
    Wanted,
    changes,
    deletions,
    excess,
    questions,
    running_of,
    wanted_of,
)
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
        keys: tuple[str, str] | None = None,
        pod_client: PodClient | None = None,
        control_port: int = names.CONTROL_PORT,
        resolve: Resolve = addresses,
    ) -> None:
        """`keys`: namespace and name of the ConfigMap with the public keys, where `settings` ask for tokens."""
        directory = settings.directory
        self.runtime = Runtime(directory / files.ADMIN_SOCKET, directory / files.MASTER_SOCKET)
        self.cluster = Cluster(api, namespaces, self._changed, ignored, keys if settings.tokens else None)
        self.routes: tuple[Route, ...] = ()
        self.allocation = Allocation()
        self._keys: Mapping[str, str] = {}  # by kid
        self._lookup = Lookup(settings.web, self._changed, resolve)
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
                group.create_task(self._lookup.run())
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
        directory = self._settings.directory
        self._keys = files.load_keys(directory)
        if self._settings.web:
            self._lookup.address = files.load_web_address(directory, self._settings.web)
        try:
            self.allocation = files.load_allocation(directory)
        except ValueError as error:
            log.warning("the configuration that is there is replaced", extra={"error": str(error)})
        try:
            self._running = await self._read()
        except HaproxyError as error:
            log.info("HAProxy does not answer yet", extra={"error": str(error)})
        else:
            opened = [server.name for server in self._running.servers.values() if server.open]
            self._pods.take_up(opened, self.cluster.pods.values())
        log.info("caches complete", extra={"pools": len(self.cluster.pools), "pods": len(self.cluster.pods)})
        self._dirty.set()

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
        standby, web = self.elsewhere(), self._lookup.server
        rendered = config.render(
            self._settings, self.allocation, self.routes, standby=standby, keys=self._keys, web=web
        )
        files.write(self._settings.directory, rendered)
        if self._running is None:
            self._running = await self._read()
        if self._needs_reload(self._running) and time.monotonic() >= self._reload_at:
            await self._reload(self._running.process)
            self._running = await self._read()
        running = self._running
        self._wanted = wanted_of(
            self.routes, self.allocation, running.backends, self._emptied, standby=standby, web=web
        )
        await self._make(changes(self._wanted, running, self._map_file), running)
        if self._needs_reload(running):
            raise Refused(self._trouble or "HAProxy has not all backends and keys")

    def _needs_reload(self, running: Running) -> bool:
        """Whether HAProxy lacks what it can only have from its files."""
        keys = digest(self._keys) if self._settings.tokens else ""
        return bool(self.allocation.backends.keys() - running.backends) or running.keys != keys

    def _decide(self) -> None:
        pools, pods = list(self.cluster.pools.values()), list(self.cluster.pods.values())
        self._pods.update(pools, pods)
        reachable = [pod for pod in pods if pod.uid not in self._pods.unreachable]
        self.routes = routes(pools, self.cluster.services.values(), reachable, self._pods.max_seen)
        self.allocation = allocate(self.allocation, self.routes)
        self._keys = self.cluster.keys or self._keys
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
        return running_of(await self.runtime.ask(questions(self._map_file)), self.allocation.backends)

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
        fields = {"backends": len(self.allocation.backends), "keys": sorted(self._keys)}
        log.info("HAProxy has reloaded its configuration", extra=fields)
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
        counts = running.open_servers()
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
