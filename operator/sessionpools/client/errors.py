"""Everything that the client raises, as one tree:

    SessionPoolsError
    ├── InputInvalid (also ValueError)   what was asked can not be sent; nothing was
    ├── NotLoggedIn                      there is no token, and no way to get one
    ├── TransportError                   no answer came
    │   ├── ConnectionFailed             nobody listens, or the connection could not be made: nothing was done
    │   └── AnswerTimeout                no answer in time, or the connection broke: it may have been done
    ├── HttpException                    an answer of 400 or above: .status .reason .body .headers
    │   ├── BadRequest                   400
    │   ├── Unauthorized                 401
    │   ├── Forbidden                    403
    │   ├── NotFound                     404
    │   ├── Conflict                     409
    │   ├── TooManyRequests              429
    │   └── ServerError                  500 and above
    │       └── Unavailable              503
    ├── AnswerInvalid                    an answer that is not what the REST API says
    ├── CallFailed                       the service's code raised: .result
    ├── PoolStalled                      a pool makes no progress without a change by somebody: .status
    └── WaitTimeout (also TimeoutError)  what was waited for has not come: .last

Messages are one line, and name the object, what is wrong and, where there is one, the remedy.
"""

# ruff: noqa: N818  (named after what happened, as the old client named HttpException)

import json
from collections.abc import Mapping
from typing import Any, Final

__all__ = [
    "AnswerInvalid",
    "AnswerTimeout",
    "BadRequest",
    "CallFailed",
    "Conflict",
    "ConnectionFailed",
    "Forbidden",
    "HttpException",
    "InputInvalid",
    "NotFound",
    "NotLoggedIn",
    "PoolStalled",
    "ServerError",
    "SessionPoolsError",
    "TooManyRequests",
    "TransportError",
    "Unauthorized",
    "Unavailable",
    "WaitTimeout",
    "http_exception",
]

_BODY_CHARACTERS: Final = 300  # of a body that is no error of the API, such as a proxy's page


class SessionPoolsError(Exception):
    """The root of the tree."""


class InputInvalid(SessionPoolsError, ValueError):
    """What was asked can not be sent; nothing was."""


class NotLoggedIn(SessionPoolsError):
    """There is no token, or it has expired, and no way to get another one."""


class TransportError(SessionPoolsError):
    """No answer came."""


class ConnectionFailed(TransportError):
    """The connection could not be made: the server has seen nothing of the request."""


class AnswerTimeout(TransportError):
    """No answer came in time, or the connection broke before it did: the server may have done what was asked."""


class AnswerInvalid(SessionPoolsError):
    """The answer is not what the REST API says: another server, or a proxy's page."""


class HttpException(SessionPoolsError):
    """An answer of 400 or above. The fields are those of azureml-model-management-sdk.

    - status: the HTTP status
    - reason: its phrase, such as `Not Found`
    - body: the body as text; of the API's errors JSON with message, link and exceptionType
    - headers: of the answer; names as they were sent
    """

    def __init__(
        self,
        status: int,
        reason: str = "",
        body: str = "",
        headers: Mapping[str, str] | None = None,
        *,
        request: str = "",
    ) -> None:
        self.status = status
        self.reason = reason
        self.body = body
        self.headers: Mapping[str, str] = headers or {}
        self.request = request  # such as `GET /services`
        super().__init__(status, reason, body)

    @property
    def message(self) -> str:
        """What the server says, or the beginning of a body that is no error of the API."""
        found = self._fields()
        for name in ("message", "errorMessage", "Message"):
            if isinstance(found.get(name), str) and found[name]:
                return str(found[name])
        text = " ".join(self.body.split())
        return text if len(text) <= _BODY_CHARACTERS else f"{text[:_BODY_CHARACTERS]}..."

    @property
    def exception_type(self) -> str:
        """The server's word for the kind of error; empty where it gives none."""
        return str(self._fields().get("exceptionType") or "")

    @property
    def request_id(self) -> str:
        """Of the request, by which the logs of gateway and session find it; empty where the server gives none."""
        return self._header("x-request-id")

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the server wants to be asked again; None where it does not say."""
        text = self._header("retry-after").strip()
        return float(text) if text.isdecimal() else None

    def __str__(self) -> str:
        parts = (self.request, f"{self.status} {self.reason}".strip(), self.message)
        return ": ".join(part for part in parts if part)

    def _fields(self) -> dict[str, Any]:
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _header(self, name: str) -> str:
        return next((value for key, value in self.headers.items() if key.lower() == name), "")


class BadRequest(HttpException):
    """400: the message names the field."""


class Unauthorized(HttpException):
    """401: no token, a wrong one, or a wrong password."""


class Forbidden(HttpException):
    """403: the user's role, or that the object is somebody else's."""


class NotFound(HttpException):
    """404."""


class Conflict(HttpException):
    """409: it exists already, has changed meanwhile, or something else manages it."""


class TooManyRequests(HttpException):
    """429: a pool and its queue are full, or too many logins failed. `retry_after` says when to try again."""


class ServerError(HttpException):
    """500 and above; 502: the session died while it ran the call; 504: the call took too long."""


class Unavailable(ServerError):
    """503: no session is ready, or none became free in time. `retry_after` says when to try again, if it helps."""


class CallFailed(SessionPoolsError):
    """The service's code raised, or did not give its outputs. `result` has what it printed until then."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


class PoolStalled(SessionPoolsError):
    """The pool makes no progress without a change by somebody; the message is the pool's own. `status` is its last."""

    def __init__(self, message: str, status: Any) -> None:
        super().__init__(message)
        self.status = status


class WaitTimeout(SessionPoolsError, TimeoutError):
    """What was waited for has not come within the time given. `last` is what was seen last."""

    def __init__(self, message: str, last: Any) -> None:
        super().__init__(message)
        self.last = last


_BY_STATUS: Final[Mapping[int, type[HttpException]]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: TooManyRequests,
    503: Unavailable,
}


def http_exception(
    status: int, reason: str, body: str, headers: Mapping[str, str], *, request: str = ""
) -> HttpException:
    """The exception for an answer of this status."""
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else HttpException)
    return kind(status, reason, body, headers, request=request)
