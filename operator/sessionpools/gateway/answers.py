"""The answers that the gateway gives itself, as HAProxy's configuration wants them: JSON that says what is wrong with
what, and the remedy. Used by config.py and its parts.

Each has the members by which clients of the REST API read what went wrong: `message`, `link`, `exceptionType`. The
answer to a call has, before them, those of a session's answer to a call that failed.

Messages are HAProxy format strings inside single quotes: no apostrophes in them, and a plain percent sign is `%%`.
"""

from __future__ import annotations

from typing import Final

__all__ = ["POOL", "SERVICE", "answer", "error_page", "reply", "rest_answer", "rest_page"]

_CALL: Final = (
    '"success": false, "errorMessage": "%s", "outputParameters": {}, "consoleOutput": "", '
    '"changedFiles": [], "outputFiles": {}'
)
_REST: Final = '"message": "%s", "link": "/docs", "exceptionType": "%s"'

POOL: Final = "%[var(txn.pool)]"  # "<namespace>/<SessionPool>"
SERVICE: Final = "web service %[var(txn.service)] version %[var(txn.version)] in namespace %[var(txn.namespace)]"


def answer(status: int, kind: str, message: str, condition: str, *headers: str) -> str:
    """The rule that answers a call to which `condition` ("if ..." or "unless ...") applies. `kind` is the
    exceptionType, as the web API has them."""
    return f"http-request return {reply(status, kind, message, *headers)} {condition}"


def error_page(status: int, kind: str, message: str, *headers: str) -> str:
    """What takes the place of HAProxy's own page, for a call."""
    return f"http-error {reply(status, kind, message, *headers)}"


def reply(status: int, kind: str, message: str, *headers: str) -> str:
    """The answer to a call, as rules and pages have it."""
    return _reply(status, f"{_CALL % message}, {_REST % (message, kind)}", headers)


def rest_answer(status: int, kind: str, message: str, condition: str) -> str:
    """As `answer`, for a request that is the web API's."""
    return f"http-request return {_reply(status, _REST % (message, kind))} {condition}"


def rest_page(status: int, kind: str, message: str, *headers: str) -> str:
    """As `error_page`, for a request that is the web API's."""
    return f"http-error {_reply(status, _REST % (message, kind), headers)}"


def _reply(status: int, members: str, headers: tuple[str, ...] = ()) -> str:
    if "'" in members:
        raise ValueError(f"an apostrophe would end the string: {members}")
    lines = "".join(f" hdr {header}" for header in headers)
    return f"status {status} content-type application/json lf-string '{{{members}}}'{lines}"
