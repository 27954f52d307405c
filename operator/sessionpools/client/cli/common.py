"""What the commands share: their options, the way to the server, and the end with a line and an exit code."""

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from sessionpools.client.cli.credentials import FileStore, current_url
from sessionpools.client.client import Client
from sessionpools.client.errors import (
    Forbidden,
    InputInvalid,
    NotFound,
    NotLoggedIn,
    SessionPoolsError,
    TransportError,
    Unauthorized,
    WaitTimeout,
)
from sessionpools.client.wire import base_url

__all__ = [
    "Force",
    "Group",
    "Name",
    "Output",
    "OutputOption",
    "Url",
    "Version",
    "VersionOrLast",
    "connect",
    "group",
    "say",
    "url_of",
]

_CODES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (InputInvalid, 2),
    (NotLoggedIn, 3),
    (Unauthorized, 3),
    (Forbidden, 3),
    (NotFound, 4),
    (WaitTimeout, 5),
    (TransportError, 6),
)
_USAGE: Final = 2


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the web service; case matters.", show_default=False)]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="Its version.", show_default=False)]
VersionOrLast = Annotated[
    str, typer.Argument(metavar="[VERSION]", help="Its version; else the last.", show_default=False)
]
Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="SESSIONPOOLS_URL",
        help="Address of the server; else that of the last login.",
        metavar="URL",
        show_default=False,
    ),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="For people, or for programs.")]
Force = Annotated[bool, typer.Option("--force", help="Also what Helm, Flux or Argo CD manages, and may change back.")]


class Group(TyperGroup):
    """Errors end with one line and an exit code of their own."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.TyperException as error:
            say(f"error: {error.format_message()} (--help says more)")
            code = _USAGE
        except typer.Abort:
            say("")
            code = 130
        except SessionPoolsError as error:
            say(f"error: {' '.join(str(error).splitlines()) or type(error).__name__}{_remedy(error)}")
            code = next((number for kind, number in _CODES if isinstance(error, kind)), 1)
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)


def group(help_text: str) -> typer.Typer:
    """A group of commands; alone it shows its help."""
    made = typer.Typer(cls=Group, help=help_text, rich_markup_mode=None, pretty_exceptions_enable=False)

    @made.callback(invoke_without_command=True)
    def alone(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())
            raise typer.Exit

    return made


def url_of(given: str) -> str:
    url = given or current_url()
    if not url:
        raise InputInvalid("no server: log in (sessionpools login URL), give --url, or set SESSIONPOOLS_URL")
    return base_url(url)


def connect(given: str) -> Client:
    """The client of the server that is meant, with SESSIONPOOLS_TOKEN, else the tokens of the login, if any."""
    url = url_of(given)
    token = os.environ.get("SESSIONPOOLS_TOKEN", "").strip()
    if token:
        return Client(url, token=token)
    return Client(url, store=FileStore(url))


def say(text: str) -> None:
    """To people: standard error, so that standard output is what was asked for."""
    typer.echo(text, err=True)


def _remedy(error: SessionPoolsError) -> str:
    if isinstance(error, Unauthorized) and os.environ.get("SESSIONPOOLS_TOKEN"):
        return " (SESSIONPOOLS_TOKEN is set: renew or unset it)"
    if isinstance(error, Unauthorized | NotLoggedIn) and getattr(error, "request", "") != "POST /login":
        return " (sessionpools login)"
    return ""
