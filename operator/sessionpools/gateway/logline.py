"""The log line: one JSON object per request, to stdout and to the ring that the agent reads, and its outcome.

Without a session a call waited `heldMs` in hold.lua and then `queueMs` in the queue (HAProxy's Tw; -1 when it never
came there): the reader adds the two. `serviceMs` is the session's own Server-Timing, 0 when it sent none; `responseMs`
the time until the head of its answer came (Tr, -1: none came); `end` HAProxy's termination state. HAProxy 2.8 knows
that state only when it writes the line, not in its rules. So `outcome` is exact but for two cases, which the reader
(requests.py) has to correct:
    end[1] is "D" (in the middle of an answer) and end[0] is "C" or "c": client-gone; "S" or "s": died
    `pool` is "" and `status` 400, 408, 500 or 501: invalid: not a request, or not all of it came, before any rule ran
    (unless the web API has answered so)

`principal` is the user of a token that was verified; `tokenRefused` why one was not (auth.REASONS), else "".

Pure text. Used by frontend.py.
"""

from __future__ import annotations

from typing import Final

from sessionpools.gateway.webapi import IS_WEB

__all__ = ["MOVED", "log_format", "outcome_rules"]

MOVED: Final = "{ var(txn.reason) -m str moved }"  # by hold.lua


def log_format() -> str:
    """HAProxy's log-format of the line. Its members come in the order that requests.py expects."""
    milliseconds = "".join(f"%[date(0,ms),div({unit}),mod(10)]" for unit in (100, 10, 1))
    names = "".join(f'"{name}":"%[var(txn.{name},)]",' for name in ("namespace", "service", "version", "pool"))
    held, service = _number("held_ms"), _number("service_ms")
    outcome = 'str(client-gone),concat(,txn.outcome),regsub("^client-gone(?=.)",)'
    return (
        f'%{{-M}}o{{"time":"%[date,utime(%Y-%m-%dT%H:%M:%S)].{milliseconds}Z","requestId":"%[var(txn.id,)]",'
        f'"principal":"%[var(txn.user,)]","tokenRefused":"%[var(txn.refused,)]","heldMs":%[{held}],{names}'
        f'"node":"%[var(txn.node,)]","session":"%[var(txn.session,)]",'
        f'"queueMs":%Tw,"serviceMs":%[{service}],"responseMs":%Tr,"status":%ST,'
        f'"outcome":"%[{outcome}]","end":"%ts"}}'
    )


def outcome_rules() -> list[str]:
    """For every answer, HAProxy's own ones included: who answered, and the outcome where no rule has said it."""
    unsaid = "!{ var(txn.outcome) -m found }"
    return [
        f"http-response set-var(txn.outcome) str(web) if {IS_WEB}",
        f"http-response set-var(txn.outcome) str(ok) if {unsaid} {{ status lt 300 }}",
        f"http-response set-var(txn.outcome) str(refused) if {unsaid}",
        "http-response set-var(txn.service_ms) res.fhdr(server-timing),field(2,=) "
        "if { res.fhdr(server-timing) -m reg ^session;dur=[0-9]{1,12}\\.[0-9]{1,6}$ }",
        # No other process listens: the gateway ends.
        f"http-after-response set-log-level info if {unsaid} {MOVED}",
        f"http-after-response set-var(txn.outcome) str(web-away) if {unsaid} {IS_WEB} {{ status ge 500 }}",
        f"http-after-response set-var(txn.outcome) str(unauthorized) if {unsaid} {{ var(txn.refused) -m found }}",
        f"http-after-response set-var(txn.outcome) str(no-session) if {unsaid} {MOVED}",
        "http-after-response set-var(txn.node) srv_name,field(1,:)",
        "http-after-response set-var(txn.session) srv_name,field(2,:,0)",
        f"http-after-response set-var(txn.outcome) str(died) if {unsaid} {{ status 502 }}",
        f"http-after-response set-var(txn.outcome) str(timeout) if {unsaid} {{ status 504 }}",
        f"http-after-response set-var(txn.outcome) str(queue-full) if {unsaid} {{ status 429 }}",
        f"http-after-response set-var(txn.outcome) str(unknown) if {unsaid} {{ status 404 }}",
        f"http-after-response set-var(txn.outcome) str(no-pool) if {unsaid} {{ var(txn.backend) -m str -- - }}",
        f"http-after-response set-var(txn.outcome) var(txn.reason) if {unsaid} {{ status 503 }}",  # of hold.lua
        f"http-after-response set-var(txn.outcome) str(no-session) if {unsaid} {{ status 503 }} {{ srv_id gt 0 }}",
        f"http-after-response set-var(txn.outcome) str(queue-timeout) if {unsaid} {{ status 503 }}",
        f"http-after-response set-var(txn.outcome) str(invalid) if {unsaid} !{{ var(txn.request_ms) -m found }}",
    ]


def _number(name: str) -> str:
    """A variable or 0; also for what ended before there was a stream, where a default of `var` does not count."""
    return f'str(0),concat(,txn.{name}),regsub("^0\\\\B",)'
