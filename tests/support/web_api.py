"""A web API for the gateway to pass requests on to: answers each with what came, and remembers it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class WebApiServer:
    port: int
    seen: list[dict[str, Any]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)  # what /sessions/wait waits for


@contextlib.contextmanager
def web_api(port: int = 0) -> Iterator[WebApiServer]:
    """`/sessions/die` gets no answer; `/sessions/refused` the web API's own 400."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self._body()
            seen = {
                "method": self.command,
                "path": self.path,
                "headers": [[name.lower(), value] for name, value in self.headers.items()],
                "size": len(body),
                "sha256": hashlib.sha256(body).hexdigest(),
            }
            found.seen.append(seen)
            if self.path == "/sessions/die":
                self.close_connection = True
                return
            if self.path == "/sessions/wait":
                found.release.wait(30)
            answer = json.dumps(seen).encode()
            with contextlib.suppress(ConnectionError):  # the gateway has given up
                self._answer(answer)

        def _answer(self, answer: bytes) -> None:
            self.send_response(400 if self.path == "/sessions/refused" else 200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"):
        setattr(Handler, f"do_{method}", Handler.handle_any)
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    found = WebApiServer(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
