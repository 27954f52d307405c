"""Which callers pass the gateway: tokens of every kind against the real HAProxy, in front of a real session."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Callable, Iterator
from socket import socket
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sessionpools.gateway.auth import LENGTH_AT_MOST, REASONS
from sessionpools.gateway.model import OpenSlot
from sessionpools.gateway.options import Tokens
from sessionpools.gateway.requests import RequestMetrics, listen
from support.gateway import SERVICE, Gateway, route, slots_of
from support.runtime_pod import Pod, Reply, eventually, free_ports
from support.tokens import GONE, bearer, content, key
from support.waiting import until
from unit.gateway.conftest import Start

CURRENT, NEXT, FOREIGN = key("current"), key("-next_1"), key("foreign")
CALL_MEMBERS = {"success", "errorMessage", "outputParameters", "consoleOutput", "changedFiles", "outputFiles"}
REST_MEMBERS = {"message", "link", "exceptionType"}
PATH = "/api/S/v1"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One web service with a session, one without a pool. Two keys are known."""
    pod = Pod(tmp_path_factory.mktemp("pods") / "pod", SERVICE).start().wait_ready()
    one = Gateway(route("S", slots_of(pod)), route("Orphan", pool="", pool_uid=""), keys=(CURRENT, NEXT))
    yield one.start()
    one.stop()
    pod.stop()


def refused(gateway: Gateway, reply: Reply, reason: str, status: int = 401) -> None:
    """In the form of a session's answers and of the web API's, with what RFC 6750 asks for, and so in the log."""
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/json"
    body = reply.json
    assert set(body) == CALL_MEMBERS | REST_MEMBERS
    assert body["success"] is False
    assert body["message"] == body["errorMessage"] != ""
    asked = reply.headers["www-authenticate"]
    if reason == "missing":
        assert asked == 'Bearer realm="session-pools"'
    else:
        error = {401: "invalid_token", 403: "insufficient_scope"}[status]
        assert asked.startswith(f'Bearer realm="session-pools", error="{error}", error_description="')
        assert body["message"] in asked
    line = gateway.line(reply.headers["x-request-id"])
    assert (line["tokenRefused"], line["outcome"], line["principal"]) == (reason, "unauthorized", "")
    assert (line["service"], line["pool"], line["session"]) == ("", "", "")


def passed(gateway: Gateway, reply: Reply, user: str = "ada") -> None:
    assert reply.status == 200, reply
    line = gateway.line(reply.headers["x-request-id"])
    assert (line["tokenRefused"], line["outcome"], line["principal"]) == ("", "ok", user)


def now() -> int:
    return int(time.time())


# --- tokens that are believed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR", "Bearer   "])
def test_a_token_of_ours_is_believed(gateway: Gateway, scheme: str) -> None:
    passed(gateway, gateway.call(PATH, headers={"Authorization": f"{scheme} {CURRENT.token()}"}))


def test_each_known_key_verifies(gateway: Gateway) -> None:
    passed(gateway, gateway.call(PATH, headers=bearer(NEXT.token(sub="grace"))), "grace")


@pytest.mark.parametrize("role", ["Owner", "Contributor", "Reader"])
def test_each_role_may_call(gateway: Gateway, role: str) -> None:
    passed(gateway, gateway.call(PATH, headers=bearer(CURRENT.token(role=role))))


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_clock_that_is_a_little_ahead_is_forgiven(gateway: Gateway, claim: str) -> None:
    ahead: dict[str, Any] = {claim: now() + 30}
    passed(gateway, gateway.call(PATH, headers=bearer(CURRENT.token(**ahead))))


def test_claims_and_members_of_the_header_that_nobody_knows_do_no_harm(gateway: Gateway) -> None:
    token = CURRENT.token(header={"x": {"alg": "none"}, "crit": "kid"}, scp=[1, {"exp": 0}], text='","exp":0,"a":"')
    passed(gateway, gateway.call(PATH, headers=bearer(token)))


@pytest.mark.parametrize("user", ["admin", "a", "Ada.Lovelace+1@example.com", "x" * 63])
def test_the_user_is_in_the_log_line(gateway: Gateway, user: str) -> None:
    passed(gateway, gateway.call(PATH, headers=bearer(CURRENT.token(sub=user))), user)


@pytest.mark.parametrize("user", ['a"b', "a\\b", "a\nb", "a b", "Jörg", "\u6f22", "x" * 300])
def test_a_user_of_another_form_can_not_break_the_log_line(gateway: Gateway, user: str) -> None:
    """Of our web API there are no such users. Each of these lines can be read, or `line` would not find it."""
    payload = json.dumps({**json.loads(content()), "sub": user}, ensure_ascii=False).encode()
    passed(gateway, gateway.call(PATH, headers=bearer(CURRENT.token_of(payload))), "")


def test_a_token_of_four_thousand_characters_is_no_trouble(gateway: Gateway) -> None:
    token = CURRENT.token(more="x" * 2500)
    assert LENGTH_AT_MOST - 400 < len(token) < LENGTH_AT_MOST
    passed(gateway, gateway.call(PATH, headers=bearer(token)))


def test_a_time_that_is_a_text_counts_as_the_number_in_it(gateway: Gateway) -> None:
    token = CURRENT.token(exp=str(now() + 60), nbf="long ago", iat=str(now()))
    passed(gateway, gateway.call(PATH, headers=bearer(token)))


# --- tokens that are not ----------------------------------------------------------------------------------------------


def test_without_a_token_the_answer_says_where_to_get_one(gateway: Gateway) -> None:
    reply = gateway.call(PATH)
    refused(gateway, reply, "missing")
    assert "POST /login" in reply.json["message"]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer a.b",
        "Bearer a.b.",
        "Bearer a.b.c.d",
        "Bearer a.b.c=",
        "Bearer a.b.c d",
        "Bearera.b.c",
        "Bear a.b.c",
        "B a.b.c",
        "Basic YWRtaW46c2VjcmV0",
        "Digest a.b.c",
        "TOKEN",
        "Bearer TOKEN, Bearer TOKEN",
        "Bearer TOKEN,x",
        "Basic x, Bearer TOKEN",
        "Bearer\tTOKEN",
    ],
)
def test_what_is_no_bearer_token_is_malformed(gateway: Gateway, header: str) -> None:
    header = header.replace("TOKEN", CURRENT.token())
    refused(gateway, gateway.call(PATH, headers={"Authorization": header}), "malformed")


@pytest.mark.parametrize("size", [8 << 10, 40 << 10])
def test_a_token_that_is_too_long_to_be_ours_is_malformed(gateway: Gateway, size: int) -> None:
    token = CURRENT.token(more="x" * size)
    refused(gateway, gateway.call(PATH, headers=bearer(token)), "malformed")


@pytest.mark.parametrize("others", [[], ["Bearer x"], ["Basic x"], [""]])
def test_of_two_authorization_headers_none_counts(gateway: Gateway, others: list[str]) -> None:
    good = f"Bearer {CURRENT.token()}"
    for headers in ([good, *(others or [good])], [*(others or [good]), good]):
        lines = b"".join(b"Authorization: %s\r\n" % each.encode() for each in headers)
        answer = gateway.raw(
            b"POST /api/S/v1 HTTP/1.1\r\nHost: s\r\nConnection: close\r\n%sContent-Length: 2\r\n\r\n{}" % lines
        )
        assert answer.startswith(b"HTTP/1.1 401 "), answer
        assert b"not one Bearer token" in answer


def tampered() -> str:
    """A Reader's token with an Owner's claims."""
    head, _, signature = CURRENT.token().split(".")
    return f"{head}.{FOREIGN.token(role='Owner').split('.')[1]}.{signature}"


# Made when the test runs, so that they are of that time, and have the same names in each process of a run.
@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (lambda: CURRENT.token(header={"alg": "none"}), "algorithm"),
        (lambda: CURRENT.token(header={"alg": "none"}).rpartition(".")[0] + ".", "malformed"),
        (lambda: CURRENT.token(header={"alg": "rs256"}), "algorithm"),
        (lambda: CURRENT.token(header={"alg": "RS384"}), "algorithm"),
        (lambda: CURRENT.token(header={"alg": GONE}), "algorithm"),
        (lambda: CURRENT.token(header={"alg": ["RS256"]}), "algorithm"),
        (lambda: CURRENT.confused_token(), "algorithm"),
        (lambda: CURRENT.confused_token(header={"alg": "RS256"}), "forged"),
        (lambda: FOREIGN.token(), "unknown-key"),
        (lambda: CURRENT.token(header={"kid": GONE}), "unknown-key"),
        (lambda: CURRENT.token(header={"kid": ""}), "unknown-key"),
        (lambda: CURRENT.token(header={"kid": 1}), "unknown-key"),
        (lambda: CURRENT.token(header={"kid": "../keys/current"}), "unknown-key"),
        (lambda: CURRENT.token(header={"kid": "current.pem"}), "unknown-key"),
        (lambda: CURRENT.token(header={"kid": "CURRENT"}), "unknown-key"),
        (lambda: CURRENT.token(header={"kid": "-next_1"}), "forged"),
        (lambda: FOREIGN.token(header={"kid": "current"}), "forged"),
        (lambda: FOREIGN.token(header={"kid": "current", "jwk": {"kty": "RSA"}, "jku": "http://here/"}), "forged"),
        (tampered, "forged"),
        (lambda: CURRENT.token()[:-8], "forged"),
        (lambda: CURRENT.token() + "AAAA", "forged"),
        (lambda: CURRENT.token().rpartition(".")[0] + ".AAAA", "forged"),
        (lambda: CURRENT.token(exp=now() - 1), "expired"),
        (lambda: CURRENT.token(exp=0), "expired"),
        (lambda: CURRENT.token(exp=-5), "expired"),
        (lambda: CURRENT.token(exp=GONE), "expired"),
        (lambda: CURRENT.token(exp=None), "expired"),
        (lambda: CURRENT.token(exp=True), "expired"),
        (lambda: CURRENT.token(exp="tomorrow"), "expired"),
        (lambda: CURRENT.token(exp={"$": now() + 3600}), "expired"),
        (lambda: CURRENT.token(exp=10**30), "expired"),
        (lambda: CURRENT.token(nbf=now() + 120), "not-yet"),
        (lambda: CURRENT.token(iat=now() + 120), "not-yet"),
        (lambda: CURRENT.token(exp=str(now() - 5)), "expired"),
        (lambda: CURRENT.token(nbf=str(now() + 120)), "not-yet"),
        (lambda: CURRENT.token(iss="someone"), "issuer"),
        (lambda: CURRENT.token(iss="session-pools "), "issuer"),
        (lambda: CURRENT.token(iss=["session-pools"]), "issuer"),
        (lambda: CURRENT.token(iss=GONE), "issuer"),
        (lambda: CURRENT.token_of(b"[]"), "issuer"),
        (lambda: CURRENT.token_of(b"not JSON"), "issuer"),
        (lambda: CURRENT.token(aud="others"), "audience"),
        (lambda: CURRENT.token(aud=GONE), "audience"),
        (lambda: CURRENT.token(aud=["others"]), "audience"),
        (lambda: CURRENT.token(aud=["session-pools"]), "audience"),
        (lambda: CURRENT.token(aud=["session-pools", "others"]), "audience"),
        (lambda: CURRENT.token(sub=GONE), "malformed"),
        (lambda: CURRENT.token(sub=""), "malformed"),
    ],
)
def test_a_token_that_is_not_good_is_refused(gateway: Gateway, token: Callable[[], str], reason: str) -> None:
    refused(gateway, gateway.call(PATH, headers=bearer(token())), reason)


@pytest.mark.parametrize("role", ["owner", "Guest", "", GONE, ["Owner"], None])
def test_a_token_without_a_role_that_may_call_is_forbidden(gateway: Gateway, role: Any) -> None:
    refused(gateway, gateway.call(PATH, headers=bearer(CURRENT.token(role=role))), "role", 403)


# --- the order of things ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/Nothing/v1", "/api/Orphan/v1", "/namespaces/other/api/S/v1", PATH])
def test_without_a_token_nobody_learns_which_web_services_there_are(gateway: Gateway, path: str) -> None:
    there, here = gateway.call(PATH), gateway.call(path)
    assert (here.status, here.body) == (there.status, there.body)


def test_with_a_token_the_names_are_told(gateway: Gateway) -> None:
    assert gateway.call("/api/Nothing/v1", headers=bearer(CURRENT.token())).status == 404
    assert gateway.call("/api/Orphan/v1", headers=bearer(CURRENT.token())).status == 503


@pytest.mark.parametrize(("method", "path", "status"), [("GET", PATH, 405), ("POST", "/x", 404), ("GET", "/", 404)])
def test_what_is_no_call_is_refused_as_ever(gateway: Gateway, method: str, path: str, status: int) -> None:
    assert gateway.call(path, method=method).status == status


def test_a_large_body_is_refused_for_its_token_first(gateway: Gateway) -> None:
    answer = gateway.raw(b"POST /api/S/v1 HTTP/1.1\r\nHost: s\r\nContent-Length: 99999999\r\n\r\n" + b" " * 100_000)
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_a_refused_caller_keeps_its_connection(gateway: Gateway) -> None:
    """Whose body comes after its head, as many clients send it."""
    with gateway.dial() as caller:
        for _ in range(3):
            caller.sendall(b"POST /api/S/v1 HTTP/1.1\r\nHost: s\r\nContent-Length: 2\r\n\r\n")
            caller.sendall(b"{}")
            reply = http.client.HTTPResponse(caller)
            reply.begin()
            assert (reply.status, reply.headers["Connection"]) == (401, None)
            reply.read()


# --- a connection remembers the token that it verified last -----------------------------------------------------------


def test_a_connection_takes_each_call_for_what_it_brings(gateway: Gateway) -> None:
    good, other = bearer(CURRENT.token(sub="ada")), bearer(NEXT.token(sub="grace"))
    with gateway.connection() as connection:

        def call(headers: dict[str, str]) -> Reply:
            return gateway.call(PATH, headers=headers, connection=connection)

        for _ in range(2):
            passed(gateway, call(good), "ada")
            passed(gateway, call(good), "ada")
            refused(gateway, call({}), "missing")
            refused(gateway, call(bearer(FOREIGN.token())), "unknown-key")
            refused(gateway, call(bearer(CURRENT.token(sub="eve", exp=1))), "expired")
            refused(gateway, call(bearer(CURRENT.token(sub="eve", aud="x"))), "audience")
            refused(gateway, call(bearer(CURRENT.token(sub="eve", role="x"))), "role", 403)
            refused(gateway, call(bearer(good["Authorization"].split()[1][:-2])), "forged")
            passed(gateway, call(good), "ada")
            passed(gateway, call(other), "grace")
            passed(gateway, call(other), "grace")
            passed(gateway, call({"authorization": good["Authorization"].replace("Bearer", "bearer")}), "ada")


def test_a_token_expires_on_a_connection_that_has_verified_it(gateway: Gateway) -> None:
    ends = now() + 2
    headers = bearer(CURRENT.token(exp=ends))
    with gateway.connection() as connection:
        assert gateway.call(PATH, headers=headers, connection=connection).status == 200

        def is_refused() -> Reply | None:
            reply = gateway.call(PATH, headers=headers, connection=connection)
            assert reply.status == 401 or time.time() < ends + 1
            return reply if reply.status == 401 else None

        reply = eventually(is_refused, message="the token expires")
        assert time.time() >= ends
        assert reply is not None
        refused(gateway, reply, "expired")
        other = bearer(CURRENT.token())
        assert gateway.call(PATH, headers=other, connection=connection).status == 200


# --- keys -------------------------------------------------------------------------------------------------------------


def test_without_a_key_every_call_is_told_so(start: Start) -> None:
    gateway = start(route("S"), keys=())
    for headers in ({}, bearer(CURRENT.token())):
        reply = gateway.call(PATH, headers=headers)
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert set(reply.json) == CALL_MEMBERS | REST_MEMBERS
        assert "no key" in reply.json["message"]
        line = gateway.line(reply.headers["x-request-id"])
        assert (line["tokenRefused"], line["outcome"]) == ("no-key", "unauthorized")


def test_a_start_from_the_files_alone_verifies(start: Start, gateway: Gateway) -> None:
    del gateway
    one = start(route("Orphan", pool="", pool_uid=""), keys=(CURRENT, NEXT))
    assert (one.directory / "keys" / "-next_1.pem").read_text() == NEXT.pem
    for token, status in ((CURRENT.token(), 503), (NEXT.token(), 503), (FOREIGN.token(), 401)):
        assert one.call("/api/Orphan/v1", headers=bearer(token)).status == status  # 503: it has no pool


def test_a_key_that_is_taken_away_is_no_key_any_more(start: Start) -> None:
    one = start(route("Orphan", pool="", pool_uid=""), keys=(CURRENT, NEXT))
    one.use_keys((NEXT, FOREIGN))
    assert [file.name for file in sorted((one.directory / "keys").iterdir())] == ["-next_1.pem", "foreign.pem"]
    assert one.admin("reload", at="master.sock").startswith("Success=1")

    def statuses() -> list[int]:
        return [one.call("/api/Orphan/v1", headers=bearer(k.token())).status for k in (CURRENT, NEXT, FOREIGN)]

    eventually(lambda: statuses() == [401, 503, 503], message="the new keys count")


def test_a_file_that_is_no_key_verifies_nothing(start: Start) -> None:
    """HAProxy starts with it all the same, and says nothing."""
    one = start(route("Orphan", pool="", pool_uid=""), keys=(CURRENT,))
    (one.directory / "keys" / "current.pem").write_text("no key")
    assert one.admin("reload", at="master.sock").startswith("Success=1")

    def is_forged() -> bool:
        reply = one.call("/api/Orphan/v1", headers=bearer(CURRENT.token()))
        return reply.status == 401 and "signature" in reply.json["message"]

    eventually(is_forged)


def test_another_issuer_and_audience_can_be_asked_for(start: Start) -> None:
    one = start(route("Orphan", pool="", pool_uid=""), keys=(CURRENT,), tokens=Tokens("https://issuer/a", "calls:b"))
    assert (
        one.call("/api/Orphan/v1", headers=bearer(CURRENT.token(iss="https://issuer/a", aud="calls:b"))).status == 503
    )
    assert one.call("/api/Orphan/v1", headers=bearer(CURRENT.token())).status == 401


@pytest.mark.parametrize("claim", ["", "a b", "a'b", "x" * 201, "a{b", "é", "-f"])
def test_a_claim_that_haproxy_could_misread_is_refused(claim: str) -> None:
    with pytest.raises(ValueError, match="issuer"):
        Tokens(issuer=claim)
    with pytest.raises(ValueError, match="audience"):
        Tokens(audience=claim)


# --- what sessions and metrics see ------------------------------------------------------------------------------------


def test_a_session_never_sees_a_token() -> None:
    """A socket in a session's place, which shows the request's head as it comes."""
    token = CURRENT.token()
    with socket() as slot, socket() as control:
        port = free_ports()
        for number, sock in ((port, control), (port + 1, slot)):  # HAProxy looks at the control port
            sock.bind(("127.0.0.1", number))
            sock.listen()
        one = Gateway(route("S", (OpenSlot("worker-1:pod:0", "127.0.0.1", port + 1, 1),)), keys=(CURRENT,)).start()
        try:
            with one.dial() as caller:
                caller.sendall(
                    b"POST /api/S/v1 HTTP/1.1\r\nHost: s\r\nauthorization: bearer %s\r\nX-Own: kept\r\n"
                    b"Content-Length: 2\r\n\r\n{}" % token.encode()
                )
                slot.settimeout(30)
                connection, _ = slot.accept()
                with connection:
                    seen = b""
                    while not seen.endswith(b"\r\n\r\n{}"):
                        seen += connection.recv(65536)
        finally:
            one.stop()
    assert b"x-own: kept" in seen.lower()
    assert b"authorization" not in seen.lower()
    assert token.encode() not in seen


async def test_refused_tokens_are_counted_by_reason(start: Start) -> None:
    gateway = start(route("Orphan", pool="", pool_uid=""), keys=(CURRENT,))
    metrics = RequestMetrics(lambda: gateway.routes)
    listener = await listen(gateway.directory / "requests.sock", metrics)
    tokens = [*[CURRENT.token(exp=1)] * 3, CURRENT.token(role="x"), FOREIGN.token(), FOREIGN.token(), CURRENT.token()]
    for token in tokens:
        await asyncio.to_thread(gateway.call, PATH, headers=bearer(token))
    await until(lambda: metrics.lines["request"] == len(tokens), "a line for each call")
    listener.close()
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    counted = {
        sample.labels["reason"]: sample.value
        for sample in families["sessionpools_gateway_refused_tokens"].samples
        if sample.name.endswith("_total")
    }
    assert counted == dict.fromkeys(REASONS, 0) | {"expired": 3, "role": 1, "unknown-key": 2}
    outcomes = {
        sample.labels["outcome"]: sample.value
        for sample in families["sessionpools_gateway_requests"].samples
        if sample.value
    }
    assert outcomes == {"unauthorized": 6, "unknown": 1}
