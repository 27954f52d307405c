"""HTTP with `requests`, whose answers callers of the old client know; repetitions, timeouts and tokens are those of
sessionpools.client.exchange.
"""

import json as jsonlib
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import requests
from requests.adapters import BaseAdapter

from sessionpools.client.drive import CLOCK
from sessionpools.client.errors import (
    AnswerTimeout,
    ConnectionFailed,
    HttpException,
    SessionPoolsError,
    TransportError,
)
from sessionpools.client.exchange import Effect, Exclusively, Flow, Link, Login, Send, Sleep
from sessionpools.client.tokens import InMemory, Tokens
from sessionpools.client.wire import CALL_SECONDS, CONNECT_SECONDS, UPLOAD_SECONDS, Repeat, Request, Response, Timeout
from sessionpools_azureml.common.configuration import Configuration

__all__ = ["HttpClient", "HttpException"]

T = TypeVar("T")

_JSON: Final = "application/json"
_MICROSOFTS: Final = "azureml.common.http_client"
_REPEATED: Final = ("GET", "HEAD", "PUT", "DELETE")


@dataclass(frozen=True, slots=True)
class _Answer(Response):
    raw: requests.Response


class HttpClient:
    """Requests to one server, with paths such as /services.

    Every answer of 400 or above is raised as HttpException. Where no answer comes, the exception of `requests` is
    raised (ConnectionError, Timeout), as the old client did.
    """

    def __init__(self, host: str | None = None, access_token: str | None = None) -> None:
        config = Configuration()
        self.host = (host or config.host).rstrip("/")
        self._session = requests.Session()
        self._session.headers.update({"Accept": _JSON, "Content-Type": _JSON, "User-Agent": "session-pools-azureml"})
        self._session.verify = config.verify_ssl
        self._session.cert = config.cert
        self._session.proxies.update(config.proxies or {})
        self._lock = threading.Lock()
        self._link = self._link_with()
        if access_token is not None:
            self.authorization = access_token

    # --- headers and token

    @property
    def accept(self) -> str | None:
        return self.get_header("Accept")

    @property
    def content_type(self) -> str | None:
        return self.get_header("Content-Type")

    def get_header(self, name: str) -> str | None:
        value = self._session.headers.get(name)
        return value.decode() if isinstance(value, bytes) else value

    def set_header(self, name: str, value: str) -> None:
        """Of every request from now on."""
        self._session.headers[name] = value

    @property
    def authorization(self) -> str | None:
        """The header with the token, if there is one."""
        tokens = self._link.login.tokens
        return None if tokens is None else f"{Configuration().api_key_prefix} {tokens.access}"

    @authorization.setter
    def authorization(self, access_token: str | None) -> None:
        """A token that is used until it is refused."""
        self._link = self._link_with(None if access_token is None else Tokens(access_token))

    def log_in(self, user: str, password: str) -> None:
        """Get a token, and keep what it needs to be renewed. Raises HttpException."""
        link = Link(Login(InMemory(), CLOCK, user=user, password=password), CLOCK)
        self._run(link.login.log_in())
        self._link = link

    def mount(self, prefix: str, adapter: BaseAdapter) -> None:
        """Have requests to addresses with this prefix sent by an adapter of `requests`."""
        self._session.mount(prefix, adapter)

    def close(self) -> None:
        self._session.close()

    # --- requests

    def get(self, url: str, **kwargs: Any) -> requests.Response:
        return self.request("GET", url, **kwargs)

    def post(self, url: str, **kwargs: Any) -> requests.Response:
        return self.request("POST", url, **kwargs)

    def put(self, url: str, **kwargs: Any) -> requests.Response:
        return self.request("PUT", url, **kwargs)

    def patch(self, url: str, **kwargs: Any) -> requests.Response:
        return self.request("PATCH", url, **kwargs)

    def delete(self, url: str, **kwargs: Any) -> requests.Response:
        return self.request("DELETE", url, **kwargs)

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        data: bytes | str | None = None,
        content_type: str = "",
        repeat: Repeat | None = None,
        timeout: float | None = None,
        fresh: bool = False,
    ) -> requests.Response:
        """The answer of the server. `timeout` is in seconds, for the answer; `fresh`: about what was just written."""
        body = data.encode() if isinstance(data, str) else data or b""
        if json is not None:
            body = jsonlib.dumps(json, allow_nan=False).encode()
        path = url.removeprefix(self.host)
        usual = CALL_SECONDS if path.startswith("/api/") else UPLOAD_SECONDS
        request = Request(
            method,
            path,
            params=params or {},
            body=body,
            content_type=content_type or (_JSON if body else ""),
            repeat=repeat or (Repeat.IDEMPOTENT if method in _REPEATED else Repeat.UNSEEN),
            timeout=Timeout(CONNECT_SECONDS, timeout or usual),
            gone_is_done=method == "DELETE",
            fresh=fresh,
        )
        answer = self._run(self._link.exchange(request))
        assert isinstance(answer, _Answer)  # noqa: S101
        return answer.raw

    # --- how

    def _link_with(self, tokens: Tokens | None = None) -> Link:
        return Link(Login(InMemory(tokens), CLOCK), CLOCK)

    def _run(self, flow: Flow[T]) -> T:
        try:
            return self._carried_out(flow)
        except TransportError as error:
            raise error.__cause__ or error from None
        except HttpException as error:
            _be_microsofts_too(error)
            raise

    def _carried_out(self, flow: Flow[T]) -> T:
        value: Any = None
        error: SessionPoolsError | None = None
        try:
            while True:
                try:
                    effect = flow.send(value) if error is None else flow.throw(error)
                except StopIteration as end:
                    result: T = end.value
                    return result
                value = error = None
                try:
                    value = self._do(effect)
                except SessionPoolsError as raised:
                    error = raised
        finally:
            flow.close()

    def _do(self, effect: Effect) -> Any:
        match effect:
            case Send(request, token):
                return self._send(request, token)
            case Sleep(seconds):
                return time.sleep(seconds)
            case Exclusively(flow):
                with self._lock:
                    return self._carried_out(flow)

    def _send(self, request: Request, token: str | None) -> Response:
        headers: dict[str, str | None] = {"Content-Type": request.content_type or None}
        if token is not None:
            headers["Authorization"] = f"{Configuration().api_key_prefix} {token}"
        try:
            raw = self._session.request(
                request.method,
                self.host + request.path,
                params=dict(request.params),
                data=request.body or None,
                headers=headers,
                timeout=(request.timeout.connect, request.timeout.answer),
            )
        except requests.exceptions.ConnectTimeout as error:
            raise ConnectionFailed(f"{request}: no connection to {self.host}: {error}") from error
        except requests.exceptions.ConnectionError as error:
            kind = ConnectionFailed if _unconnected(error) else AnswerTimeout
            raise kind(f"{request}: {self.host}: {error}") from error
        except requests.exceptions.RequestException as error:
            raise AnswerTimeout(f"{request}: {self.host}: {error}") from error
        lower = {name.lower(): value for name, value in raw.headers.items()}
        return _Answer(raw.status_code, raw.reason or "", lower, raw.content or b"", request, raw)


def _unconnected(error: requests.exceptions.ConnectionError) -> bool:
    """Whether it was not even connected: requests tells it from a connection that broke by the cause alone."""
    import urllib3.exceptions

    cause = error.args[0] if error.args else None
    reason = getattr(cause, "reason", cause)
    return isinstance(reason, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)


def _be_microsofts_too(error: HttpException) -> None:
    """Where Microsoft's client is loaded beside this one, `except HttpException` of either catches it."""
    theirs = getattr(sys.modules.get(_MICROSOFTS), "HttpException", None)
    if isinstance(theirs, type) and theirs is not HttpException and not isinstance(error, theirs):
        error.__class__ = type(type(error).__name__, (type(error), theirs), {})
