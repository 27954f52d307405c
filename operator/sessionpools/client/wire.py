"""Requests and answers as plain data: what is sent and what came, without a connection.

The flows (flows/) make requests and read answers; the drivers (drive.py) send them. Nothing here does I/O.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final
from urllib.parse import quote, urlsplit

from sessionpools.client.errors import AnswerInvalid, InputInvalid, http_exception

__all__ = ["Repeat", "Request", "Response", "Timeout", "base_url", "path_of", "post_json"]

CONNECT_SECONDS: Final = 5.0  # a gateway that does not accept for so long is not there
ANSWER_SECONDS: Final = 30.0  # of everything that is no call: the web API itself waits for nothing
CALL_SECONDS: Final = 300.0  # of calls, which the pool's requestTimeoutSeconds ends earlier unless it is raised
UPLOAD_SECONDS: Final = 300.0  # of publishing: models have gigabytes


@dataclass(frozen=True, slots=True)
class Timeout:
    """Seconds. `answer` is the longest pause between two bytes, while sending and while the answer is awaited."""

    connect: float = CONNECT_SECONDS
    answer: float = ANSWER_SECONDS


class Repeat(Enum):
    """When a request may be sent again."""

    IDEMPOTENT = "whenever no answer came, and for 429, 502, 503 and 504: done twice is done once"
    UNSEEN = "when the server has not begun with it: no connection, and 429 or 503 with Retry-After"
    UNCONNECTED = "when there was no connection: each answer counts"


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be sent. `path` is percent-encoded and begins with a slash."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    content_type: str = ""
    repeat: Repeat = Repeat.IDEMPOTENT
    timeout: Timeout = field(default_factory=Timeout)
    authorized: bool = True
    gone_is_done: bool = False  # a deletion: 404 to a repetition means that the first attempt did it
    fresh: bool = (
        False  # about what was just written: 404 may come from a replica that has not heard of it, so ask again
    )

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Response:
    """What came. Header names are in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    request: Request

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body. Raises AnswerInvalid when it is no JSON: another server, or a proxy's page."""
        try:
            return json.loads(self.body)
        except ValueError:
            kind = self.headers.get("content-type", "no content type")
            raise AnswerInvalid(
                f"{self.request}: answered {self.status} with {kind} instead of JSON: is this the address of Session "
                "Pools?"
            ) from None

    def checked(self) -> "Response":
        """This answer. Raises HttpException when it is one of 400 or above."""
        if self.status < 400:
            return self
        raise http_exception(self.status, self.reason, self.text, self.headers, request=str(self.request))


def path_of(*segments: str) -> str:
    """The path of these segments, percent-encoded. Raises InputInvalid for one that no path can carry."""
    for segment in segments:
        if not segment or "/" in segment or segment in (".", "..") or any(ord(char) < 32 for char in segment):
            raise InputInvalid(f"{segment!r} is no name: give one without /, control characters, and not . or ..")
    return "/" + "/".join(quote(segment, safe="") for segment in segments)


def post_json(path: str, body: Any, **fields: Any) -> Request:
    """A POST of JSON, repeated only where there was no connection, unless `repeat` says otherwise."""
    return with_json("POST", path, body, **{"repeat": Repeat.UNCONNECTED, **fields})


def with_json(method: str, path: str, body: Any, **fields: Any) -> Request:
    try:
        content = json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InputInvalid(f"{method} {path}: the body has no JSON form: {error}") from None
    return Request(method, path, body=content, content_type="application/json", **fields)


def base_url(text: str) -> str:
    """The server's address without a slash at its end. Raises InputInvalid for what is none."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputInvalid(f"{text!r} is no address of a server: give one such as http://localhost:12800")
    if parts.username or parts.password:
        raise InputInvalid("the address contains credentials: give them as user and password, addresses get logged")
    if parts.query or parts.fragment:
        raise InputInvalid(f"{text!r}: an address has no ? and no #: give one such as http://localhost:12800")
    return text.rstrip("/")
