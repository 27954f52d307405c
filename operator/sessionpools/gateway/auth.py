"""The rules by which HAProxy believes a caller's token, or does not. Pure text; used by frontend.py.

A token is a JSON Web Token that the web API has signed with RS256; its public keys are files that HAProxy reads when it
starts (keys.py). Nobody is asked while a call is on its way. These rules come before anything is looked up that a
caller asks for: without a token nobody learns which web services there are.

What HAProxy 2.8 leaves to its configuration, and what is done about it:

- The algorithm and the key are ours: `jwt_verify` is told both, and the token's own `alg` and `kid` only say whether it
  can be one of ours. HAProxy loads a key file that is named in a rule; that it could not, it does not say.
- Whatever can't be read (a claim of another type, or one that is not there) makes a condition false, with "!" before
  what it was to hold for or without. So a token is refused unless each condition holds. A time that is a text counts as
  the number in it, else as 0, which is long ago.
- `jwt_header_query` and `jwt_payload_query` decode a whole part for each member, and give nothing when asked for all of
  it: the parts are decoded once, as base64url.
- `http_auth_bearer` takes the first of several Authorization headers, and what comes before a comma: there must be one
  header, of the exact form.
- A variable keeps its value when what it is set to can't be read: what outlives a request (`sess.`) is set at the end,
  all of it at once.

To verify a signature is most of the work, so a connection remembers the header whose token it has verified last. A call
with the very same header needs nothing but a look at the clock: on a busy machine that takes HAProxy 15 µs of its
time where a token that is verified takes 93. HAProxy's keys are those that it started with: what was signed with a
known one stays so for this process.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sessionpools.gateway.answers import answer
from sessionpools.gateway.options import Tokens

__all__ = ["REASONS", "authentication"]

ROLES: Final = ("Owner", "Contributor", "Reader")  # each may call
LENGTH_AT_MOST: Final = 4096  # of a token, in characters; ours have about 700
# A token may come from a web API whose clock is ahead by so much. Its end is its end, for the web API as well.
AHEAD_SECONDS: Final = 60

_LOG_IN: Final = "log in again with POST /login"
# Why a token was refused, as the log line and the metrics say it: status, the web API's exceptionType, message.
_REFUSALS: Final = {
    "no-key": (
        503,
        "KeysUnavailable",
        "the gateway has no key yet to verify tokens with: is the web API running? Try again later",
    ),
    "missing": (
        401,
        "Malformed",
        "this call needs an access token: send Authorization: Bearer TOKEN, with the one of POST /login",
    ),
    "malformed": (401, "Malformed", f"the Authorization header is not one Bearer token of ours: {_LOG_IN}"),
    "algorithm": (401, "Forged", f"the access token is not signed with RS256, so it is not one of ours: {_LOG_IN}"),
    "unknown-key": (
        401,
        "UnknownKey",
        f"the access token was signed with a key that is not known, or no longer: {_LOG_IN}",
    ),
    "forged": (401, "Forged", f"the signature of the access token is wrong: {_LOG_IN}"),
    "issuer": (401, "WrongIssuer", f"the access token was issued by someone else: {_LOG_IN}"),
    "audience": (401, "WrongAudience", f"the access token was issued for something else: {_LOG_IN}"),
    "not-yet": (401, "NotYet", "the access token is of a time that is yet to come: are all clocks right?"),
    "expired": (401, "Expired", f"the access token has expired: POST /login/refreshToken, or {_LOG_IN}"),
    "role": (
        403,
        "Denied",
        f"the role of this access token may not call web services: it takes one of {', '.join(ROLES)}",
    ),
}
REASONS: Final = tuple(_REFUSALS)

_HEADER: Final = "req.fhdr(authorization)"
_FORM: Final = r"^bearer +[a-z0-9_-]+\.[a-z0-9_-]+\.[a-z0-9_-]+$"
_NEW: Final = "!{ var(txn.again) -m found }"
# User names are made of these (the web API sees to it); the log line takes nothing else.
_USER: Final = "^[A-Za-z0-9][A-Za-z0-9._@+-]{0,62}$"


def authentication(tokens: Tokens, key_files: Iterable[tuple[str, Path]]) -> list[str]:
    """The rules of the frontend that let a call pass with a token of ours, and with no other. They set txn.user, and
    txn.refused for what they answer themselves. `key_files`: by kid, which has letters, digits, "_" and "-" alone."""
    keys = dict(key_files)
    if not keys:
        return _refuse("no-key", "", "Retry-After 5")
    return [
        *_refuse("missing", f"if !{{ {_HEADER} -m found }}"),
        *_refuse("malformed", "if { req.fhdr_cnt(authorization) gt 1 }"),
        f"http-request set-var(txn.again) bool(true) if {{ {_HEADER},strcmp(sess.authorization) eq 0 }}",
        *_refuse("malformed", f"if {_NEW} !{{ {_HEADER} -m reg -i '{_FORM}' }}"),
        *_refuse("malformed", f"if {_NEW} {{ {_HEADER},length gt {LENGTH_AT_MOST} }}"),
        *_signature(keys),
        *_claims(tokens),
        f"http-request set-var(sess.authorization) {_HEADER} if {_NEW}",
        f"http-request set-var(sess.exp) var(txn.exp) if {_NEW}",
        f"http-request set-var(sess.sub) var(txn.sub) if {_NEW}",
        f"http-request set-var(txn.user) var(sess.sub) if {{ var(sess.sub) -m reg {_USER} }}",
    ]


def _signature(keys: dict[str, Path]) -> list[str]:
    return [
        *_set("jwt", "http_auth_bearer"),
        *_set("head", "var(txn.jwt),field(1,.),ub64dec"),
        *_set("alg", "var(txn.head),json_query('$.alg')"),
        *_refuse("algorithm", f"if {_NEW} !{{ var(txn.alg) -m str RS256 }}"),
        *_set("kid", "var(txn.head),json_query('$.kid')"),
        *_refuse("unknown-key", f"if {_NEW} !{{ var(txn.kid) -m str -- {' '.join(keys)} }}"),
        *(
            f"http-request set-var(txn.signed) var(txn.jwt),jwt_verify(RS256,{file}) "
            f"if {_NEW} {{ var(txn.kid) -m str -- {kid} }}"
            for kid, file in keys.items()
        ),
        *_refuse("forged", f"if {_NEW} !{{ var(txn.signed) -m int eq 1 }}"),  # below 0: it could not be verified
    ]


def _claims(tokens: Tokens) -> list[str]:
    """Of a token whose signature is right."""
    claim = "var(txn.claims),json_query('$.{}')".format
    number = "var(txn.claims),json_query('$.{}','int')".format
    return [
        *_set("claims", "var(txn.jwt),field(2,.),ub64dec"),
        *_refuse("issuer", f"if {_NEW} !{{ {claim('iss')} -m str -- {tokens.issuer} }}"),
        *_refuse("audience", f"if {_NEW} !{{ {claim('aud')} -m str -- {tokens.audience} }}"),
        *_refuse("role", f"if {_NEW} !{{ {claim('role')} -m str {' '.join(ROLES)} }}"),
        *_set("sub", claim("sub")),
        *_refuse("malformed", f"if {_NEW} !{{ var(txn.sub),length gt 0 }}"),
        *_set("iat", number("iat")),
        *_set("nbf", number("nbf")),
        *(
            rule
            for name in ("iat", "nbf")
            for rule in _refuse(
                "not-yet",
                f"if {_NEW} {{ var(txn.{name}) -m found }} !{{ date({AHEAD_SECONDS}),sub(txn.{name}) ge 0 }}",
            )
        ),
        *_set("exp", number("exp")),
        "http-request set-var(txn.exp) var(sess.exp) if { var(txn.again) -m found }",
        *_refuse("expired", "if !{ date,sub(txn.exp) lt 0 }"),
    ]


def _set(name: str, expression: str) -> list[str]:
    return [f"http-request set-var(txn.{name}) {expression} if {_NEW}"]


def _refuse(reason: str, condition: str, *headers: str) -> list[str]:
    status, kind, message = _REFUSALS[reason]
    if status != 503:
        asked = 'Bearer realm="session-pools"'
        if reason != "missing":  # RFC 6750, section 3: an error only where there was a token
            error = "invalid_token" if status == 401 else "insufficient_scope"
            asked += f', error="{error}", error_description="{message}"'
        headers = (f"WWW-Authenticate '{asked}'",)
    return [
        f"http-request set-var(txn.refused) str({reason}) {condition}".rstrip(),
        answer(status, kind, message, "if { var(txn.refused) -m found }", *headers),
    ]
