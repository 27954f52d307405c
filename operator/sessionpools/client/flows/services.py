"""Web services: list, get, publish, update, delete, and what their sessions print."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

from sessionpools.client.errors import AnswerInvalid, InputInvalid, NotFound, SessionPoolsError
from sessionpools.client.exchange import Flow, Link
from sessionpools.client.models import Service, ServiceLogs, read
from sessionpools.client.sources import definitions, source_of
from sessionpools.client.values import encode_inputs
from sessionpools.client.wire import UPLOAD_SECONDS, Repeat, Request, Response, Timeout, path_of, post_json, with_json

__all__ = ["Publication", "Services"]

_INLINE_BYTES: Final = 32 << 20  # of files in the body: JSON has 64 MiB at most, and base64 takes a third more


class Publication(TypedDict, total=False):
    """What can be said of a web service beside its code.

    - script: the code is a script (a path, or its text) that runs for each call: inputs are variables, and so are
      outputs, which have to be declared; `init` is then the text of a block that runs once before
    - entrypoint, init: `module:function` that answers calls, and that runs once before. Left out: `predict` or the only
      public function of the file, `init` or `load` if it has one; an empty `init` is none
    - modules: imported before the code
    - inputs, outputs: types by name, as Python types (float, numpy.ndarray, pandas.DataFrame) or their names; left
      out, a function's annotations say them
    - output_files: files that a call writes, and that are returned
    - warmup: the inputs of a call that each session answers before it counts as ready
    - alias: what clients of Machine Learning Server name the function that calls it
    """

    script: bool
    entrypoint: str
    init: str
    modules: Sequence[str]
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    output_files: Sequence[str]
    warmup: Mapping[str, Any]
    description: str
    alias: str


class Services:
    def __init__(self, link: Link) -> None:
        self._link = link

    def list(self, name: str = "") -> Flow[Sequence[Service]]:
        """All web services, or all versions of one, oldest first. None of that name is an empty list."""
        request = Request("GET", path_of("services", name) if name else "/services")
        try:
            response = yield from self._link.exchange(request)
        except NotFound:
            if not name:
                raise
            return []
        return read(list[Service], response.json(), str(request))

    def get(self, name: str, version: str = "") -> Flow[Service]:
        """One version; without `version` the last in the list, as Machine Learning Server has it. Raises NotFound."""
        return (yield from self._get(name, version))

    def _get(self, name: str, version: str, *, fresh: bool = False) -> Flow[Service]:
        request = Request("GET", path_of("services", name, *([version] if version else [])), fresh=fresh)
        response = yield from self._link.exchange(request)
        body = response.json()
        found = read(list[Service], body if isinstance(body, list) else [body], str(request))
        if not found:
            what = f"{name} {version}".strip()
            raise NotFound(404, "Not Found", f"there is no web service {what}; names are case-sensitive", {})
        return found[-1]

    def publish(
        self, name: str, version: str, code: Callable[..., Any] | Path | str, **more: Unpack[Publication]
    ) -> Flow[Service]:
        """Publish a function, a .py file, a folder or a script, and get what was published. `more`: see Publication.

        Raises InputInvalid, before anything is sent, and Forbidden when the version exists: `update` changes it.
        """
        yield from self._write("POST", name, version, _publication(code, more))
        return (yield from self._get(name, version, fresh=True))

    def update(
        self,
        name: str,
        version: str,
        code: Callable[..., Any] | Path | str | None = None,
        *,
        force: bool = False,
        **more: Unpack[Publication],
    ) -> Flow[Service]:
        """Change what is given, keep the rest, and get the result. The pool's sessions are replaced by and by.

        - force: also when something else manages the object (Helm, Flux, Argo CD), which may undo it

        Raises Conflict where something else manages it, NotFound, Forbidden (somebody else's), InputInvalid.
        """
        publication = _publication(code, more)
        if not publication.body:
            raise InputInvalid(f"{name} {version}: there is nothing to update: give code or another field")
        yield from self._write("PATCH", name, version, publication, force)
        return (yield from self.get(name, version))

    def delete(self, name: str, version: str, *, force: bool = False) -> Flow[None]:
        """Unpublish it: calls get 404 from now on. The pool that was made for it by this API ends with it.

        Raises NotFound, Forbidden (somebody else's), Conflict (something else manages it, unless forced).
        """
        request = Request("DELETE", path_of("services", name, version), _forced(force), gone_is_done=True)
        yield from self._link.exchange(request)

    def logs(self, name: str, version: str, lines: int = 100, *, node: str = "") -> Flow[ServiceLogs]:
        """The last lines of the log of each of its session pods, 1 to 10,000; with `node` only of those there.

        What calls print is in lines of JSON whose `event` is `console`. A log that can not be read says why instead.

        Raises NotFound (no such service, no pool, no session on the node), Forbidden (somebody else's), BadRequest.
        """
        asked = {"lines": str(lines), **({"node": node} if node else {})}
        request = Request("GET", path_of("services", name, version, "logs"), asked)
        response = yield from self._link.exchange(request)
        return read(ServiceLogs, response.json(), str(request))

    def _write(
        self, method: str, name: str, version: str, publication: _Publication, force: bool = False
    ) -> Flow[None]:
        body, files = publication.body, publication.files
        path, timeout = path_of("services", name, version), Timeout(answer=UPLOAD_SECONDS)
        fields: dict[str, Any] = {"params": _forced(force), "repeat": Repeat.UNCONNECTED, "timeout": timeout}
        if sum(map(len, files.values())) <= _INLINE_BYTES:
            encoded = {place: base64.b64encode(content).decode() for place, content in files.items()}
            yield from self._link.exchange(
                with_json(method, path, {**body, **({"files": encoded} if encoded else {})}, **fields)
            )
            return
        made: list[tuple[str, str]] = []  # what is there to publish from; it would expire by itself
        try:
            snapshot = yield from self._snapshot(files, made)
            yield from self._link.exchange(with_json(method, path, {**body, "snapshotId": snapshot}, **fields))
        except SessionPoolsError:
            yield from self._forget(made)
            raise
        yield from self._forget(made)

    def _snapshot(self, files: Mapping[str, bytes], made: MutableSequence[tuple[str, str]]) -> Flow[str]:
        """The id of a snapshot with these files, each sent by itself; `made` gets what there is to be removed."""
        timeout = Timeout(answer=UPLOAD_SECONDS)
        session = _id((yield from self._link.exchange(post_json("/sessions", {"runtimeType": "Python"}))), "sessionId")
        made.append(("sessions", session))
        for place, content in files.items():
            path = path_of("sessions", session, "files", *place.split("/"))
            yield from self._link.exchange(
                Request("PUT", path, body=content, content_type="application/octet-stream", timeout=timeout)
            )
        taken = yield from self._link.exchange(post_json(path_of("sessions", session, "snapshot"), {}, timeout=timeout))
        made.append(("snapshots", _id(taken, "snapshotId")))
        return made[-1][1]

    def _forget(self, made: Sequence[tuple[str, str]]) -> Flow[None]:
        for kind, name in reversed(made):
            with contextlib.suppress(SessionPoolsError):  # it expires
                yield from self._link.exchange(Request("DELETE", path_of(kind, name), gone_is_done=True))


@dataclass(frozen=True, slots=True)
class _Publication:
    body: Mapping[str, Any]
    files: Mapping[str, bytes]


def _forced(force: bool) -> dict[str, str]:
    return {"force": "true"} if force else {}


def _id(response: Response, field: str) -> str:
    body = response.json()
    found = body.get(field) if isinstance(body, dict) else None
    if not isinstance(found, str) or not found:
        raise AnswerInvalid(f"{response.request}: the answer has no {field}")
    return found


def _publication(code: Callable[..., Any] | Path | str | None, more: Publication) -> _Publication:
    if unknown := more.keys() - Publication.__annotations__.keys():
        raise InputInvalid(f"{sorted(unknown)[0]!r} is no field of a publication: see Publication for those there are")
    script, entrypoint = more.get("script", False), more.get("entrypoint", "")
    fields: dict[str, Any] = {"entrypoint": entrypoint} if entrypoint else {}
    files: Mapping[str, bytes] = {}
    if code is not None:
        source = source_of(code, entrypoint=entrypoint, script=script)
        fields, files = {**source.fields, "runtimeType": "Python"}, source.files
    said = {
        "initCode" if script else "init": more.get("init"),
        "inputParameterDefinitions": definitions(more.get("inputs"), "input"),
        "outputParameterDefinitions": definitions(more.get("outputs"), "output"),
        "outputFileNames": list(more["output_files"]) if "output_files" in more else None,
        "modules": list(more["modules"]) if "modules" in more else None,
        "warmup": encode_inputs(more["warmup"]) if "warmup" in more else None,
        "description": more.get("description"),
        "operationId": more.get("alias"),
    }
    return _Publication({**fields, **{name: value for name, value in said.items() if value is not None}}, files)
