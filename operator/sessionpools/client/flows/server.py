"""The server itself: its parts, its compute nodes, and whose token this is."""

from collections.abc import Mapping, Sequence
from typing import Any

from sessionpools.client.errors import AnswerInvalid, NotLoggedIn
from sessionpools.client.exchange import Flow, Link
from sessionpools.client.models import Component, Node, read
from sessionpools.client.tokens import Identity, identity_of
from sessionpools.client.wire import Request

__all__ = ["Server"]


class Server:
    def __init__(self, link: Link) -> None:
        self._link = link

    def status(self) -> Flow[Component]:
        """The server and its parts: pass, warn or fail each."""
        request = Request("GET", "/status")
        response = yield from self._link.exchange(request)
        return _component("session-pools", response.json(), str(request))

    def nodes(self) -> Flow[Sequence[Node]]:
        """The compute nodes."""
        request = Request("GET", "/computenodes")
        body = (yield from self._link.exchange(request)).json()
        found = body.get("computeNodes") if isinstance(body, dict) else None
        return [Node(endpoint=each) for each in read(list[str], found, str(request))]

    def login(self) -> Flow[Identity]:
        """Get a token by user and password now, instead of with the first request. Raises Unauthorized, NotLoggedIn."""
        tokens = yield from self._link.login.log_in()
        return identity_of(tokens.access) or Identity(self._link.login.user, "", tokens.expires_at)

    def logout(self) -> Flow[None]:
        """Revoke the refresh token and forget the access token, which others could use until it expires."""
        yield from self._link.login.log_out()

    def whoami(self) -> Flow[Identity]:
        """Who the token says that its bearer is. Asks the server only where the token has to be renewed."""
        token = yield from self._link.login.bearer()
        if token is None:
            raise NotLoggedIn("there is no token: log in, or give one")
        found = identity_of(token)
        if found is None:
            raise AnswerInvalid("the token is no JSON Web Token, so it says nothing about its bearer")
        return found


def _component(name: str, body: Any, what: str) -> Component:
    """Machine Learning Server's tree: `statusCode`, `details`, and `components` by name."""
    if not isinstance(body, Mapping) or not isinstance(body.get("statusCode"), str):
        raise AnswerInvalid(f"{what}: {name} has no statusCode")
    parts = body.get("components") or {}
    if not isinstance(parts, Mapping):
        raise AnswerInvalid(f"{what}: components of {name} is no object")
    details = body.get("details")
    return Component(
        name=name,
        status=body["statusCode"],
        details=details if isinstance(details, Mapping) else {},
        components=tuple(_component(str(key), part, what) for key, part in parts.items()),
    )
