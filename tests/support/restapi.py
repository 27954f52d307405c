"""A small server on loopback that speaks the REST API of Machine Learning Server, for tests of its clients.

It keeps everything in memory, runs what is published in the test's process, and has one compute node. What a test
wants to go wrong is said beforehand: `fail(...)` answers the next requests of a path. It is no model of
the web API: what it answers is the contract alone (tests/e2e has the real one).
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import io
import json
import re
import threading
import time
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

dill: Any = importlib.import_module("dill")  # untyped

NODE = "http://worker-1:12805/"


@dataclass
class Seen:
    """A request as it came."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")


@dataclass
class Reply:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    close: bool = False  # the connection, without an answer
    delay: threading.Event | None = None  # that is waited for before anything is sent


class Refused(Exception):  # noqa: N818
    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.reply = Reply(status, {"message": message, "link": "/docs", "exceptionType": "Refused"}, headers)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers that are gone before their answer are what some tests are about."""


class RestApi:
    """Users: admin (Owner) with the password `secret`."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.life_seconds = 3600.0
        self.tokens: set[str] = set()
        self.refresh_tokens: set[str] = set()
        self.services: dict[tuple[str, str], dict[str, Any]] = {}
        self.published: dict[tuple[str, str], Callable[[dict[str, Any]], dict[str, Any]]] = {}
        self.sessions: dict[str, dict[str, bytes]] = {}
        self.snapshots: dict[str, dict[str, bytes]] = {}
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.pools: dict[tuple[str, str], dict[str, Any]] = {}
        self.batches: dict[str, list[dict[str, Any]]] = {}
        self.leaving = 0  # how often a deleted pool is told to be there still
        self.warming = 0  # how often a new pool is told not to be ready
        self.stalled = ""
        self._failures: list[tuple[str, Reply]] = []
        self._lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, path: str, *replies: Reply) -> None:
        """The next requests whose `METHOD /path` matches this pattern are answered so."""
        with self._lock:
            self._failures.extend((path, reply) for reply in replies)

    def asked(self, pattern: str) -> list[Seen]:
        """The requests whose `METHOD /path` matches."""
        return [each for each in self.seen if re.fullmatch(pattern, f"{each.method} {each.path}")]

    def __enter__(self) -> RestApi:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # --- HTTP

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen = Seen(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body)
                reply = api.reply(seen)
                if reply.delay is not None:
                    reply.delay.wait(30)
                if reply.close:
                    self.close_connection = True
                    return
                content = reply.raw if reply.raw is not None else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {
                    "Content-Type": "application/json",
                    "X-Request-Id": uuid.uuid4().hex,
                    **reply.headers,
                    "Content-Length": str(len(content)),
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def reply(self, seen: Seen) -> Reply:
        with self._lock:
            self.seen.append(seen)
            for place, (pattern, reply) in enumerate(self._failures):
                if re.fullmatch(pattern, f"{seen.method} {seen.path}"):
                    del self._failures[place]
                    return reply
            try:
                return self._route(seen)
            except Refused as refused:
                return refused.reply

    def _route(self, seen: Seen) -> Reply:
        parts = [unquote(part) for part in seen.path.split("/")[1:]]
        if parts[0] == "login":
            return self._login(seen, parts[1:])
        if seen.token not in self.tokens:
            raise Refused(401, "the access token has expired or is none: log in again")
        match parts:
            case ["services", *rest]:
                return self._services(seen, rest)
            case ["sessions", *rest]:
                return self._authoring(seen, rest)
            case ["snapshots", snapshot]:
                self.snapshots.pop(snapshot)
                return Reply(200, {})
            case ["api", name, version, *rest]:
                return self._api(seen, (name, version), rest)
            case ["status"]:
                part = {"statusCode": "pass", "components": None, "details": {"dedicatedPools": len(self.pools)}}
                return Reply(200, {"statusCode": "pass", "details": {}, "components": {"backends": part}})
            case ["computenodes"]:
                return Reply(200, {"computeNodes": [NODE]})
        raise Refused(404, f"there is no {seen.path}")

    # --- what there is

    def _login(self, seen: Seen, rest: list[str]) -> Reply:
        if seen.method == "DELETE":
            self.refresh_tokens.discard(seen.params["refreshToken"])
            return Reply(200, {})
        body = seen.json()
        if rest:
            if body["refreshToken"] not in self.refresh_tokens:
                raise Refused(401, "the refresh token is used up")
            self.refresh_tokens.remove(body["refreshToken"])
        elif (body["username"], body["password"]) != ("admin", "secret"):
            raise Refused(401, "user or password is wrong")
        return Reply(200, self.new_tokens())

    def new_tokens(self) -> dict[str, Any]:
        claims = {"sub": "admin", "role": "Owner", "exp": int(time.time() + self.life_seconds), "jti": uuid.uuid4().hex}
        encoded = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        access, refresh = f"e30.{encoded}.c2ln", uuid.uuid4().hex
        self.tokens.add(access)
        self.refresh_tokens.add(refresh)
        return {
            "token_type": "Bearer",
            "access_token": access,
            "expires_in": self.life_seconds,
            "expires_on": claims["exp"],
            "refresh_token": refresh,
        }

    def _services(self, seen: Seen, rest: list[str]) -> Reply:
        if len(rest) >= 3:
            return self._pool(seen, (rest[0], rest[1]), rest[3:])
        if seen.method == "GET":
            found = [
                each
                for key, each in self.services.items()
                if not rest or (key[0] == rest[0] and (len(rest) == 1 or key[1] == rest[1]))
            ]
            if len(rest) == 2 and not found:
                raise Refused(404, f"there is no service {rest[0]!r} version {rest[1]!r}; case matters")
            return Reply(200, found)
        key = (rest[0], rest[1])
        if seen.method == "POST" and key in self.services:
            raise Refused(403, f"service {key[0]!r} version {key[1]!r} exists")
        if seen.method != "POST" and key not in self.services:
            raise Refused(404, f"there is no service {key[0]!r} version {key[1]!r}")
        if seen.method == "DELETE":
            del self.services[key], self.published[key]
            self.objects.pop(key, None)
            return Reply(200, {})
        return self._publish(seen, key)

    def _publish(self, seen: Seen, key: tuple[str, str]) -> Reply:
        body = seen.json()
        before = self.services.get(key, {})
        fields = (
            "code",
            "initCode",
            "description",
            "operationId",
            "snapshotId",
            "entrypoint",
            "files",
            "init",
            "warmup",
        )
        lists = ("inputParameterDefinitions", "outputParameterDefinitions", "outputFileNames", "modules")
        said = {name: value for name, value in body.items() if value is not None}
        kept: dict[str, Any] = {name: said.get(name, before.get(name)) for name in fields}
        kept |= {name: said.get(name, before.get(name) or []) for name in lists}
        named = {"name": key[0], "version": key[1], "versionPublishedBy": "admin", "runtimeType": "Python"}
        kept["description"] = kept["description"] or ""
        service = self.services[key] = {**named, "creationTime": "2026-01-02T03:04:05Z", **kept}
        snapshot = self.snapshots.get(kept["snapshotId"] or "", {})
        objects = {name: dill.loads(content) for name, content in snapshot.items() if not name.startswith("files/")}
        self.objects[key] = objects or self.objects.get(key, {})  # none leaves those that there are
        files = {
            name.removeprefix("files/"): content for name, content in snapshot.items() if name.startswith("files/")
        }
        sent = {name: base64.b64encode(content).decode() for name, content in files.items()}
        service["files"] = sent or service["files"]
        self.published[key] = _scripted(service, self.objects[key]) if kept["code"] else _native(service)
        return Reply(201 if seen.method == "POST" else 200, key[1])

    def _pool(self, seen: Seen, key: tuple[str, str], rest: list[str]) -> Reply:
        pool = self.pools.get(key)
        if seen.method == "POST":
            if key not in self.services:
                raise Refused(404, f"there is no service {key[0]!r} version {key[1]!r} to make a pool for")
            body = {name[0].lower() + name[1:]: value for name, value in seen.json().items()}
            if body["initialPoolSize"] > body["maxPoolSize"]:
                raise Refused(400, "initialPoolSize must not exceed maxPoolSize")
            self.pools[key] = {**body, "asked": 0}
            return Reply(200, "Created.")
        if seen.method == "DELETE":
            if self.pools.pop(key, None) is not None:
                self.leaving = max(self.leaving, 0)
            return Reply(200, "Deleted.")
        if pool is None:
            if rest:
                raise Refused(404, "there is no such pool")
            self.leaving, left = max(0, self.leaving - 1), self.leaving
            return Reply(200, [{"computeNodeEndpoint": NODE, "status": "Pending" if left else "NotFound"}])
        pool["asked"] += 1
        state = "Pending" if pool["asked"] <= self.warming or self.stalled else "Success"
        if not rest:
            return Reply(200, [{"computeNodeEndpoint": NODE, "status": state}])
        return Reply(200, self._usage(key, pool, state))

    def _usage(self, key: tuple[str, str], pool: Mapping[str, Any], state: str) -> dict[str, Any]:
        initial, ready = pool["initialPoolSize"], pool["initialPoolSize"] if state == "Success" else 0
        counts = {"busy": 0, "idle": ready, "starting": initial - ready, "grown": 0}
        message = "" if state == "Success" else self.stalled or "importing service"
        node = {"node": "worker-1", "computeNodeEndpoint": NODE, "status": state, "desired": initial, "ready": ready}
        stalled = {
            "type": "Stalled",
            "status": "True" if self.stalled else "False",
            "reason": "R",
            "message": self.stalled,
        }
        return {
            "name": key[0],
            "version": key[1],
            "status": state,
            "initialPoolSize": initial,
            "maxPoolSize": pool["maxPoolSize"],
            **counts,
            "queued": 0,
            "waitSeconds": None,
            "wait": {"count": 4, "meanSeconds": 0.01, "p50Seconds": 0.002, "p95Seconds": None, "p99Seconds": 0.25},
            "gateways": 1,
            "nodes": [{**node, **counts, "message": message}],
            "conditions": [stalled],
        }

    def _authoring(self, seen: Seen, rest: list[str]) -> Reply:
        match seen.method, rest:
            case "POST", []:
                made = uuid.uuid4().hex
                self.sessions[made] = {}
                return Reply(200, {"sessionId": made})
            case "PUT", [session, "files", *path]:
                self.sessions[session][f"files/{'/'.join(path)}"] = seen.body
                return Reply(200, {})
            case "POST", [session, "workspace", name]:
                self.sessions[session][name] = seen.body
                return Reply(200, {})
            case "POST", [session, "snapshot"]:
                made = uuid.uuid4().hex
                self.snapshots[made] = dict(self.sessions[session])
                return Reply(200, {"snapshotId": made})
            case "DELETE", [session]:
                del self.sessions[session]
                return Reply(200, {})
        raise Refused(404, f"there is no {seen.path}")

    def _api(self, seen: Seen, key: tuple[str, str], rest: list[str]) -> Reply:
        if key not in self.services:
            raise Refused(404, f"there is no web service {key[0]} {key[1]} in namespace demo")
        match seen.method, rest:
            case "POST", []:
                return Reply(200, _called(self.published[key], seen.json()))
            case "GET", ["swagger.json"]:
                return Reply(200, {"swagger": "2.0", "info": {"title": key[0], "version": key[1]}})
            case "POST", ["batch"]:
                made = uuid.uuid4().hex
                self.batches[made] = [
                    {"index": place, **_called(self.published[key], item)} for place, item in enumerate(seen.json())
                ]
                return Reply(202, {"batchExecutionId": made, "BatchExecutionId": made})
            case "GET", ["batch"]:
                return Reply(200, list(self.batches))
            case method, ["batch", batch, *more] if batch in self.batches:
                return self._batch(method, batch, more)
        raise Refused(404, f"there is no {seen.path}")

    def _batch(self, method: str, batch: str, rest: list[str]) -> Reply:
        items = self.batches[batch]
        if method == "DELETE":
            del self.batches[batch]
            return Reply(200, {})
        if rest:
            files = items[int(rest[0])]["outputFiles"]
            if len(rest) == 2:
                return Reply(200, list(files))
            return Reply(
                200, raw=base64.b64decode(files[rest[2]]), headers={"Content-Type": "application/octet-stream"}
            )
        counts = {"completedItemCount": len(items), "totalItemCount": len(items)}
        return Reply(200, {"state": "complete", **counts, "batchExecutionResults": items})


def _scripted(service: Mapping[str, Any], objects: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    start: dict[str, Any] = {**objects}
    exec(service["initCode"] or "", start)  # what tests publish
    outputs = [each["name"] for each in service["outputParameterDefinitions"]]

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        variables = {**start, **inputs}
        exec(service["code"], variables)
        return {name: variables[name] for name in outputs}

    return run


def _native(service: Mapping[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    module_name, _, function = service["entrypoint"].partition(":")
    module = types.ModuleType(module_name)
    exec(base64.b64decode(service["files"][f"{module_name.replace('.', '/')}.py"]), module.__dict__)
    if service["init"]:
        getattr(module, service["init"].partition(":")[2])()
    return lambda inputs: {"answer": getattr(module, function)(**inputs)}


def _called(run: Callable[[dict[str, Any]], dict[str, Any]], inputs: dict[str, Any]) -> dict[str, Any]:
    printed = io.StringIO()
    answer: dict[str, Any] = {"success": True, "errorMessage": "", "outputParameters": {}, "changedFiles": []}
    with contextlib.redirect_stdout(printed):
        try:
            answer["outputParameters"] = run(inputs)
        except Exception as error:
            answer |= {"success": False, "errorMessage": f"{type(error).__name__}: {error}\nTraceback: ..."}
    content = base64.b64encode(b"plotted").decode()
    return {**answer, "consoleOutput": printed.getvalue(), "outputFiles": {"plot.png": content}}


@contextlib.contextmanager
def serving() -> Iterator[RestApi]:
    with RestApi() as api:
        yield api


def forever() -> None:
    """For tests in other processes: says its address, and serves until standard input ends."""
    import sys

    with RestApi() as api:
        print(api.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    forever()
