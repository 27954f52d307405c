"""A release with tokens, in a namespace of its own beside the one for everybody, and what its users do through its
gateway. Its web API has two replicas on one volume, a directory of a worker: the cluster may have no provisioner.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from sessionpools.api.names import GATEWAY_ACTIVE, LABEL_GATEWAY
from sessionpools.core.passwords import SALT_BYTES, hash_password
from sessionpools.web.auth import keys
from support.cluster import CONTEXT, apply, docker, get, helm, kubectl, wait_for
from support.pools import READY_SECONDS, WORKERS, Json
from support.tools import ROOT, tool

RELEASE: Final = "secured"
NAME: Final = f"{RELEASE}-session-pools"
GATEWAY, WEB = f"{NAME}-gateway", f"{NAME}-web"
ADMIN_SECRET, KEYS_SECRET, PUBLIC_KEYS, USERS_SECRET = (
    f"{NAME}-{part}" for part in ("admin", "keys", "keys-public", "users")
)
# Name, password and role of those who are in the users file.
USERS: Final = {"ada": ("ada's password", "Contributor"), "bob": ("bob's password", "Reader")}
CLAIMS: Final = {"iss": "session-pools", "aud": "session-pools", "sub": "admin", "role": "Owner"}
_NODE: Final = WORKERS[0]


@dataclass(frozen=True)
class Secured:
    namespace: str
    place: Path  # for the file of its values

    # --- the release --------------------------------------------------------------------------------------------------

    def install(self, values: Mapping[str, Any] | None = None) -> None:
        """Installs or upgrades it, and waits until it serves. Raises AssertionError with what helm says."""
        path = self.place / "values.json"
        path.write_text(json.dumps(_values(self.namespace) | dict(values or {})))
        chart = str(ROOT / "charts/session-pools")
        helm(
            "upgrade", "--install", RELEASE, chart, "--namespace", self.namespace, "--values", str(path),
            "--wait", "--timeout", "180s",
        )  # fmt: skip

    def uninstall(self) -> None:
        helm("uninstall", RELEASE, "--namespace", self.namespace, "--ignore-not-found", "--wait", "--timeout", "120s")

    @property
    def gateway(self) -> str:
        """Its address inside of the cluster."""
        return f"http://{GATEWAY}.{self.namespace}:12800"

    def secret(self, name: str, entry: str) -> str:
        return base64.b64decode(get("secret", name, self.namespace)["data"][entry]).decode()

    @property
    def password(self) -> str:
        return self.secret(ADMIN_SECRET, "password")

    def key_set(self) -> keys.KeySet:
        return keys.load(self.secret(KEYS_SECRET, "keys.json"))

    def write_keys(self, changed: keys.KeySet) -> None:
        body = {"stringData": {"keys.json": keys.dump(changed)}}
        kubectl("patch", "secret", KEYS_SECRET, "-n", self.namespace, "--type=merge", "-p", json.dumps(body))

    def pods(self, component: str) -> list[Json]:
        """Of controller, gateway or web, those that are not on their way out."""
        selector = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={component}"
        found = json.loads(kubectl("get", "pods", "-n", self.namespace, "-l", selector, "-o", "json").stdout)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    @contextlib.contextmanager
    def forwarded(self, local_port: int | None = None) -> Iterator[str]:
        """The address of its gateway on this machine, at `local_port` or any that is free."""
        active = wait_for(self._active_gateway, 60, "a gateway of the release is active")
        with _forwarded(self.namespace, f"pod/{active}", f"{local_port or ''}:12800") as url:
            yield url

    @contextlib.contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """Its gateway, from this machine."""
        with self.forwarded() as url, httpx.Client(base_url=url, timeout=60) as made:
            yield made

    def _active_gateway(self) -> str:
        names = [
            pod["metadata"]["name"]
            for pod in self.pods("gateway")
            if pod["metadata"]["labels"].get(LABEL_GATEWAY) == GATEWAY_ACTIVE
        ]
        return names[0] if len(names) == 1 else ""


# --- what users do ----------------------------------------------------------------------------------------------------


def log_in(client: httpx.Client, user: str, password: str) -> str:
    """The access token, when the gateway believes it: of a release's first key it learns a moment after the web API."""

    def token() -> str:
        answer = client.post("/login", json={"username": user, "password": password})
        if answer.status_code == 503:
            return ""
        assert answer.status_code == 200, answer.text
        found: str = answer.json()["access_token"]
        call = client.post("/api/no-such-service/v1", headers=bearer(found), json={})
        return found if call.status_code == 404 else ""

    return wait_for(token, 60, f"{user} has a token that the gateway believes")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def minted(key: keys.Key, *, private: RSAPrivateKey | None = None, **claims: Any) -> str:
    """A token of this key, or one that only says so and is signed with `private`."""
    now = int(time.time())
    said = CLAIMS | {"iat": now, "exp": now + 600, "jti": secrets.token_hex(8)} | claims
    return jwt.encode(said, private or key.private, algorithm="RS256", headers={"kid": key.kid})


def publication(code: str) -> Json:
    """What is posted to publish a module `service` with a function `predict(x)`."""
    files = {"service.py": base64.b64encode(code.encode()).decode()}
    return {"entrypoint": "service:predict", "files": files, "warmup": {"x": 1}}


def publish_with_pool(client: httpx.Client, token: str, name: str, code: str, initial: int = 1) -> None:
    """Publishes version v1 and waits until its pool is Success on every compute node."""
    headers = bearer(token)
    answer = client.post(f"/services/{name}/v1", headers=headers, json=publication(code))
    assert answer.status_code == 201, answer.text
    sizes = {"initialPoolSize": initial, "maxPoolSize": initial + 1}
    answer = client.post(f"/services/{name}/v1/pool", headers=headers, json=sizes)
    assert answer.status_code == 200, answer.text
    until_success(client, token, name)


def until_success(client: httpx.Client, token: str, name: str) -> None:
    def states() -> Json:
        answer = client.get(f"/services/{name}/v1/pool", headers=bearer(token))
        rows = answer.json() if answer.status_code == 200 else []
        return {"rows": rows} if rows and {row["status"] for row in rows} == {"Success"} else {}

    wait_for(states, READY_SECONDS, f"the pool of {name} is Success on every compute node")


# --- where it is ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def secured_release(namespace: str, place: Path) -> Iterator[Secured]:
    """The release, with its volume and its users; gone afterwards."""
    release = Secured(namespace, place)
    directory, volume = f"/var/lib/{namespace}", f"{namespace}-store"
    docker("exec", _NODE, "install", "--directory", "--mode=0770", "--owner=65532", "--group=65532", directory)
    kubectl("create", "--filename", "-", input=json.dumps(_volume(volume, directory, namespace)))
    try:
        apply(_users(), namespace=namespace)
        release.install()
        yield release
    finally:
        kubectl("delete", "sessionpools.sessionpools.dev,webservices.sessionpools.dev", "--all", "-n", namespace)
        release.uninstall()
        kubectl("delete", "persistentvolumeclaim", "--all", "-n", namespace, "--wait=false")
        kubectl("delete", "persistentvolume", volume, "--wait=false")
        docker("exec", _NODE, "rm", "-rf", directory)


def _values(namespace: str) -> Json:
    return {
        # nothing that is valid for the whole cluster, so that a run that was broken off leaves nothing there
        "crds": {"enabled": False},
        "rbac": {"clusterScoped": False},
        "watch": {"namespaces": [namespace], "nodes": list(WORKERS)},
        "controller": {"replicas": 1},
        "gateway": {"replicas": 1},
        "web": {
            "replicas": 2,
            "store": {
                "persistence": {"storageClassName": "-", "size": "1Gi", "accessModes": ["ReadWriteMany"]},
            },
        },
    }


def _volume(name: str, directory: str, namespace: str) -> Json:
    here = [{"key": "kubernetes.io/hostname", "operator": "In", "values": [_NODE]}]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": namespace, "name": WEB},
            "local": {"path": directory},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": here}]}},
        },
    }


def _users() -> Json:
    listed = [
        {"name": name, "passwordHash": hash_password(password, secrets.token_bytes(SALT_BYTES)), "role": role}
        for name, (password, role) in USERS.items()
    ]
    metadata = {"name": USERS_SECRET}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "stringData": {"users.yaml": json.dumps(listed)},  # JSON is YAML
    }


@contextlib.contextmanager
def _forwarded(namespace: str, target: str, ports: str) -> Iterator[str]:
    command = [tool("kubectl"), "--context", CONTEXT, "port-forward", "-n", namespace, target, ports]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"127\.0\.0\.1:\d+", line)
        assert match, f"kubectl port-forward said {line!r}"
        yield f"http://{match[0]}"
    finally:
        process.terminate()
        process.wait()
