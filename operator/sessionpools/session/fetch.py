"""A process that fetches one bundle and unpacks it: `python -m sessionpools.session.fetch CODE-DIRECTORY SHA256`.

    BundleError                    (unpack.py: BundleInvalidError, BundleTooLargeError)
      BundleUnreachableError       the address does not give the archive, and will not when it is asked again
      BundleDigestMismatchError    it gives another one

The URL is in the environment, as it may hold a secret and arguments are shown to everybody. What it has to say it
writes to standard output, a JSON object in each line:

    {"phase": "fetch bundle"}           before each of its two phases, and when an answer comes after problems
    {"problem": "Connection refused"}   after a try that may go better the next time; it tries for ever
    {"failed": "BundleInvalid: ..."}    the first line of the termination log, before it ends

An archive is written to the disk while its digest is worked out, and no byte of it is looked at before that is known
to be the right one. Called by bundles.py, which waits no longer than startTimeoutSeconds, and ends it then.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http
import http.client
import json
import os
import random
import shutil
import ssl
import stat
import sys
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from sessionpools.session import linux
from sessionpools.session.bundles import FETCH, UNPACK, URL_VARIABLE, Files, shown
from sessionpools.session.unpack import BundleError, BundleTooLargeError, no_room, unpack

# What a link of 1 Gbit/s brings in five seconds, shared with every other session pod that starts meanwhile.
MAX_PACKED_BYTES: Final = 512 << 20
# A server that says nothing for so long is asked again; connecting, TLS and each read have it anew.
_STALL_SECONDS: Final = 30.0
MAX_REDIRECTS: Final = 5
# Between two tries: a gateway or a web API that is restarted is away for seconds; an outage is no reason for a flood.
_FIRST_WAIT_SECONDS: Final = 0.5
_LONGEST_WAIT_SECONDS: Final = 15.0
_JITTER: Final = 0.5  # of a wait, in both directions: all pods of a pool begin at one moment
# Answers that say "later" themselves; every 5xx does, in effect. All other 4xx stay what they are.
_LATER: Final = (http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_EARLY, http.HTTPStatus.TOO_MANY_REQUESTS)
_CREDENTIALS: Final = (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN)
_CHUNK_BYTES: Final = 256 << 10
# On top of what this program is. A zip of 20,000 entries takes 30 MB; one that means ill, what there is.
_MEMORY_BYTES: Final = 128 << 20
_PUT_THERE: Final = "put the archive there or correct code.bundle.url"


class BundleUnreachableError(BundleError):
    reason = "BundleUnreachable"


class BundleDigestMismatchError(BundleError):
    reason = "BundleDigestMismatch"


class TryAgainError(Exception):
    """It may go better the next time. The message is the problem in few words."""


Say = Callable[[dict[str, str]], None]


@dataclass(frozen=True)
class Limits:
    """Smaller ones are for tests."""

    packed_bytes: int = MAX_PACKED_BYTES
    stall_seconds: float = _STALL_SECONDS


def obtain(
    url: str,
    sha256: str,
    files: Files,
    say: Say,
    sleep: Callable[[float], None] = time.sleep,
    limits: Limits = Limits(),
) -> None:
    """Have the bundle complete. Tries as long as it may help; raises BundleError, and OSError of the disk."""
    say({"phase": FETCH})
    with contextlib.suppress(FileNotFoundError):
        os.unlink(files.complete)
    clear(files.code)
    try:
        digest = _download(url, files.packed, say, sleep, limits)
        if digest != sha256:
            raise BundleDigestMismatchError(
                f"it has the sha256 {digest}, not {sha256}: correct code.bundle.sha256, or put the right archive there"
            )
        say({"phase": UNPACK})
        unpack(files.packed, files.code)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(files.packed)
    files.set_complete(sha256)


def clear(folder: str) -> None:
    """Remove what an unfinished unpacking left, whose folders may be read-only already."""
    for parent, _, _ in os.walk(folder):
        os.chmod(parent, 0o700)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _download(url: str, path: str, say: Say, sleep: Callable[[float], None], limits: Limits) -> str:
    """Write what the URL gives to the file; its sha256."""
    source = _source(url, limits.stall_seconds)
    wait = _FIRST_WAIT_SECONDS
    while True:
        try:
            with contextlib.closing(source()) as answer:
                if wait > _FIRST_WAIT_SECONDS:
                    say({"phase": FETCH})  # what was the problem is none now
                return _copy(answer, path, limits.packed_bytes)
        except TryAgainError as error:
            say({"problem": str(error)})
        sleep(wait * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311
        wait = min(wait * 2, _LONGEST_WAIT_SECONDS)


def _copy(answer: _Answer, path: str, limit: int) -> str:
    if answer.length > limit:
        raise _too_large(limit)
    digest, count = hashlib.sha256(), 0
    try:
        with open(path, "wb") as file:
            for chunk in answer.chunks():
                count += len(chunk)
                if count > limit:
                    raise _too_large(limit)
                digest.update(chunk)
                file.write(chunk)
    except OSError as error:  # the disk's: those of the network have other names by now
        raise no_room(error) or error from None
    if 0 <= count < answer.length:
        raise TryAgainError(f"the answer ended after {count} of {answer.length} bytes")
    return digest.hexdigest()


def _too_large(limit: int) -> BundleTooLargeError:
    return BundleTooLargeError(
        f"packed it has more than {limit} bytes; put what is large into an image (code.imagePath) or on a volume"
    )


# --- where it comes from ----------------------------------------------------------------------------------------------


class _Answer:
    """Bytes that arrive; `length` is how many there should be, -1 when that is not known."""

    def __init__(self, stream: Any, length: int) -> None:
        self._stream = stream
        self.length = length

    def chunks(self) -> Iterator[bytes]:
        left = self.length
        with _network():
            # read1() gives what is there, be it little: how far a slow answer has come is then seen on the disk. Not
            # beyond the length: before Python 3.12 it would wait there for what is never sent.
            while left and (chunk := self._stream.read1(_CHUNK_BYTES if left < 0 else min(_CHUNK_BYTES, left))):
                left -= len(chunk) if left > 0 else 0
                yield chunk

    def close(self) -> None:
        self._stream.close()


def _source(url: str, stall_seconds: float) -> Callable[[], _Answer]:
    """What asks for the archive, each time anew."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError:  # whose message may show a password
        raise BundleUnreachableError("that is no URL: correct code.bundle.url") from None
    if scheme == "file":
        if host not in ("", "localhost") or not parts.path.startswith("/"):
            raise BundleUnreachableError("a file's URL is file:/// and an absolute path: correct code.bundle.url")
        return lambda: _open_file(unquote(parts.path))
    if scheme not in ("http", "https") or not host:
        raise BundleUnreachableError("that is no address of http, https or file: correct code.bundle.url")
    where = f"[{host}]" if ":" in host else host
    plain = urlunsplit((scheme, where if port is None else f"{where}:{port}", parts.path or "/", parts.query, ""))
    login = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        login = f"Basic {base64.b64encode(pair.encode()).decode()}"
    opener = _opener()
    return lambda: _open_http(opener, plain, login, stall_seconds)


def _open_file(path: str) -> _Answer:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait for ever
    except (OSError, ValueError) as error:
        raise BundleUnreachableError(f"{getattr(error, 'strerror', error)}: {_PUT_THERE}") from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise BundleUnreachableError(f"that is no file: {_PUT_THERE}")
    return _Answer(open(fd, "rb"), status.st_size)


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS
    max_repeats = MAX_REDIRECTS


def _opener() -> urllib.request.OpenerDirector:
    """As urllib's own, with its proxies, but for other protocols than http and https, to which a redirect may lead."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "session-pools"), ("Accept", "*/*")]
    return opener


def _open_http(opener: urllib.request.OpenerDirector, url: str, login: str, stall_seconds: float) -> _Answer:
    try:
        request = urllib.request.Request(url)  # noqa: S310  its scheme is known. Handlers change it: one for each try
        if login:
            request.add_unredirected_header("Authorization", login)  # not for whom a redirect leads to
        with _network():
            answer = opener.open(request, timeout=stall_seconds)
    except (http.client.InvalidURL, ValueError) as error:  # UnicodeError among them
        raise BundleUnreachableError(
            f"that is no URL ({type(error).__name__}): correct code.bundle.url; all but ASCII must be percent-encoded"
        ) from None
    length = answer.headers.get("Content-Length", "")
    return _Answer(answer, int(length) if length.isascii() and length.isdecimal() else -1)


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """What goes wrong on the way, as TryAgainError or as an error that stays."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise _answered(error.code) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, OSError):
            raise _failed(error.reason) from None
        raise BundleUnreachableError(f"{error.reason}: correct code.bundle.url") from None
    except http.client.HTTPException as error:
        if isinstance(error, http.client.InvalidURL):
            raise
        raise TryAgainError(_words(error) or "the answer is no HTTP") from None
    except OSError as error:
        raise _failed(error) from None


def _answered(code: int) -> Exception:
    try:
        words = f"{code} {http.HTTPStatus(code).phrase}"
    except ValueError:
        words = str(code)
    if code >= 500 or code in _LATER:
        return TryAgainError(f"answered {words}")
    if code in _CREDENTIALS:
        return BundleUnreachableError(f"answered {words}: name an address that gives it without asking who you are")
    if code < 400:
        return BundleUnreachableError(
            f"answered {words}, which leads nowhere in {MAX_REDIRECTS} redirects of http and https: {_PUT_THERE}"
        )
    return BundleUnreachableError(f"answered {words}: {_PUT_THERE}")


def _failed(error: OSError) -> Exception:
    if isinstance(error, ssl.SSLCertVerificationError):
        return BundleUnreachableError(f"its certificate is not trusted here ({error.verify_message}): {_PUT_THERE}")
    return TryAgainError(_words(error) or type(error).__name__)


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer ended early"
    text = (error.strerror if isinstance(error, OSError) else "") or str(error)
    return " ".join(text.split())[:200]


# --- the process ------------------------------------------------------------------------------------------------------


def _write(message: dict[str, str]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def main(arguments: Sequence[str]) -> int:
    code, sha256 = arguments
    url = os.environ.pop(URL_VARIABLE, "")
    linux.name_process("bundle")
    linux.limit_data(linux.status_bytes("VmData") + _MEMORY_BYTES)
    phase = FETCH

    def say(message: dict[str, str]) -> None:
        nonlocal phase
        phase = message.get("phase", phase)
        _write(message)

    try:
        obtain(url, sha256, Files(code), say)
    except BundleError as error:
        _write({"failed": f"{error.reason}: {shown(url)}: {error}"})
        return 1
    except Exception as error:  # the disk's, or a mistake of ours
        traceback.print_exc()
        _write({"failed": f"{type(error).__name__}: {error} ({phase})"})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
