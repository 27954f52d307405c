"""Calls of a web service."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from sessionpools.client.errors import AnswerInvalid, CallFailed, InputInvalid
from sessionpools.client.exchange import Flow, Link
from sessionpools.client.flows.services import Services
from sessionpools.client.models import CallResult, read
from sessionpools.client.values import encode_inputs
from sessionpools.client.wire import CALL_SECONDS, Repeat, Request, Timeout, path_of, post_json

__all__ = ["Calls"]

_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


class Calls:
    def __init__(self, link: Link) -> None:
        self._link = link

    def call(
        self,
        name: str,
        version: str = "",
        inputs: Mapping[str, Any] = _NONE,
        /,
        *,
        timeout: float = CALL_SECONDS,
        **more: Any,
    ) -> Flow[CallResult]:
        """Call a web service with these inputs: `call("Score", "v1", bmi=32.1)`.

        Inputs whose names are no keywords, or `timeout`, are given as dict. numpy arrays and pandas data frames are
        taken as they are. Without a version (one more request) the last one is called. `timeout` is in seconds, for the
        answer; the pool's own limit is requestTimeoutSeconds.

        It is sent again only when no session has seen it: while nobody listens, or when pool and queue are full and the
        gateway says when to come back.

        Raises CallFailed (the code raised), BadRequest (an input is missing, unknown or of another type), NotFound (no
        such service), TooManyRequests (pool and queue are full), Unavailable (no session is ready), ServerError (502:
        the session died; 504: it took too long), InputInvalid (no JSON form), TransportError.
        """
        if twice := inputs.keys() & more.keys():
            raise InputInvalid(f"input {min(twice)!r} is given twice: in the dict and by name")
        if not version:
            version = (yield from Services(self._link).get(name)).version
        body = encode_inputs({**inputs, **more})
        request = post_json(path_of("api", name, version), body, timeout=Timeout(answer=timeout), repeat=Repeat.UNSEEN)
        response = yield from self._link.exchange(request)
        answer = response.json()
        if not isinstance(answer, dict) or "success" not in answer:
            raise AnswerInvalid(
                f"{request}: the answer is not that of a session: is this the address of Session Pools?"
            )
        answer["requestId"] = response.headers.get("x-request-id", "")
        result = read(CallResult, answer, str(request))
        if not result.success:
            raise CallFailed(f"{name} {version}: {result.error or 'the call failed'}", result)
        return result

    def swagger(self, name: str, version: str) -> Flow[Mapping[str, Any]]:
        """The service's own swagger 2.0 document."""
        request = Request("GET", path_of("api", name, version, "swagger.json"))
        response = yield from self._link.exchange(request)
        return read(dict[str, Any], response.json(), str(request))
