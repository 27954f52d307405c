"""From a request to its answer: the token, the repetitions, and what follows a refused token. Written once, as flows.

A flow is a generator that says what is to be done (an effect) and is given what came of it; a driver (drive.py) does
it, blocking or awaiting. Here is no I/O, no clock and no randomness of its own.

When a request may be sent again is its own (wire.Repeat). Pauses double from 0.2 s and differ by chance, so that
callers which failed together do not come back together; a server's Retry-After is kept to, up to 30 s in all.
"""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from sessionpools.client.errors import AnswerTimeout, NotLoggedIn, TransportError
from sessionpools.client.tokens import Store, Tokens
from sessionpools.client.wire import Repeat, Request, Response, post_json

__all__ = ["Clock", "Effect", "Exclusively", "Flow", "Link", "Login", "Send", "Sleep"]

T = TypeVar("T")

_ATTEMPTS: Final = 4
_FIRST_PAUSE_SECONDS: Final = 0.2  # a restart of HAProxy takes less, one of a pod is left to the later pauses
_LONGEST_PAUSE_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 30.0  # for all that Retry-After asks for: longer, and the caller had better know
_LOCK_PAUSE_SECONDS: Final = 0.05
_BUSY: Final = (429, 503)
_PASSING: Final = (502, 504)  # of a proxy whose server ended or took too long; to a call they say that it was begun
_REFUSED: Final = (400, 401, 403)  # a refresh token that is used up, revoked or too old


@dataclass(frozen=True, slots=True)
class Send:
    """Send it, with this token. Answered by a Response, or by a TransportError that is thrown into the flow."""

    request: Request
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Exclusively:
    """Run this flow while no other flow of the client runs one so. Answered by what it returns."""

    flow: "Flow[Any]"


Effect = Send | Sleep | Exclusively
Flow = Generator[Effect, Any, T]


@dataclass(frozen=True, slots=True)
class Clock:
    """What a flow knows of time and chance."""

    now: Callable[[], float]  # seconds since the epoch
    monotonic: Callable[[], float]
    random: Callable[[], float]  # 0 to 1


class Link:
    """Every request's way to the server."""

    def __init__(self, login: "Login", clock: Clock) -> None:
        self.login = login
        self.clock = clock

    def exchange(self, request: Request) -> Flow[Response]:
        """The answer. Raises HttpException for one of 400 or above, TransportError when none comes, NotLoggedIn."""
        token = (yield from self.login.bearer()) if request.authorized else None
        response = yield from attempts(request, token, self.clock)
        if response.status == 401 and token is not None:
            token = yield from self.login.another(token)
            if token is not None:
                response = yield from attempts(request, token, self.clock)
        return response.checked()


class Login:
    """The token of the requests: from the store, by its refresh token, by user and password, in this order."""

    def __init__(self, store: Store, clock: Clock, *, user: str = "", password: str | None = None) -> None:
        self.user = user
        self._password = password
        self._store = store
        self._clock = clock

    @property
    def tokens(self) -> Tokens | None:
        return self._store.load()

    def bearer(self) -> Flow[str | None]:
        """A token that is worth sending; None where there is none and none is to be had: the server may not want one.

        Raises NotLoggedIn when the one there is has expired.
        """
        tokens = self._store.load()
        if tokens is None and self._password is None:
            return None
        if tokens is not None and tokens.fresh_at(self._clock.now()):
            return tokens.access
        token: str | None = yield Exclusively(self._renewed(None))
        if token is None:
            raise NotLoggedIn("the access token has expired and can not be renewed: log in again")
        return token

    def another(self, refused: str) -> Flow[str | None]:
        """A token in place of one that the server refused; None when there is none."""
        token: str | None = yield Exclusively(self._renewed(refused))
        return token

    def log_in(self) -> Flow[Tokens]:
        """By user and password. Raises Unauthorized, TooManyRequests, NotLoggedIn."""
        if self._password is None:
            raise NotLoggedIn("there is no password: give user and password")
        body = {"username": self.user, "password": self._password}
        request = post_json("/login", body, authorized=False)
        response = yield from attempts(request, None, self._clock)
        return self._kept(response.checked(), None)

    def log_out(self) -> Flow[None]:
        """The refresh token is of no use any more; the access token until it expires."""
        with (yield from self._locked()):
            tokens = self._store.load()
            self._store.save(None)
        if tokens is not None and tokens.refresh:
            request = Request(
                "DELETE", "/login/refreshToken", {"refreshToken": tokens.refresh}, authorized=False, gone_is_done=True
            )
            response = yield from attempts(request, tokens.access, self._clock)
            response.checked()

    def _renewed(self, refused: str | None) -> Flow[str | None]:
        with (yield from self._locked()):
            tokens = self._store.load()
            if tokens is not None and tokens.access != refused and tokens.fresh_at(self._clock.now()):
                return tokens.access  # somebody else has renewed it meanwhile
            if tokens is not None and tokens.refresh:
                renewed = yield from self._refreshed(tokens)
                if renewed is not None:
                    return renewed.access
            if self._password is None:
                return None
            return (yield from self.log_in()).access

    def _locked(self) -> Flow[AbstractContextManager[object]]:
        while (lock := self._store.try_lock()) is None:
            yield Sleep(_LOCK_PAUSE_SECONDS)
        return lock

    def _refreshed(self, tokens: Tokens) -> Flow[Tokens | None]:
        request = post_json("/login/refreshToken", {"refreshToken": tokens.refresh}, authorized=False)
        response = yield from attempts(request, None, self._clock)
        if response.status in _REFUSED:
            return None
        return self._kept(response.checked(), tokens)

    def _kept(self, response: Response, previous: Tokens | None) -> Tokens:
        tokens = Tokens.parse(response.json(), self._clock.now(), previous)
        self._store.save(tokens)
        return tokens


def attempts(request: Request, token: str | None, clock: Clock) -> Flow[Response]:
    """The first answer that counts, whatever its status. Raises TransportError when there is none."""
    unsure = False  # whether the server may have done it already
    patience = _PATIENCE_SECONDS
    for attempt in range(1, _ATTEMPTS + 1):
        pause: float | None
        try:
            response: Response = yield Send(request, token)
        except TransportError as error:
            unsure = unsure or isinstance(error, AnswerTimeout)
            if attempt == _ATTEMPTS or not _worth_another(request, error):
                raise
            pause = _pause(attempt, clock)
        else:
            if response.status == 404 and unsure and request.gone_is_done:
                return replace(response, status=200, reason="OK")
            unsure = unsure or response.status in _PASSING
            pause = _pause_after(request, response, attempt, clock)
            if pause is None or attempt == _ATTEMPTS or pause > patience:
                return response
            patience -= pause
        yield Sleep(pause)
    raise AssertionError("the last attempt returns or raises")  # pragma: no cover


def _worth_another(request: Request, error: TransportError) -> bool:
    return request.repeat is Repeat.IDEMPOTENT or not isinstance(error, AnswerTimeout)


def _pause_after(request: Request, response: Response, attempt: int, clock: Clock) -> float | None:
    """Seconds until the request is sent again; None: this answer counts."""
    if request.repeat is Repeat.UNCONNECTED:
        return None
    if response.status in _BUSY:
        asked = response.headers.get("retry-after", "").strip()
        if asked.isdecimal():
            return float(asked) * (1 + clock.random() / 2)
        return _pause(attempt, clock) if request.repeat is Repeat.IDEMPOTENT else None
    if response.status == 404 and request.fresh:
        return _pause(attempt, clock)
    if response.status in _PASSING and request.repeat is Repeat.IDEMPOTENT:
        return _pause(attempt, clock)
    return None


def _pause(attempt: int, clock: Clock) -> float:
    longest = min(_FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1), _LONGEST_PAUSE_SECONDS)
    return longest * (0.5 + clock.random() / 2)
