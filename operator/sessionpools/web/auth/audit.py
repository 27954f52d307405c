"""The audit log: a line for each login and each change, done, refused or failed: who, what, from where, how it ended.

The lines are of the logger `sessionpools.audit`, and come whatever the log level is. An entry has no field for a
password or a token, and a name that nobody has is not written down either: it may be a password in the wrong field.
"""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sessionpools.web.auth.identity import Principal

__all__ = ["Caller", "Outcome", "record", "source_address"]

_log: Final = logging.getLogger("sessionpools.audit")
_log.setLevel(logging.INFO)

_TEXT_AT_MOST: Final = 256  # characters of what callers choose freely


class Outcome(StrEnum):
    DONE = "done"
    REFUSED = "refused"  # we said no: 4xx
    FAILED = "failed"  # we could not: 5xx


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request comes from."""

    address: str
    request_id: str = ""


def record(
    caller: Caller,
    principal: Principal | None,
    verb: str,
    kind: str,
    name: str = "",
    version: str = "",
    *,
    outcome: Outcome,
    reason: str = "",
) -> None:
    """Write one line. `verb` and `kind` as in "delete" "Service"; `reason` says why where it was not done."""
    fields = {
        "user": principal.name if principal else "",
        "role": principal.role.value if principal else "",
        "verb": verb,
        "kind": kind,
        "object": name[:_TEXT_AT_MOST],  # `name` is the logger's
        "version": version[:_TEXT_AT_MOST],
        "outcome": outcome.value,
        "reason": reason[:_TEXT_AT_MOST],
        "from": caller.address,
        "requestId": caller.request_id[:_TEXT_AT_MOST],
    }
    _log.info("audit", extra=fields)


def source_address(peer: str, forwarded_for: str | None, *, by_gateway: bool) -> str:
    """The address that a request comes from: `peer`, who has connected, or whom the gateway says it speaks for.

    Of X-Forwarded-For the last entry counts, which the gateway has added; those before it, and the header of anybody
    but the gateway, are the caller's own word."""
    if not by_gateway or not forwarded_for:
        return peer
    last = forwarded_for.rpartition(",")[2].strip()
    try:
        return str(ipaddress.ip_address(last))
    except ValueError:
        return peer
