"""What an outcome of a call says about whether the item ran."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sessionpools.web.batch.calls import Gateway, NotRun, OwnerGone, Ran, verdict
from sessionpools.web.batch.state import Service
from support.batch_gateway import BatchGateway

SERVICE = Service("demo", "Score ä", "v1.0")
ANSWER = {
    "success": True,
    "errorMessage": "",
    "outputParameters": {"answer": 1},
    "consoleOutput": "hello\n",
    "changedFiles": ["a.txt"],
    "outputFiles": {},
}


def body(**changes: Any) -> bytes:
    return orjson.dumps({**ANSWER, **changes})


async def headers(service: Service, owner: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer for {owner}"}


def ran(outcome: Ran | NotRun) -> Ran:
    assert isinstance(outcome, Ran)
    return outcome


# --- the verdict ------------------------------------------------------------------------------------------------------


def test_an_answer_is_the_result_without_its_files() -> None:
    files = {"a.txt": base64.b64encode(b"text").decode(), "not-written": None}
    outcome = ran(verdict(200, "", body(outputFiles=files)))
    assert outcome.result == {key: value for key, value in ANSWER.items() if key != "outputFiles"}
    assert outcome.files == {"a.txt": b"text"}


def test_a_service_that_failed_has_failed() -> None:
    result = ran(verdict(200, "", body(success=False, errorMessage="ZeroDivisionError: x", outputParameters={}))).result
    assert (result["success"], result["errorMessage"]) == (False, "ZeroDivisionError: x")


@pytest.mark.parametrize(("status", "retry_after"), [(401, "3"), (404, "3"), (429, "3"), (503, "3")])
def test_a_call_that_was_turned_away_did_not_run(status: int, retry_after: str) -> None:
    outcome = verdict(status, retry_after, body(success=False, errorMessage="all sessions are busy"))
    assert outcome == NotRun(3.0, "all sessions are busy")


@pytest.mark.parametrize(
    ("retry_after", "seconds"), [("", 1.0), ("Sun, 01 Nov 2026 00:00:00 GMT", 1.0), ("0", 0.1), ("999999", 60.0)]
)
def test_when_to_come_again_is_within_reason(retry_after: str, seconds: float) -> None:
    for status in (401, 404, 429, 503):
        assert verdict(status, retry_after, b"") == NotRun(seconds, f"HTTP status {status}")


@pytest.mark.parametrize("status", [400, 403, 404, 413, 500, 502, 504])
def test_every_other_answer_is_the_items_result(status: int) -> None:
    """404: of a service that is not published any more."""
    result = ran(verdict(status, "", body(success=False, errorMessage="pool demo/x: why"), known=False)).result
    assert result == {
        "success": False,
        "errorMessage": f"The gateway answered {status}: pool demo/x: why",
        "outputParameters": {},
        "consoleOutput": "",
        "changedFiles": [],
    }


@pytest.mark.parametrize("content", [b"", b"<html>no JSON</html>", b"[1]", b'"text"', b"{}", b"\xff"])
def test_an_answer_that_is_none_of_a_sessions_is_a_failure(content: bytes) -> None:
    for status in (200, 502):
        result = ran(verdict(status, "", content)).result
        assert result["success"] is False
        assert result["errorMessage"].startswith(f"The gateway answered {status}: ")


# --- over HTTP --------------------------------------------------------------------------------------------------------


async def test_a_call_goes_to_the_service_of_its_namespace_as_its_owner() -> None:
    async with BatchGateway() as server:
        gateway = Gateway(server.url, headers)
        outcome = await gateway.call(SERVICE, "ann", "batch-1-0", b'{"n": 7}')
        await gateway.close()
        assert ran(outcome).result["outputParameters"]["answer"] == 7
        assert server.paths == {"/namespaces/demo/api/Score%20%C3%A4/v1.0"}
        [sent] = server.headers
        assert sent["Authorization"] == "Bearer for ann"
        assert sent["X-Request-Id"] == "batch-1-0"
        assert sent["Content-Type"] == "application/json"


async def test_a_connection_that_is_lost_in_the_middle_is_not_tried_again() -> None:
    async with BatchGateway() as server:
        gateway = Gateway(server.url, headers)
        outcome = await gateway.call(SERVICE, "ann", "r", b'{"n": 1, "drop": true}')
        await gateway.close()
        assert "outcome of this item is unknown" in ran(outcome).result["errorMessage"]
        assert server.calls[1] == 1


async def test_a_connection_that_never_came_about_did_not_run() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        gateway = Gateway(f"http://127.0.0.1:{unheard.getsockname()[1]}", headers)
        outcome = await gateway.call(SERVICE, "ann", "r", b"{}")
        await gateway.close()
    assert isinstance(outcome, NotRun)
    assert "can't be reached" in outcome.reason


async def test_a_call_for_which_there_is_no_token_did_not_run() -> None:
    async def none(service: Service, owner: str) -> Mapping[str, str]:
        raise LookupError("no key yet")

    async with BatchGateway() as server:
        gateway = Gateway(server.url, none)
        assert await gateway.call(SERVICE, "ann", "r", b'{"n": 1}') == NotRun(1.0, "the call has no token: no key yet")
        await gateway.close()
        assert server.calls.total() == 0


async def test_an_item_whose_owner_is_gone_says_so_and_does_not_run() -> None:
    async def gone(service: Service, owner: str) -> Mapping[str, str]:
        raise OwnerGone(f"{owner!r}, who started the batch, is no user any more")

    async with BatchGateway() as server:
        gateway = Gateway(server.url, gone)
        result = ran(await gateway.call(SERVICE, "ann", "r", b'{"n": 1}')).result
        await gateway.close()
        assert result["errorMessage"] == "'ann', who started the batch, is no user any more; the item did not run."
        assert server.calls.total() == 0


async def test_calls_after_a_pause_meet_no_connection_that_was_closed_meanwhile() -> None:
    """A server that closes each connection after its answer, without having said so."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        content = body()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        closed.set()

    closed = asyncio.Event()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        gateway = Gateway(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", headers)
        for _ in range(5):
            closed.clear()
            assert ran(await gateway.call(SERVICE, "ann", "r", b"{}")).result["success"]
            await closed.wait()
        await gateway.close()


async def test_the_gateway_is_believed_by_its_one_certificate_whatever_name_that_is_for(tmp_path: Path) -> None:
    served, other = (certificate(tmp_path / name) for name in ("served", "other"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(served)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        content = body()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        outcomes = []
        for believed in (served, other, None):
            gateway = Gateway(url, headers, believed)
            outcomes.append(await gateway.call(SERVICE, "ann", "r", b"{}"))
            await gateway.close()
    assert ran(outcomes[0]).result["success"]
    for outcome in outcomes[1:]:
        assert isinstance(outcome, NotRun)
        assert "CERTIFICATE_VERIFY_FAILED" in outcome.reason


def test_a_file_that_begins_with_no_certificate_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tls.crt"
    file.write_text("good morning\n")
    with pytest.raises(ValueError, match=r"tls\.crt: begins with no certificate in PEM"):
        Gateway("https://gateway:12800", headers, file)


def certificate(file: Path) -> Path:
    """A file with a certificate that nobody has signed but itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "score.example.com")])
    begin = datetime.now(UTC) - timedelta(minutes=5)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(serialization.Encoding.PEM, *form)
    )
    return file
