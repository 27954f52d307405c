"""How a bundle is fetched: a real server on loopback that does what servers do."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sessionpools.session.bundles import Files, shown
from sessionpools.session.fetch import MAX_REDIRECTS, Limits, obtain
from sessionpools.session.unpack import BundleError
from support.archives import Archive, bundle, tar_gz
from support.fileserver import (
    FileServer,
    answers,
    file_server,
    gives,
    gives_chunks,
    no_http,
    redirects,
)

GOOD = bundle(lib__model="y = 2\n")
QUICK = Limits(stall_seconds=0.2)


class EnoughError(Exception):
    """It would try again."""


@dataclass
class Volume:
    """Where a bundle goes, and what was said meanwhile."""

    folder: Path
    said: list[dict[str, str]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    @property
    def files(self) -> Files:
        return Files(str(self.folder / "code"))

    @property
    def problems(self) -> list[str]:
        return [message["problem"] for message in self.said if "problem" in message]

    def obtain(self, url: str, archive: Archive = GOOD, tries: int = 20, limits: Limits = QUICK) -> None:
        def sleep(seconds: float) -> None:
            self.waits.append(seconds)
            if len(self.waits) >= tries:
                raise EnoughError

        obtain(url, archive.sha256, self.files, self.said.append, sleep, limits)

    def refusal(self, url: str, archive: Archive = GOOD, limits: Limits = QUICK) -> BundleError:
        """Why it fails, for good."""
        with pytest.raises(BundleError) as caught:
            self.obtain(url, archive, limits=limits)
        assert not self.files.is_complete(archive.sha256)
        assert self.waits == []
        return caught.value

    def is_there(self, archive: Archive = GOOD) -> bool:
        code = (self.folder / "code/service.py").exists() and not (self.folder / "packed").exists()
        return code and self.files.is_complete(archive.sha256)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    (tmp_path / "volume").mkdir()
    return Volume(tmp_path / "volume")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as made:
        yield made


# --- what goes well ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [gives(GOOD.data), gives_chunks(GOOD.data)], ids=["a length", "chunks"])
def test_it_is_unpacked_and_marked_as_complete(volume: Volume, server: FileServer, behaviour: object) -> None:
    volume.obtain(server.has("/b.tar.gz", behaviour))  # type: ignore[arg-type]
    assert volume.is_there()
    assert volume.said == [{"phase": "fetch bundle"}, {"phase": "unpack bundle"}]
    assert sorted(path.name for path in volume.folder.iterdir()) == ["code", "complete"]


def test_a_file_is_taken_by_its_url(volume: Volume, tmp_path: Path) -> None:
    path = tmp_path / "a bundle.tar.gz"
    path.write_bytes(GOOD.data)
    volume.obtain(path.as_uri())
    assert volume.is_there()


def test_redirects_are_followed(volume: Volume, server: FileServer) -> None:
    with file_server() as elsewhere:
        last = elsewhere.has("/last", GOOD.data)
        server.has("/second", redirects(last, 307))
        volume.obtain(server.has("/first", redirects("/second", 302)))
    assert volume.is_there()


def test_a_proxy_of_the_environment_is_used(
    volume: Volume, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    server.paths["http://nowhere.example/b.tar.gz"] = [gives(GOOD.data)]
    volume.obtain("http://nowhere.example/b.tar.gz")
    assert volume.is_there()


def test_user_and_password_of_the_url_are_for_its_server_alone(volume: Volume, server: FileServer) -> None:
    with file_server() as elsewhere:
        elsewhere.has("/b", GOOD.data)
        url = server.has("/a", redirects(f"{elsewhere.url}/b"))
        volume.obtain(url.replace("http://", "http://me:p%40ss@"))
        assert "authorization" not in elsewhere.requests[0][1]
    assert server.requests[0][1]["authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()


def test_what_an_unfinished_one_left_is_removed_first(volume: Volume, server: FileServer) -> None:
    old = tar_gz({"old/old.py": "x", "service.py": "x"})
    volume.obtain(server.has("/old", old.data), old)
    (volume.folder / "packed").write_bytes(b"half of one")
    volume.obtain(server.has("/new", GOOD.data))
    assert volume.is_there()
    assert not (volume.folder / "code/old").exists()


# --- what may pass ----------------------------------------------------------------------------------------------------


def hang_up(handler: object) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
    handler.close_connection = True  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        (answers(500), "answered 500 Internal Server Error"),
        (answers(503), "answered 503 Service Unavailable"),
        (answers(429), "answered 429 Too Many Requests"),
        (answers(599), "answered 599"),
        (gives(GOOD.data[:100], len(GOOD.data)), f"the answer ended after 100 of {len(GOOD.data)} bytes"),
        (gives_chunks(GOOD.data[:100], whole=False), "the answer ended early"),
        (hang_up, "Remote end closed connection without response"),
        (no_http, "220 mail.example ESMTP"),
    ],
)
def test_what_may_pass_is_tried_again(volume: Volume, server: FileServer, behaviour: object, problem: str) -> None:
    volume.obtain(server.has("/b", behaviour, behaviour, GOOD.data))  # type: ignore[arg-type]
    assert volume.is_there()
    assert volume.problems == [problem] * 2
    assert volume.said[-2:] == [{"phase": "fetch bundle"}, {"phase": "unpack bundle"}]  # it is no problem any more
    assert server.asked("/b") == 3


def test_a_server_that_hangs_is_asked_again(volume: Volume, server: FileServer) -> None:
    volume.obtain(server.has("/b", server.hangs, GOOD.data))
    assert volume.is_there()
    assert volume.problems == ["no answer"]


def test_a_server_that_is_away_is_waited_for_ever_longer_and_not_in_step_with_others(volume: Volume) -> None:
    with file_server() as away:
        url = away.url
    with pytest.raises(EnoughError):
        volume.obtain(url + "/b", tries=10)
    assert volume.problems == ["Connection refused"] * 10
    assert 0.25 <= volume.waits[0] <= 0.75
    assert all(7.5 <= wait <= 22.5 for wait in volume.waits[6:])
    assert len(set(volume.waits)) == 10


def test_a_name_that_is_not_known_yet_may_be_later(volume: Volume) -> None:
    with pytest.raises(EnoughError):
        volume.obtain("http://no-such-host.invalid/b", tries=1)
    assert len(volume.problems) == 1


# --- what stays -------------------------------------------------------------------------------------------------------


def test_another_digest_is_refused_with_both_and_nothing_is_unpacked(volume: Volume, server: FileServer) -> None:
    other = bundle("x = 'other'\n")
    found = volume.refusal(server.has("/b", other.data))
    assert found.reason == "BundleDigestMismatch"
    assert other.sha256 in str(found)
    assert GOOD.sha256 in str(found)
    assert not (volume.folder / "code").exists()


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_what_the_server_does_not_give_is_said_at_once(volume: Volume, server: FileServer, code: int) -> None:
    found = volume.refusal(server.has("/b", answers(code)))
    assert found.reason == "BundleUnreachable"
    assert f"answered {code}" in str(found)
    assert server.asked("/b") == 1


def test_redirects_in_a_circle_end(volume: Volume, server: FileServer) -> None:
    found = volume.refusal(server.has("/b", redirects("/b")))
    assert "302" in str(found)
    assert server.asked("/b") <= MAX_REDIRECTS + 1


def test_more_redirects_than_there_may_be_are_refused(volume: Volume, server: FileServer) -> None:
    for number in range(MAX_REDIRECTS + 1):
        server.has(f"/{number}", redirects(f"/{number + 1}"))
    server.has(f"/{MAX_REDIRECTS + 1}", GOOD.data)
    assert volume.refusal(f"{server.url}/0").reason == "BundleUnreachable"


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/b", "data:text/plain,x"])
def test_a_redirect_does_not_lead_to_another_protocol(volume: Volume, server: FileServer, to: str) -> None:
    assert volume.refusal(server.has("/b", redirects(to))).reason == "BundleUnreachable"


@pytest.mark.parametrize("behaviour", [gives, gives_chunks])
def test_more_than_a_bundle_may_have_is_refused_and_not_read_to_its_end(
    volume: Volume, server: FileServer, behaviour: type
) -> None:
    found = volume.refusal(server.has("/b", behaviour(bytes(1 << 20))), limits=Limits(packed_bytes=1000))
    assert found.reason == "BundleTooLarge"
    assert not (volume.folder / "packed").exists()


def test_what_is_no_archive_is_refused(volume: Volume, server: FileServer) -> None:
    page = Archive(b"<html></html>")
    assert volume.refusal(server.has("/b", page.data), page).reason == "BundleInvalid"


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/b.tar.gz",
        "http://",
        "http://host:port/b",
        "http://[::1/b",
        "http://host/b c",
        "http://host/ä",
        "file://host/b",
        "file://b",
        "file:///no/such/file",
        "file:///",
        "file:///dev/null",
    ],
)
def test_an_address_that_can_not_be_one_is_said_at_once(volume: Volume, url: str) -> None:
    assert volume.refusal(url).reason == "BundleUnreachable"


def test_a_fifo_is_not_waited_for(volume: Volume, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "no file" in str(volume.refusal((tmp_path / "fifo").as_uri()))


def test_a_certificate_that_is_not_trusted_is_said_at_once(volume: Volume, tmp_path: Path) -> None:
    certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    with file_server() as server:
        server._http.socket = context.wrap_socket(server._http.socket, server_side=True)
        found = volume.refusal(server.url.replace("http", "https") + "/b")
    assert found.reason == "BundleUnreachable"
    assert "certificate" in str(found)


def certificate(folder: Path) -> None:
    """Of 127.0.0.1, signed by nobody else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://user:secret@host:8443/a/b.tar.gz?signature=secret#secret", "https://host:8443/a/b.tar.gz"),
        ("https://host?token=secret", "https://host"),
        ("http://a@b@host/x@y", "http://host/x@y"),
        ("file:///a/b.tar.gz", "file:///a/b.tar.gz"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, words: str) -> None:
    assert shown(url) == words


def test_a_long_url_is_cut() -> None:
    assert len(shown("http://host/" + "x" * 1000)) == 160
