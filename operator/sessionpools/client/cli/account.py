"""login, logout, whoami, hash-password. A password is typed or read from standard input, never an argument: arguments
are in the shell's history, and in everybody's list of processes."""

import getpass
import sys
import time
from typing import Annotated
from urllib.parse import urlsplit

import typer

from sessionpools.client.cli.common import Output, OutputOption, Url, connect, say, url_of
from sessionpools.client.cli.credentials import FileStore, current_url, remember_url
from sessionpools.client.cli.show import Rows, write_json, write_rows
from sessionpools.client.client import Client
from sessionpools.client.errors import InputInvalid
from sessionpools.client.tokens import Identity
from sessionpools.client.wire import base_url

__all__ = ["hash_password", "login", "logout", "whoami"]

_LENGTH_AT_MOST = 1024  # characters, of a password that the web API takes
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def login(
    address: Annotated[
        str,
        typer.Argument(
            metavar="[URL]",
            help="The server, such as http://localhost:12800; else that of the last login.",
            envvar="SESSIONPOOLS_URL",
            show_default=False,
        ),
    ] = "",
    user: Annotated[str, typer.Option("--user", "-u", help="Who logs in.")] = "admin",
    stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input instead of the terminal.")
    ] = False,
) -> None:
    """Log in, and keep the tokens (not the password) for the commands that follow.

    The token is renewed as long as the commands are used at least every 14 days.
    """
    url = url_of(address)
    host = urlsplit(url).hostname
    if url.startswith("http:") and host not in _LOOPBACK:
        say(f"warning: the password goes to {host} unencrypted: use https where there is one")
    password = _password(f"Password of {user} at {url}: ", stdin)
    with Client(url, user=user, password=password, store=FileStore(url)) as client:
        identity = client.login()
    remember_url(url)
    typer.echo(f"logged in to {url} as {_described(identity)}")


def logout(url: Url = "") -> None:
    """Forget the tokens, and have the server refuse their renewal."""
    address = base_url(url) if url else current_url()
    if not address:
        typer.echo("not logged in")
        return
    with Client(address, store=FileStore(address)) as client:
        client.logout()
    typer.echo(f"logged out of {address}")


def whoami(url: Url = "", output: OutputOption = Output.TABLE) -> None:
    """Who the token says that you are, and what you may."""
    with connect(url) as client:
        identity = client.whoami()
    if output is Output.JSON:
        write_json({"url": client.url, "user": identity.user, "role": identity.role, "expiresAt": identity.expires_at})
    else:
        row = (identity.user, identity.role, _until(identity), client.url)
        write_rows(Rows(("USER", "ROLE", "TOKEN UNTIL", "SERVER"), [row]))


def hash_password(
    stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input instead of the terminal.")
    ] = False,
) -> None:
    """The argon2id hash of a password, for `passwordHash` in the users file of the web API."""
    try:
        import argon2
    except ImportError:
        raise InputInvalid("hash-password needs argon2: pip install 'session-pools-client[admin]'") from None
    password = _password("Password: ", stdin)
    if not stdin and getpass.getpass("Once more: ") != password:
        raise InputInvalid("the two passwords differ: try again")
    if len(password) > _LENGTH_AT_MOST:
        raise InputInvalid(f"the password has {len(password)} characters: nobody could log in with more than 1024")
    # as core/passwords.py, which the distribution of the client does not have: 64 MiB, 3 passes, 4 lanes
    hasher = argon2.PasswordHasher.from_parameters(argon2.profiles.RFC_9106_LOW_MEMORY)
    typer.echo(hasher.hash(password))


def _password(prompt: str, stdin: bool) -> str:
    if stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = getpass.getpass(prompt)
    else:
        raise InputInvalid("there is no terminal to ask for the password: give it by --password-stdin")
    if not password:
        raise InputInvalid("the password is empty: nothing was sent")
    return password


def _described(identity: Identity) -> str:
    role = f" ({identity.role})" if identity.role else ""
    return f"{identity.user}{role}, token until {_until(identity)}"


def _until(identity: Identity) -> str:
    if identity.expires_at is None:
        return "it is refused"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(identity.expires_at))
