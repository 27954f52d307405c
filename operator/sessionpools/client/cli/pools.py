"""pools list|show|set|delete, usage."""

import time
from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from sessionpools.client.cli.common import (
    Force,
    Name,
    Output,
    OutputOption,
    Url,
    Version,
    VersionOrLast,
    connect,
    group,
)
from sessionpools.client.cli.show import Rows, following, seconds, write_json, write_rows
from sessionpools.client.client import Client
from sessionpools.client.models import PoolStatus, PoolUsage

__all__ = ["app", "usage"]

app = group("The dedicated pools: warm sessions of one web service on every compute node.")

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Follow it until it is so, with every change.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds that --watch lasts at most.", min=0)]

_LOOK_SECONDS = 2.0  # between two looks at all pools, a request each
_POOL_COLUMNS = ("NAME", "VERSION", "STATUS", "READY", "DESIRED", "INITIAL", "MAX", "NODES", "WHY")
_NODE_COLUMNS = ("NODE", "STATUS", "READY", "DESIRED", "BUSY", "IDLE", "STARTING", "GROWN", "WHY")
_USAGE_COLUMNS = ("NAME", "VERSION", "NODE", "BUSY", "IDLE", "STARTING", "GROWN", "QUEUED", "WAIT P50", "WAIT P99")


@app.command("list")
def list_pools(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow them, until it is interrupted.")] = False,
    url: Url = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """All pools, and why those are not ready that are not."""
    with connect(url) as client:
        if watch:
            with following(lambda pools: "\n".join(map(_line, pools)), _pools) as tell:
                while True:
                    tell(client.pools.list())
                    time.sleep(_LOOK_SECONDS)
        found = client.pools.list()
    if output is Output.JSON:
        write_json(found)
    else:
        write_rows(_pools(found))


@app.command()
def show(
    name: Name,
    version: VersionOrLast = "",
    watch: Watch = False,
    timeout: Timeout = 600,
    url: Url = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """A pool on each node; with --watch until it is ready, or can not become so."""
    with connect(url) as client:
        version = version or client.services.get(name).version
        pool = _ready(client, name, version, timeout) if watch else client.pools.usage(name, version)
    _write(pool, output)


@app.command("set")
def set_pool(
    name: Name,
    version: Version,
    initial: Annotated[int, typer.Option("--initial", help="Sessions warmed on every compute node.", min=0)],
    maximum: Annotated[int, typer.Option("--max", help="The most on every compute node, with demand.", min=0)],
    watch: Watch = False,
    timeout: Timeout = 600,
    force: Force = False,
    url: Url = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Create a pool, or change its sizes, which restarts no session."""
    with connect(url) as client:
        client.pools.create_or_update(name, version, initial, maximum, force=force)
        if watch:
            _write(_ready(client, name, version, timeout), output)
            return
    typer.echo(f"{name} {version}: asked for {initial} to {maximum} sessions on every compute node")


@app.command()
def delete(
    name: Name, version: Version, watch: Watch = False, timeout: Timeout = 300, force: Force = False, url: Url = ""
) -> None:
    """End a pool; calls that run are answered. With --watch until no node holds a session of it."""
    with connect(url) as client:
        client.pools.delete(name, version, force=force)
        if watch:
            with following(_line_of_status, _rows_of_status) as tell:
                client.pools.wait_until_gone(name, version, timeout=timeout, progress=tell)
    typer.echo(f"{name} {version}: {'deleted' if watch else 'asked for its end'}")


def usage(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only its pools.", show_default=False)] = "",
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="Only this one.", show_default=False)] = "",
    url: Url = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """What the sessions of each pool do on each node now, and how long calls wait for one."""
    with connect(url) as client:
        if version:
            found: Sequence[PoolUsage] = [client.pools.usage(name, version)]
        else:
            found = [pool for pool in client.pools.list() if name in ("", pool.name)]
    if output is Output.JSON:
        write_json(found)
        return
    note = "" if all(pool.gateways for pool in found) else "no gateway answers: what waits is not known"
    write_rows(Rows(_USAGE_COLUMNS, [row for pool in found for row in _usage_rows(pool)], note))


def _ready(client: Client, name: str, version: str, timeout: float) -> PoolUsage:
    with following(_line, _rows) as tell:
        return client.pools.wait_until_ready(name, version, timeout=timeout, progress=tell)


def _write(pool: PoolUsage, output: Output) -> None:
    if output is Output.JSON:
        write_json(pool)
    else:
        write_rows(_rows(pool))


def _rows(pool: PoolUsage) -> Rows:
    rows = [
        (
            node.node,
            node.status,
            *map(str, (node.ready, node.desired, node.busy, node.idle, node.starting, node.grown)),
            node.message,
        )
        for node in pool.nodes
    ]
    return Rows(_NODE_COLUMNS, rows, _line(pool))


def _line(pool: PoolUsage) -> str:
    why = pool.stalled or _why(pool)
    sizes = f"{pool.initial_pool_size} to {pool.max_pool_size} on each of {len(pool.nodes)} nodes"
    told = f"{pool.label}: {pool.status}, {pool.ready} of {pool.desired} sessions ready ({sizes})"
    return f"{told}: {why}" if why else told


def _why(pool: PoolUsage) -> str:
    slow = next((node for node in pool.nodes if node.message), None)
    return f"{slow.node}: {slow.message}" if slow else ""


def _pools(pools: Sequence[PoolUsage]) -> Rows:
    return Rows(_POOL_COLUMNS, [_pool_row(pool) for pool in pools])


def _pool_row(pool: PoolUsage) -> tuple[str, ...]:
    numbers = (pool.ready, pool.desired, pool.initial_pool_size, pool.max_pool_size, len(pool.nodes))
    return (pool.name, pool.version, pool.status, *map(str, numbers), pool.stalled or _why(pool))


def _usage_rows(pool: PoolUsage) -> Iterable[tuple[str, ...]]:
    wait = pool.wait
    waits = ("-", "-") if wait is None or not wait.count else (seconds(wait.p50_seconds), seconds(wait.p99_seconds))
    queued = str(pool.queued) if pool.gateways else "-"
    total = map(str, (pool.busy, pool.idle, pool.starting, pool.grown))
    yield (pool.name, pool.version, "all", *total, queued, *waits)
    for node in pool.nodes:
        numbers = map(str, (node.busy, node.idle, node.starting, node.grown))
        yield (pool.name, pool.version, node.node, *numbers, "", "", "")


def _line_of_status(pool: PoolStatus) -> str:
    left = [node.name for node in pool.nodes if node.status != "NotFound"]
    return f"{pool.name} {pool.version}: {'sessions left on ' + ', '.join(left) if left else 'no session is left'}"


def _rows_of_status(pool: PoolStatus) -> Rows:
    return Rows(("NODE", "STATUS"), [(node.name, node.status) for node in pool.nodes])
