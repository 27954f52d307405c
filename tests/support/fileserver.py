"""An HTTP server on loopback that gives files, and fails in all the ways in which servers do."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[[BaseHTTPRequestHandler], None]


class FileServer:
    """`paths` says what each path does, one behaviour after the other, the last one for ever; others are 404."""

    def __init__(self, host: str, port: int) -> None:
        self.paths: dict[str, list[Behaviour]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []  # path and headers
        self.ending = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                behaviours = server.paths.get(self.path, [answers(404)])
                behaviour = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
                with contextlib.suppress(ConnectionError):
                    behaviour(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer((host, port), Handler)
        self._http.daemon_threads = True
        self.port: int = self._http.server_address[1]
        self.url = f"http://{host}:{self.port}"

    def has(self, path: str, *behaviours: Behaviour | bytes) -> str:
        """The URL of a path that does this from now on; bytes are what it gives."""
        self.paths[path] = [gives(each) if isinstance(each, bytes) else each for each in behaviours]
        return self.url + path

    def asked(self, path: str) -> int:
        return sum(found == path for found, _ in self.requests)

    def hangs(self, handler: BaseHTTPRequestHandler) -> None:
        """Takes the request and says nothing."""
        handler.close_connection = True
        self.ending.wait(60)

    def trickles(self, data: bytes) -> Behaviour:
        """Never silent for long, and never done."""

        def behave(handler: BaseHTTPRequestHandler) -> None:
            _head(handler, 200, {"Content-Length": str(len(data))})
            for at in range(len(data)):
                handler.wfile.write(data[at : at + 1])
                if self.ending.wait(0.05):
                    break
            handler.close_connection = True

        return behave


@contextlib.contextmanager
def file_server(host: str = "127.0.0.1", port: int = 0) -> Iterator[FileServer]:
    made = FileServer(host, port)
    thread = threading.Thread(target=made._http.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        made.ending.set()
        made._http.shutdown()
        made._http.server_close()
        thread.join()


def gives(data: bytes, length: int | None = None) -> Behaviour:
    """A length other than the data's: the connection ends before or after it."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        _head(handler, 200, {"Content-Length": str(len(data) if length is None else length)})
        handler.wfile.write(data)
        handler.close_connection = length is not None

    return behave


def gives_chunks(data: bytes, whole: bool = True) -> Behaviour:
    """Without saying before how much it will be."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        _head(handler, 200, {"Transfer-Encoding": "chunked"})
        for at in range(0, len(data), 1000):
            piece = data[at : at + 1000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if whole:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = not whole

    return behave


def answers(status: int, **headers: str) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        body = b"<html>words that are no archive</html>"
        _head(handler, status, {"Content-Length": str(len(body)), **headers})
        handler.wfile.write(body)

    return behave


def redirects(to: str, status: int = 302) -> Behaviour:
    return answers(status, Location=to)


def no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"220 mail.example ESMTP\r\n")
    handler.close_connection = True


def _head(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
