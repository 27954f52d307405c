"""Every route, for every role, and for tokens that are none: who is let in, and with what answer.

`MATRIX` has every operation of /openapi.json (a test holds that) with the least role that it takes on what nobody in
particular owns. Who is let in may still be told that what they ask for is not there.
"""

from __future__ import annotations

import time
from typing import Final

import httpx
import jwt
import pytest

from sessionpools.web.auth.identity import Principal, Role
from sessionpools.web.auth.tokens import issue
from sessionpools.web.edge import OPEN_PATHS
from support.auth import rsa_key
from support.web import WebWorld, error_of, signing_keys

ID: Final = "0b3ff8ea-2f8e-4d04-a9f8-6f8f0f0f9a11"
OWNER, CONTRIBUTOR, READER = Role.OWNER, Role.CONTRIBUTOR, Role.READER
RANK: Final = {None: -1, READER: 0, CONTRIBUTOR: 1, OWNER: 2}

# method, path as in the description, least role (None: no token needed), body
MATRIX: Final[list[tuple[str, str, Role | None, object]]] = [
    ("POST", "/login", None, {"username": "x", "password": "y"}),
    ("POST", "/login/refreshToken", None, {"refreshToken": "x"}),
    ("DELETE", "/login/refreshToken", None, None),
    ("GET", "/.well-known/jwks.json", None, None),
    ("GET", "/health", None, None),
    ("GET", "/services", READER, None),
    ("GET", "/services/{name}", READER, None),
    ("GET", "/services/{name}/{version}", READER, None),
    ("POST", "/services/{name}", CONTRIBUTOR, {"code": "x = 1"}),
    ("POST", "/services/{name}/{version}", CONTRIBUTOR, {"code": "x = 1"}),
    ("PATCH", "/services/{name}/{version}", OWNER, {"description": "x"}),
    ("DELETE", "/services/{name}/{version}", OWNER, None),
    ("GET", "/services/{name}/{version}/logs", OWNER, None),
    ("GET", "/services/{name}/{version}/pool", READER, None),
    ("POST", "/services/{name}/{version}/pool", OWNER, {"maxPoolSize": 1}),
    ("DELETE", "/services/{name}/{version}/pool", OWNER, None),
    ("GET", "/services/{name}/{version}/pool/usage", READER, None),
    ("GET", "/api/{name}/{version}/swagger.json", READER, None),
    ("GET", "/api/{name}/{version}/batch", READER, None),
    ("POST", "/api/{name}/{version}/batch", READER, [{"x": 1}]),
    ("GET", "/api/{name}/{version}/batch/{executionId}", READER, None),
    ("DELETE", "/api/{name}/{version}/batch/{executionId}", READER, None),
    ("GET", "/api/{name}/{version}/batch/{executionId}/{index}/files", READER, None),
    ("GET", "/api/{name}/{version}/batch/{executionId}/{index}/files/{fileName}", READER, None),
    ("GET", "/sessions", CONTRIBUTOR, None),
    ("POST", "/sessions", CONTRIBUTOR, {}),
    ("GET", "/sessions/{id}", CONTRIBUTOR, None),
    ("DELETE", "/sessions/{id}", CONTRIBUTOR, None),
    ("DELETE", "/sessions/{id}/force", CONTRIBUTOR, None),
    ("POST", "/sessions/{id}/snapshot", CONTRIBUTOR, {}),
    ("POST", "/sessions/{id}/loadsnapshot/{snapshotId}", CONTRIBUTOR, None),
    ("POST", "/sessions/{id}/execute", CONTRIBUTOR, {"code": "x"}),
    ("POST", "/sessions/{id}/cancel", CONTRIBUTOR, None),
    ("GET", "/sessions/{id}/console-output", CONTRIBUTOR, None),
    ("GET", "/sessions/{id}/history", CONTRIBUTOR, None),
    ("GET", "/sessions/{id}/workspace", CONTRIBUTOR, None),
    ("GET", "/sessions/{id}/workspace/{objectName}", CONTRIBUTOR, None),
    ("POST", "/sessions/{id}/workspace/{objectName}", CONTRIBUTOR, None),
    ("PUT", "/sessions/{id}/workspace/{objectName}", CONTRIBUTOR, None),
    ("DELETE", "/sessions/{id}/workspace/{objectName}", CONTRIBUTOR, None),
    ("GET", "/sessions/{id}/files", CONTRIBUTOR, None),
    ("POST", "/sessions/{id}/files", CONTRIBUTOR, None),
    ("GET", "/sessions/{id}/files/{fileName}", CONTRIBUTOR, None),
    ("PUT", "/sessions/{id}/files/{fileName}", CONTRIBUTOR, None),
    ("DELETE", "/sessions/{id}/files/{fileName}", CONTRIBUTOR, None),
    ("GET", "/snapshots", CONTRIBUTOR, None),
    ("GET", "/snapshots/{id}", CONTRIBUTOR, None),
    ("DELETE", "/snapshots/{id}", CONTRIBUTOR, None),
    ("GET", "/status", READER, None),
    ("GET", "/computenodes", OWNER, None),
    ("POST", "/computenodes", OWNER, {"entries": []}),
    ("PUT", "/computenodes", OWNER, {"entries": []}),
    ("DELETE", "/computenodes", OWNER, None),
    ("POST", "/realtime-services/{name}", CONTRIBUTOR, None),
    ("POST", "/realtime-services/{name}/{version}", CONTRIBUTOR, None),
    ("PATCH", "/realtime-services/{name}/{version}", CONTRIBUTOR, None),
]
CALL: Final = ("POST", "/api/{name}/{version}")  # the gateway's
VALUES: Final = {
    "name": "Score",
    "version": "v1",
    "id": ID,
    "executionId": ID,
    "snapshotId": ID,
    "index": "0",
    "objectName": "model",
    "fileName": "model.bin",
}


async def sent(client: httpx.AsyncClient, method: str, path: str, body: object) -> httpx.Response:
    # Score is nobody's, so it takes an Owner to publish a further version of it: what is published has another name
    values = VALUES | ({"name": "New"} if body == {"code": "x = 1"} else {})
    return await client.request(method, path.format(**values), json=body)


def test_the_matrix_has_every_operation_of_the_description(world: WebWorld) -> None:
    described = {
        (method.upper(), path) for path, item in world.app.openapi()["paths"].items() for method in item
    }  # fmt: skip
    assert described == {(method, path) for method, path, _, _ in MATRIX} | {CALL}


async def test_every_role_gets_what_it_may_and_403_for_the_rest(world: WebWorld) -> None:
    callers = {role: world.client("me", role) for role in Role}
    wrong = []
    for method, path, least, body in MATRIX:
        for role, client in callers.items():
            if world.parts.cluster.service("Score", "v1") is None:  # it was deleted
                await world.kubectl_service()
            answer = await sent(client, method, path, body)
            allowed = RANK[role] >= RANK[least]
            # publishing again is 403 as well, by Machine Learning Server's contract
            refused = answer.status_code == 403 and answer.json()["exceptionType"] == "Denied"
            if refused is allowed or (answer.status_code >= 500 and answer.status_code != 501):
                wrong.append(f"{role} {method} {path}: {answer.status_code} {answer.text}")
            if answer.status_code >= 400:
                error_of(answer)
    assert wrong == []


def forged() -> dict[str, str]:
    """Tokens that must not be believed, by what is wrong with them."""
    now = time.time()
    me = Principal("me", Role.OWNER)
    good = issue(signing_keys()[0], me, now).token
    head, payload, signature = good.split(".")
    claims = jwt.decode(good, options={"verify_signature": False})

    def signed(key: object = signing_keys()[0].private, algorithm: str = "RS256", **changes: object) -> str:
        kid = {"kid": signing_keys()[0].kid}
        return jwt.encode({**claims, **changes}, key, algorithm=algorithm, headers=kid)  # type: ignore[arg-type]

    return {
        "expired": issue(signing_keys()[0], me, now - 7200).token,
        "from the future": issue(signing_keys()[0], me, now + 7200).token,
        "wrong audience": signed(aud="another"),
        "wrong issuer": signed(iss="another"),
        "no audience": signed(aud=""),
        "signed by another": signed(rsa_key().private),
        "unknown key": issue(rsa_key(), me, now).token,
        "unsigned": f"{head}.{payload}.",
        "another signature": f"{head}.{payload}.{signature[::-1]}",
        "algorithm none": jwt.encode(claims, "", algorithm="none"),
        "HMAC with the public key": jwt.encode(claims, "session-pools-session-pools-session-pools", algorithm="HS256"),
        "unknown role": signed(role="Root"),
        "role of another type": signed(role=["Owner"]),
        "no JWT": "opaque",
    }


@pytest.mark.parametrize("what", [None, *forged()])
async def test_no_route_but_the_open_ones_answers_without_a_good_token(world: WebWorld, what: str | None) -> None:
    token = forged()[what] if what else ""
    client = world.client(role=None, token=token)
    changes = len(world.server.writes())
    for method, path, least, body in MATRIX:
        answer = await sent(client, method, path, body)
        if least is None:
            assert path in OPEN_PATHS
            continue
        assert answer.status_code == 401, f"{method} {path}: {answer.status_code}"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        error_of(answer)
    for path in ("/nothing", "/services/", "/metrics", "/bundles/x"):  # nor says what there is not
        assert (await client.get(path)).status_code == 401
    assert len(world.server.writes()) == changes


async def test_the_description_and_its_page_are_open_as_they_are_the_same_everywhere(world: WebWorld) -> None:
    client = world.client(role=None)
    assert (await client.get("/openapi.json")).status_code == 200
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "http://" not in page.text.replace("http://www.w3.org", "")
    assert "https://" not in page.text
    assert (await client.get("/docs/static/swagger-ui.css")).status_code == 200


async def test_where_authentication_is_off_everybody_is_owner_and_it_is_said_loudly(
    world: WebWorld, caplog: pytest.LogCaptureFixture
) -> None:
    replica = await world.replica(auth_enabled=False)
    client = world.of(replica, role=None)
    assert (await client.post("/services/Open/v1", json={"code": "x = 1"})).status_code == 201
    assert world.service("Open")["metadata"]["annotations"]["sessionpools.dev/owner"] == "anonymous"
    assert (await client.get("/computenodes")).status_code == 200
    status = (await client.get("/status")).json()
    assert status["components"]["authentication"]["statusCode"] == "warn"
    assert "AUTHENTICATION IS TURNED OFF" in status["details"]["warning"]
    assert "AUTHENTICATION IS TURNED OFF" in caplog.text
    login = (await client.post("/login", json={"username": "admin", "password": "anything"})).json()
    assert login["access_token"]  # clients that log in go on
