"""A pod that calls the gateway as the cluster's users do: by the Service's name, over the pod network."""

import contextlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final
from urllib.parse import quote

from support.cluster import apply, kubectl, temporary_namespace, wait_for
from support.pools import Answer, Json
from support.tools import ROOT

GATEWAY: Final = "http://session-pools-gateway.session-pools:12800"
_LOAD: Final = (ROOT / "tests/support/load.py").read_text()
_POD: Final = "caller"
_IMAGE: Final = "session-pools-session:dev"
# Reads a request as JSON from its argument, prints status, headers and body.
_CALL: Final = """
import json, ssl, sys, urllib.error, urllib.request
method, url, headers, body, timeout, authority = json.loads(sys.argv[1])
request = urllib.request.Request(url, body.encode() if body is not None else None, headers, method=method)
context = ssl.create_default_context(cadata=authority) if authority else None
try:
    answer = urllib.request.urlopen(request, timeout=timeout, context=context)
except urllib.error.HTTPError as error:
    answer = error
found = {name.lower(): value for name, value in answer.headers.items()}
print(json.dumps([answer.status, found, answer.read().decode()]))
"""


def service_url(namespace: str, name: str, version: str = "v1") -> str:
    return f"{GATEWAY}/namespaces/{namespace}/api/{quote(name, safe='')}/{quote(version, safe='')}"


@dataclass(frozen=True)
class Caller:
    namespace: str
    node: str
    _numbers: Iterator[int] = field(default_factory=count)

    def call(self, url: str, inputs: Any, *, timeout: float = 60) -> Answer:
        status, _, body = self.request("POST", url, json.dumps(inputs), timeout=timeout)
        return Answer(status, json.loads(body))

    def request(
        self,
        method: str,
        url: str,
        body: str | None = None,
        headers: dict[str, str] | None = None,
        *,
        timeout: float = 60,
        authority: str = "",
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers (names in lower case), body. `authority`: the certificate that an https server must have its
        own from, PEM."""
        sent = {"Content-Type": "application/json", **(headers or {})}
        asked = json.dumps([method, url, sent, body, timeout, authority])
        status, found, text = json.loads(self._exec("python", "-", asked, input=_CALL))
        return status, found, text

    def load(self, url: str, inputs: Any, *arguments: str) -> "Load":
        """Starts calls (support/load.py's arguments) in the pod and returns at once: what is done to the API server
        does not touch them."""
        name = f"/tmp/load-{next(self._numbers)}"
        command = shlex.join(["python", f"{name}.py", url, json.dumps(inputs), "--until", f"{name}.end", *arguments])
        script = (
            f"cat > {name}.py; ({command} > {name}.new 2> {name}.error && mv {name}.new {name}.json) >/dev/null 2>&1 &"
        )
        self._exec("sh", "-c", script, input=_LOAD)
        return Load(self, name)

    def read(self, path: str) -> str:
        """A file of the pod; "" if there is none, or the API server does not answer."""
        return kubectl("exec", "-n", self.namespace, _POD, "--", "cat", path, check=False).stdout

    def write(self, path: str) -> None:
        """An empty file of the pod."""
        self._exec("sh", "-c", f": > {path}", input="")

    def _exec(self, *command: str, input: str) -> str:
        return kubectl("exec", "-n", self.namespace, "-i", _POD, "--", *command, input=input).stdout


@dataclass(frozen=True)
class Load:
    caller: Caller
    name: str

    def result(self, seconds: float = 120) -> Json:
        """What became of the calls (support/load.py's summary), once they have ended."""
        text = wait_for(lambda: self.caller.read(f"{self.name}.json"), seconds, "the calls end")
        found: Json = json.loads(text)
        return found

    def end(self) -> Json:
        """No further call begins; what became of those that have. Until now they did not end by themselves."""
        assert not self.caller.read(f"{self.name}.json"), "the calls have ended before what they are to be beside"
        self.caller.write(f"{self.name}.end")
        return self.result()


@contextlib.contextmanager
def caller(node: str) -> Iterator[Caller]:
    """The pod stays on `node`."""
    with temporary_namespace("caller") as namespace:
        container = {
            "name": _POD,
            "image": _IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "infinity"],
        }
        spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0}
        apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": _POD}, "spec": spec}, namespace=namespace)
        kubectl("wait", "--for=condition=Ready", f"pod/{_POD}", "-n", namespace, "--timeout=120s")
        yield Caller(namespace, node)
