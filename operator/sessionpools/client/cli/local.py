"""run: what it serves and how is run.py's and published.py's, which need the whole of Session Pools."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sessionpools.client.errors import InputInvalid

__all__ = ["run"]

_REMEDY = "sessionpools run needs all of Session Pools: pip install session-pools session-pools-session"


def run(
    path: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="A .py file, a .yaml file, or a folder of YAML or kustomization."),
    ],
    port: Annotated[int, typer.Option(help="Port of the gateway.", min=1, max=65535)] = 12800,
    host: Annotated[str, typer.Option(help="Address of the gateway; the default is this machine only.")] = "127.0.0.1",
    sessions: Annotated[
        int, typer.Option(help="Warm sessions of a service that has no SessionPool.", min=1, max=1000)
    ] = 1,
    max_sessions: Annotated[int, typer.Option(help="And at most so many on demand.", min=1, max=1000)] = 4,
) -> None:
    """Serve web services from warm interpreters on this machine, without a cluster: the supervisor, the slots and the
    gateway of a cluster, as processes of this machine.

    Needs Linux; the code runs in the Python that runs this command, so what it imports has to be installed there (and
    session-pools-session).

    A Python file is served under its own name as version v1: the function predict, or its only public function, answers
    calls; init or load runs once before. YAML is what you would apply to a cluster: WebService, SessionPool, ConfigMap.
    """
    try:
        from sessionpools.client.published import InputError, Sizes, read
        from sessionpools.client.run import Options, StartError, serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sessionpools") or error.name == "yaml":
            raise InputInvalid(_REMEDY) from None
        raise
    sizes = Sizes(sessions, max(sessions, max_sessions))
    try:
        published = [item for each in path for item in read(each, sizes)]
        code = serve(published, Options(port, host))
    except (InputError, StartError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    raise typer.Exit(code)
