"""What must change in a running HAProxy, and the commands for it. Pure: agent.py reads, asks and remembers.

A slot is closed by maintenance: what runs there goes on, nothing new comes. Its server is deleted later, when it has no
connection left (HAProxy refuses before). Closing comes first, then opening, then the map: a pod that leaves gets
no call that could go elsewhere, and no call comes for a pool before its slots are there.

A server's id only says in which order slots fill, so one that is there keeps the id that it has: nodes that come and go
change the ids in the file, and are no reason to replace servers that serve.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from sessionpools.gateway import webapi
from sessionpools.gateway.backends import Allocation
from sessionpools.gateway.config import KEYS_VARIABLE, SUCCESSOR, endpoint, map_entries, server_options
from sessionpools.gateway.model import OpenSlot, Route
from sessionpools.gateway.runtime import Refused, Server, parse_map, parse_process, parse_servers, parse_variable

__all__ = ["Change", "Running", "Wanted", "changes", "deletions", "excess", "questions", "running_of", "wanted_of"]

K = TypeVar("K")
V = TypeVar("V")
Place = tuple[str, str]  # backend, server

_REGISTERED: Final = "New server registered."
_DELETED: Final = "Server deleted."
_ADDRESS_CHANGED: Final = ("IP changed from ", "port changed from ", "no need to change ")


@dataclass(frozen=True, slots=True)
class Wanted:
    slots: Mapping[Place, OpenSlot]
    map: Mapping[str, str]  # the values of pools.map by key


@dataclass(slots=True)
class Running:
    """What HAProxy has: read once, then kept by `apply` of each change that it confirmed."""

    process: str  # which worker this is true of
    backends: frozenset[str]  # of pools
    servers: dict[Place, Server] = field(default_factory=dict)
    map: dict[str, str] = field(default_factory=dict)
    keys: str = ""  # keys.digest of those that it verifies tokens with

    def open_servers(self) -> dict[str, int]:
        """How many, by backend."""
        count = dict.fromkeys(self.backends, 0)
        for server in self.servers.values():
            if server.open:
                count[server.backend] = count.get(server.backend, 0) + 1
        return count


def questions(map_file: Path) -> tuple[str, ...]:
    """The commands whose answers `running_of` is made of."""
    return ("show info", "show backend", "show servers state", f"show map {map_file}", f"get var {KEYS_VARIABLE}")


def running_of(answers: Iterable[str], known: Collection[str]) -> Running:
    """`known`: the backends that pools can have. Raises Refused for answers of another shape."""
    info, backends, servers, entries, keys = answers
    if not backends.startswith("# name"):
        raise Refused(f"`show backend` gave {backends[:200]!r}")
    return Running(
        process=parse_process(info),
        backends=frozenset(backends.splitlines()[1:]).intersection(known),
        servers={
            (server.backend, server.name): server for server in parse_servers(servers) if server.backend != SUCCESSOR
        },
        map=parse_map(entries),
        keys=parse_variable(keys),
    )


@dataclass(frozen=True, slots=True)
class Change:
    """Commands that belong together, and what is true when each was answered as expected."""

    commands: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]  # by command: how the answer begins; "" alone: it is empty
    place: Place | None = None
    server: Server | None = None  # at `place`; None: it is gone
    key: str = ""  # of the map
    value: str | None = None

    def confirmed(self, answers: Iterable[str]) -> bool:
        return all(_as_expected(answer, of) for answer, of in zip(answers, self.answers, strict=True))

    def apply(self, running: Running) -> None:
        if self.place is not None:
            _put(running.servers, self.place, self.server)
        else:
            _put(running.map, self.key, self.value)


def wanted_of(
    routes: Collection[Route],
    allocation: Allocation,
    backends: Collection[str],
    emptied: Collection[str],
    *,
    standby: bool = False,
    web: OpenSlot | None = None,
) -> Wanted:
    """`backends`: those that HAProxy has. `emptied`: of those, the ones in which no call waits. `web`: the web API.

    A pool whose queue timeout has changed has a new backend. Its slots stay open in the old one too, for the calls
    that wait there; a session takes one call at a time, whichever backend it comes from.
    """
    lent: dict[str, list[str]] = defaultdict(list)
    for name, uid in allocation.backends.items():
        if uid:
            lent[uid].append(name)
    slots: dict[Place, OpenSlot] = {}
    for route in routes:
        backend = allocation.backend_of(route)
        for name in lent.get(route.pool_uid, ()) if route.pool else ():
            if name in backends and (name == backend or name not in emptied):
                slots.update(((name, slot.server), slot) for slot in route.slots)
    if web:
        slots[webapi.BACKEND, web.server] = web
    there = map_entries(
        routes, lambda route: name if (name := allocation.backend_of(route)) in backends else "", standby=standby
    )
    return Wanted(slots, there)


def changes(wanted: Wanted, running: Running, map_file: Path) -> list[Change]:
    """In the order in which they are to be made; deletions are for later."""
    closing = [
        _state(server, False)
        for place, server in running.servers.items()
        if server.open and (place not in wanted.slots or not _same_address(wanted.slots[place], server))
    ]
    return [*closing, *_openings(wanted, running), *_map_changes(wanted, running, map_file)]


def excess(wanted: Wanted, running: Running) -> list[Server]:
    """Servers that are closed and wanted no more: to be deleted when nothing runs there."""
    return [server for place, server in running.servers.items() if not server.open and place not in wanted.slots]


def deletions(servers: Iterable[Server]) -> list[Change]:
    return [
        Change((f"del server {s.backend}/{s.name}",), ((_DELETED,),), place=(s.backend, s.name), server=None)
        for s in servers
    ]


def _openings(wanted: Wanted, running: Running) -> Iterator[Change]:
    ids: dict[str, set[int]] = defaultdict(set)
    for server in running.servers.values():
        ids[server.backend].add(server.id)
    for place, slot in wanted.slots.items():
        backend, name = place
        found = running.servers.get(place)
        if found is None and backend == webapi.BACKEND:
            continue  # it has its server from the file
        if found is None:
            number = slot.rank
            while number in ids[backend]:  # one that is being closed has it still
                number += 1
            ids[backend].add(number)
            yield Change(
                (
                    f"add server {backend}/{name} {endpoint(slot)} id {number} {server_options(slot)}",
                    f"enable health {backend}/{name}",
                    f"set server {backend}/{name} state ready",
                ),
                ((_REGISTERED,), ("",), ("",)),
                place,
                Server(backend, name, number, slot.address, slot.port, True),
            )
        elif not _same_address(slot, found):
            yield Change(
                (
                    f"set server {backend}/{name} addr {slot.address} port {slot.port}",
                    f"set server {backend}/{name} state ready",
                ),
                (_ADDRESS_CHANGED, ("",)),
                place,
                replace(found, address=slot.address, port=slot.port, open=True),
            )
        elif not found.open:
            yield _state(found, True)


def _map_changes(wanted: Wanted, running: Running, map_file: Path) -> Iterator[Change]:
    for key in running.map.keys() - wanted.map.keys():
        yield Change((f"del map {map_file} {key}",), (("",),), key=key)
    for key, value in wanted.map.items():
        held = running.map.get(key)
        if held != value:
            verb = "add" if held is None else "set"
            yield Change((f"{verb} map {map_file} {key} {value}",), (("",),), key=key, value=value)


def _state(server: Server, opened: bool) -> Change:
    state = "ready" if opened else "maint"
    return Change(
        (f"set server {server.backend}/{server.name} state {state}",),
        (("",),),
        (server.backend, server.name),
        replace(server, open=opened),
    )


def _same_address(slot: OpenSlot, server: Server) -> bool:
    if slot.port != server.port:
        return False
    if slot.address == server.address:
        return True
    try:
        return ipaddress.ip_address(slot.address) == ipaddress.ip_address(server.address)
    except ValueError:
        return False


def _as_expected(answer: str, begins: tuple[str, ...]) -> bool:
    return any(answer.startswith(text) if text else not answer for text in begins)


def _put(held: dict[K, V], key: K, value: V | None) -> None:
    if value is None:
        held.pop(key, None)
    else:
        held[key] = value
