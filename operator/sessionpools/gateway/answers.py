"""The answers that the gateway gives itself, as HAProxy's configuration wants them: JSON that says what is wrong with
what, and the remedy. Used by config.py and its parts.

Two forms. A call is answered as a session answers one that failed; a request for the web API as that answers an error
(`message`, `link`, `exceptionType`). A call that is refused for its token gets the members of both, as clients of the
REST API look for theirs in every 401 and 403.

Messages are HAProxy format strings inside single quotes: no apostrophes in them, and a plain percent sign is `%%`.
"""

from __future__ import annotations

from typing import Final

__all__ = ["POOL", "SERVICE", "answer", "error_page", "refusal", "reply", "rest_answer", "rest_page"]

_CALL: Final = (
    '"success": false, "errorMessage": "%s", "outputParameters": {}, "consoleOutput": "", '
    '"changedFiles": [], "outputFiles": {}'
)
_REST: Final = '"message": "%s", "link": "/docs", "exceptionType": "%s"'

POOL: Final = "%[var(txn.pool)]"  # "<namespace>/<SessionPool>"
SERVICE: Final = "web service %[var(txn.service)] version %[var(txn.version)] in namespace %[var(txn.namespace)]"


def answer(status: int, message: str, condition: str, *headers: str) -> str:
    """The rule that answers a call to which `condition` ("if ..." or "unless ...") applies."""
    return f"http-request return {reply(status, message, *headers)} {condition}"


def error_page(status: int, message: str, *headers: str) -> str:
    """What takes the place of HAProxy's own page."""
    return f"http-error {reply(status, message, *headers)}"


def reply(status: int, message: str, *headers: str) -> str:
    return _reply(status, _CALL % message, headers)


def refusal(status: int, kind: str, message: str, condition: str, *headers: str) -> str:
    """As `answer`, with both forms' members. `kind` is the exceptionType, as the web API has them."""
    return f"http-request return {_reply(status, f'{_CALL % message}, {_REST % (message, kind)}', headers)} {condition}"


def rest_answer(status: int, kind: str, message: str, condition: str) -> str:
    """As `answer`, in the web API's form."""
    return f"http-request return {_reply(status, _REST % (message, kind))} {condition}"


def rest_page(status: int, kind: str, message: str, *headers: str) -> str:
    """As `error_page`, in the web API's form."""
    return f"http-error {_reply(status, _REST % (message, kind), headers)}"


def _reply(status: int, members: str, headers: tuple[str, ...] = ()) -> str:
    if "'" in members:
        raise ValueError(f"an apostrophe would end the string: {members}")
    lines = "".join(f" hdr {header}" for header in headers)
    return f"status {status} content-type application/json lf-string '{{{members}}}'{lines}"
