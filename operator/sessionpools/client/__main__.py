"""`sessionpools`: what users run on their own machines."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sessionpools.client.published import InputError, Sizes, read
from sessionpools.client.run import Options, StartError, serve


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    sizes = Sizes(options.sessions, max(options.sessions, options.max_sessions))
    try:
        published = [item for path in options.path for item in read(path, sizes)]
        sys.exit(serve(published, Options(options.port, options.host)))
    except (InputError, StartError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sessionpools", description="Warm Python interpreters for web services.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="serve web services on this machine, without a cluster",
        description="Serve web services from warm interpreters on this machine: the supervisor, the slots and the "
        "gateway of a cluster, as processes of this machine. Needs Linux; the code runs in the Python that runs this "
        "command, so what it imports has to be installed there (and session-pools-session).",
        epilog="A Python file is served under its own name as version v1: the function predict, or its only public "
        "function, answers calls; init or load runs once before. YAML is what you would apply to a cluster: "
        "WebService, SessionPool, ConfigMap.",
    )
    run.add_argument(
        "path", type=Path, nargs="+", help="a .py file, a .yaml file, or a folder of YAML or kustomization"
    )
    run.add_argument("--port", type=_port, default=12800, help="port of the gateway (default: %(default)s)")
    run.add_argument(
        "--host", default="127.0.0.1", help="address of the gateway (default: %(default)s, this machine only)"
    )
    run.add_argument(
        "--sessions", type=_size, default=1, help="warm sessions of a service that has no SessionPool (default: 1)"
    )
    run.add_argument("--max-sessions", type=_size, default=4, help="and at most so many on demand (default: 4)")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port number")
    return int(text)


def _size(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of sessions from 1 to 1000")
    return int(text)


if __name__ == "__main__":
    main()
