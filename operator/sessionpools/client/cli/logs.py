"""logs: what the sessions of a web service print."""

from collections import Counter
from typing import Annotated, Final

import typer

from sessionpools.client.cli.common import Name, Output, OutputOption, Url, connect, say
from sessionpools.client.cli.show import write_json
from sessionpools.client.models import PodLog, ServiceLogs

__all__ = ["logs"]

_LINES_AT_MOST: Final = 10_000


def logs(
    name: Name,
    version: Annotated[
        str, typer.Option("--version", "-v", help="Its version; else the last.", show_default=False)
    ] = "",
    lines: Annotated[
        int, typer.Option("--lines", "-n", help="How many of each session pod.", min=1, max=_LINES_AT_MOST)
    ] = 100,
    node: Annotated[
        str, typer.Option("--node", metavar="NODE", help="Only the sessions of this node.", show_default=False)
    ] = "",
    url: Url = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """What the sessions of a web service have printed last, and what the runtime says of them.

    \b
    sessionpools logs Score --lines 20
    sessionpools logs Score --version v1 --node worker-1

    Takes who published it, or an Owner. Ends with 1 when no log could be read.
    """
    with connect(url) as client:
        found = client.services.logs(name, version or client.services.get(name).version, lines, node=node)
    if output is Output.JSON:
        write_json(found)
    else:
        _write(found)
    if found.pods and all(pod.error for pod in found.pods):
        raise typer.Exit(1)


def _write(found: ServiceLogs) -> None:
    on_node = Counter(pod.node for pod in found.pods)
    for pod in found.pods:
        before = "" if len(found.pods) == 1 else f"{pod.node if on_node[pod.node] == 1 else _place(pod)}: "
        for line in pod.lines:
            typer.echo(f"{before}{line}")
    for pod in found.pods:
        if pod.error:
            say(f"{_place(pod)}: can not be read: {pod.error}")
        elif pod.cut:
            say(f"{_place(pod)}: its last lines are large, so not all came that were asked for")
    if found.not_read:
        say(f"{found.not_read} more session pods were not read: name a node (--node)")
    if not found.pods:
        say(f"{found.name} {found.version}: has no session pods yet: sessionpools pools show {found.name} says why")


def _place(pod: PodLog) -> str:
    return f"{pod.node}/{pod.pod}"
