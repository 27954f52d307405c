"""What simulated session pods answer on their control port: no process runs in them, so this machine answers for all.

bench.scale_controller leads the controller's inquiries here. What it is told is what a pod of one warmed session says.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

_ANSWERS: Final[dict[str, Any]] = {
    "/sessions": {
        "ready": 1,
        "phase": "ready",
        "phaseSeconds": 60.0,
        "warmed": True,
        "threads": [],
        "settings": {"initialPoolSize": 1, "maxPoolSize": 1},
        "sessions": [{"slot": 0, "state": "idle", "idleSeconds": 60.0}],
    },
    "/signature": {
        "inputs": [{"name": "x", "type": "numeric"}],
        "outputs": [{"name": "answer", "type": "numeric"}],
    },
}


class _Pod(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        answer = _ANSWERS.get(self.path)
        body = json.dumps(answer or {}).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: there is an inquiry for each pool."""


@contextlib.contextmanager
def answering() -> Iterator[int]:
    """The port of this machine on which the pods' answers are given meanwhile."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Pod) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, name="pods", daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
