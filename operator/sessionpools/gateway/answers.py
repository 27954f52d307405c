"""The answers that the gateway gives itself, as HAProxy's configuration wants them: JSON as a session's own failures
are, naming the pool, the reason and the remedy. Used by config.py.

Messages are HAProxy format strings inside single quotes: no apostrophes in them, and a plain percent sign is `%%`.
"""

from __future__ import annotations

from typing import Final

__all__ = ["POOL", "SERVICE", "answer", "error_page", "reply"]

_JSON: Final = (
    '{"success": false, "errorMessage": "%s", "outputParameters": {}, "consoleOutput": "", '
    '"changedFiles": [], "outputFiles": {}}'
)

POOL: Final = "%[var(txn.pool)]"  # "<namespace>/<SessionPool>"
SERVICE: Final = "web service %[var(txn.service)] version %[var(txn.version)] in namespace %[var(txn.namespace)]"


def answer(status: int, message: str, condition: str, *headers: str) -> str:
    """The rule that answers a call to which `condition` ("if ..." or "unless ...") applies."""
    return f"http-request return {reply(status, message, *headers)} {condition}"


def error_page(status: int, message: str, *headers: str) -> str:
    """What takes the place of HAProxy's own page."""
    return f"http-error {reply(status, message, *headers)}"


def reply(status: int, message: str, *headers: str) -> str:
    if "'" in message:
        raise ValueError(f"an apostrophe would end the string: {message}")
    lines = "".join(f" hdr {header}" for header in headers)
    return f"status {status} content-type application/json lf-string '{_JSON % message}'{lines}"
