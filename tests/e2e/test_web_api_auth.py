"""Tokens on the way of every request, and what a release with a web API keeps."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from sessionpools.api.names import ANNOTATION_OWNER, ANNOTATION_ROTATE_AT, LABEL_POOL_UID
from sessionpools.web.auth.keys import LEAD_SECONDS, Key, KeySet
from support.caller import caller
from support.cluster import get, kubectl, wait_for
from support.pools import DOUBLE, READY_SECONDS, SERVICES, WORKERS, Json
from support.secured import (
    ADMIN_SECRET,
    GATEWAY,
    KEYS_SECRET,
    USERS,
    WEB,
    Secured,
    bearer,
    log_in,
    minted,
    publication,
    publish_with_pool,
    until_success,
)

pytestmark = pytest.mark.timeout(600)

LONGEST_SECONDS = 240  # of load at most: it ends when what it is beside is done
SERVICE = "doubled"
CALL = f"/api/{SERVICE}/v1"


@pytest.fixture
def client(release: Secured) -> Iterator[httpx.Client]:
    with release.client() as made:
        yield made


@pytest.fixture
def admin(release: Secured, client: httpx.Client) -> str:
    """A token of the user admin."""
    return log_in(client, "admin", release.password)


@pytest.fixture
def published(client: httpx.Client, admin: str) -> str:
    """The path of calls of a service with a pool; its name is SERVICE."""
    found = client.get(f"/services/{SERVICE}/v1", headers=bearer(admin))
    if found.status_code == 404:
        publish_with_pool(client, admin, SERVICE, DOUBLE)
    else:
        until_success(client, admin, SERVICE)
    return CALL


def answer_of(client: httpx.Client, token: str, path: str = CALL) -> tuple[int, Json]:
    answer = client.post(path, headers=bearer(token), json={"x": 21})
    return answer.status_code, answer.json().get("outputParameters", {})


# --- who may ----------------------------------------------------------------------------------------------------------


def test_who_logs_in_through_the_gateway_publishes_pools_and_calls(
    release: Secured, client: httpx.Client, admin: str
) -> None:
    publish_with_pool(client, admin, "by-admin", DOUBLE)
    assert answer_of(client, admin, "/api/by-admin/v1") == (200, {"answer": 42})
    # whose code it is and where it comes from stands in the cluster
    listed = json.loads(kubectl("get", SERVICES, "-n", release.namespace, "-o", "json").stdout)["items"]
    (service,) = [each for each in listed if each["spec"]["name"] == "by-admin"]
    assert service["metadata"]["annotations"][ANNOTATION_OWNER] == "admin"
    assert service["spec"]["code"]["bundle"]["url"].startswith(f"http://{WEB}.{release.namespace}:12803/bundles/")
    assert client.delete("/services/by-admin/v1", headers=bearer(admin)).status_code == 200
    wait_for(lambda: answer_of(client, admin, "/api/by-admin/v1")[0] == 404, 30, "a deleted service is unknown")


def test_no_request_passes_without_a_token_of_ours_that_is_still_good(
    release: Secured, client: httpx.Client, published: str
) -> None:
    key = release.key_set().keys[0]
    now = int(time.time())
    none = ""
    tokens = {
        "good": minted(key),
        "none": none,
        "expired": minted(key, iat=now - 7200, exp=now - 3600),
        "forged": minted(key, private=generate_private_key(public_exponent=65537, key_size=2048)),
        "of an unknown key": minted(dataclasses.replace(key, kid="0" * 32)),
        "for another audience": minted(key, aud="something-else"),
        "of another issuer": minted(key, iss="somebody-else"),
        "unsigned": jwt.encode({"sub": "admin", "role": "Owner"}, "", algorithm="none"),
        "not a token": "good-morning",
    }
    routes = [
        ("POST", published),
        ("POST", f"/namespaces/{release.namespace}{published}"),
        ("GET", f"{published}/swagger.json"),
        ("GET", f"{published}/batch"),
        ("GET", "/services"),
        ("GET", f"/services/{SERVICE}/v1/pool"),
        ("GET", "/sessions"),
        ("GET", "/snapshots"),
        ("GET", "/status"),
        ("GET", "/computenodes"),
    ]
    found = {
        (kind, path): client.request(
            method, path, headers=bearer(token) if token else {}, json={"x": 1} if method == "POST" else None
        ).status_code
        for kind, token in tokens.items()
        for method, path in routes
    }
    assert found == {(kind, path): 200 if kind == "good" else 401 for kind in tokens for _, path in routes}


def test_what_is_for_everybody_needs_no_token(client: httpx.Client) -> None:
    for path in ("/health", "/.well-known/jwks.json", "/openapi.json"):
        assert client.get(path).status_code == 200, path
    refused = client.post("/login", json={"username": "admin", "password": "guessed"})
    assert refused.status_code == 401
    assert set(refused.json()) == {"message", "link", "exceptionType"}


def test_each_role_may_what_it_may(client: httpx.Client, admin: str, published: str) -> None:
    tokens = {"admin": admin} | {name: log_in(client, name, password) for name, (password, _) in USERS.items()}
    mine = {name: f"/services/of-{name}/v1" for name in tokens}
    requests = {
        "call": ("POST", published, {"x": 1}),
        "list": ("GET", "/services", None),
        "publish": ("POST", "", publication(DOUBLE)),
        "change another's": ("PATCH", f"/services/{SERVICE}/v1", {"description": "changed"}),
        "pool of another's": ("POST", f"/services/{SERVICE}/v1/pool", {"initialPoolSize": 1, "maxPoolSize": 2}),
        "nodes": ("GET", "/computenodes", None),
    }
    found = {
        name: {
            what: client.request(method, path or mine[name], headers=bearer(token), json=body).status_code
            for what, (method, path, body) in requests.items()
        }
        for name, token in tokens.items()
    }
    denied = {"change another's": 403, "pool of another's": 403, "nodes": 403}
    allowed = dict.fromkeys(requests, 200) | {"publish": 201}
    assert found == {"admin": allowed, "ada": allowed | denied, "bob": allowed | denied | {"publish": 403}}
    assert client.delete(mine["ada"], headers=bearer(tokens["ada"])).status_code == 200
    assert client.delete(mine["admin"], headers=bearer(tokens["ada"])).status_code == 403
    assert client.delete(mine["admin"], headers=bearer(admin)).status_code == 200


# --- keys -------------------------------------------------------------------------------------------------------------


def kid_of(token: str) -> str:
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid


def older(key: Key, seconds: int) -> Key:
    return dataclasses.replace(key, created=key.created - seconds)


def test_a_turn_of_the_keys_under_load_loses_no_call(
    release: Secured, client: httpx.Client, admin: str, published: str
) -> None:
    before = release.key_set()
    signing, following = before.keys
    assert kid_of(admin) == signing.kid
    # as if the next key had been known to the gateways for as long as it has to be
    release.write_keys(KeySet.of([signing, older(following, 2 * LEAD_SECONDS)]))
    with caller(WORKERS[1]) as pod:
        arguments = ("--connections", "2", "--rate", "20", "--seconds", str(LONGEST_SECONDS))
        url = f"{release.gateway}{published}"
        with_the_old = pod.load(url, {"x": 1}, *arguments, "--token", admin)
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        kubectl("annotate", "secret", KEYS_SECRET, "-n", release.namespace, f"{ANNOTATION_ROTATE_AT}={when}")

        def turned() -> str:
            token = log_in(client, "admin", release.password)
            return token if kid_of(token) == following.kid else ""

        new = wait_for(turned, 120, "the next key signs")
        with_the_new = pod.load(url, {"x": 1}, *arguments, "--token", new)
        made = release.key_set().keys
        assert [key.kid for key in made[:2]] == [signing.kid, following.kid]
        assert len(made) == 3  # and another one follows
        config_map = get("configmap", KEYS_SECRET + "-public", release.namespace)
        assert set(config_map["data"]) == {f"{key.kid}.pem" for key in made}
        # both web APIs sign with it: each login may be another's
        wait_for(
            lambda: {kid_of(log_in(client, "admin", release.password)) for _ in range(8)} == {following.kid},
            60, "both sign with the new key",
        )  # fmt: skip
        results = [load.end() for load in (with_the_old, with_the_new)]
    assert [set(result["statuses"]) for result in results] == [{"200"}, {"200"}], results


# --- two web APIs -----------------------------------------------------------------------------------------------------


def test_two_web_apis_in_a_storm_of_publish_and_delete_leave_what_they_say(
    release: Secured, client: httpx.Client, admin: str
) -> None:
    assert len(release.pods("web")) == 2
    names = [f"storm-{number}" for number in range(4)]

    def storm(seed: int) -> Counter[tuple[str, int]]:
        chance = random.Random(seed)
        found: Counter[tuple[str, int]] = Counter()
        for number in range(25):
            name = chance.choice(names)
            if chance.random() < 0.6:
                body = publication(f"{DOUBLE}# {seed} {number}\n")
                answer = client.post(f"/services/{name}/v1", headers=bearer(admin), json=body)
                found["publish", answer.status_code] += 1
            else:
                answer = client.delete(f"/services/{name}/v1", headers=bearer(admin))
                found["delete", answer.status_code] += 1
        return found

    with ThreadPoolExecutor(6) as threads:
        outcomes = sum(threads.map(storm, range(6)), Counter[tuple[str, int]]())
    # taken, there already, somebody else was faster; gone, not there, made anew meanwhile
    expected = {("publish", status) for status in (201, 403, 409)} | {("delete", status) for status in (200, 404, 409)}
    assert set(outcomes) <= expected, outcomes
    assert outcomes["publish", 201] and outcomes["delete", 200]

    def in_the_cluster() -> list[str]:
        listed = json.loads(kubectl("get", SERVICES, "-n", release.namespace, "-o", "json").stdout)["items"]
        return sorted(each["spec"]["name"] for each in listed if each["spec"]["name"] in names)

    def told() -> list[str]:
        listed = client.get("/services", headers=bearer(admin)).json()
        return sorted(each["name"] for each in listed if each["name"] in names)

    there = in_the_cluster()
    assert len(there) == len(set(there)) == outcomes["publish", 201] - outcomes["delete", 200]
    # whichever of the two is asked
    wait_for(lambda: all(told() == there for _ in range(8)), 30, "both web APIs tell what is in the cluster")
    for name in there:
        assert client.delete(f"/services/{name}/v1", headers=bearer(admin)).status_code == 200
    assert in_the_cluster() == []


# --- what is kept -----------------------------------------------------------------------------------------------------


def kept(release: Secured) -> tuple[str, list[str]]:
    return release.password, [key.kid for key in release.key_set().keys]


def replaced_sessions_fetch_their_code(release: Secured, client: httpx.Client, token: str) -> None:
    kubectl("delete", "pods", "-n", release.namespace, "-l", LABEL_POOL_UID, "--wait=true")
    right = (200, {"answer": 42})
    wait_for(lambda: answer_of(client, token) == right, READY_SECONDS, "a session that is new has fetched its code")


def test_an_upgrade_keeps_password_keys_tokens_and_what_was_published(
    release: Secured, client: httpx.Client, admin: str, published: str
) -> None:
    before, pods = kept(release), {pod["metadata"]["uid"] for pod in release.pods("web")}
    release.install({"logLevel": "debug"})
    assert kept(release) == before
    assert not pods & {pod["metadata"]["uid"] for pod in release.pods("web")}
    with release.client() as again:  # to the new gateway
        assert answer_of(again, admin) == (200, {"answer": 42})
        assert again.get("/services", headers=bearer(admin)).status_code == 200
        replaced_sessions_fetch_their_code(release, again, log_in(again, "admin", before[0]))


def test_removed_and_installed_again_it_is_what_it_was(
    release: Secured, client: httpx.Client, admin: str, published: str
) -> None:
    before = kept(release)
    release.uninstall()
    assert release.pods("web") == []
    release.install()
    assert kept(release) == before
    with release.client() as again:
        wait_for(
            lambda: answer_of(again, admin)[0] == 200, READY_SECONDS, "a call with the token of before is answered"
        )
        replaced_sessions_fetch_their_code(release, again, admin)


def test_a_password_that_is_changed_in_its_secret_holds_and_stays(release: Secured, client: httpx.Client) -> None:
    chosen = "one that was chosen"
    body = json.dumps({"stringData": {"password": chosen}})
    kubectl("patch", "secret", ADMIN_SECRET, "-n", release.namespace, "--type=merge", "-p", body)
    pods = [pod["metadata"]["name"] for pod in release.pods("web")]

    def seen(pod: str) -> str:
        file = "/etc/session-pools/admin/password"
        return kubectl("exec", pod, "-n", release.namespace, "--", "cat", file).stdout

    # guesses are counted, so that none is made before
    wait_for(lambda: {seen(pod) for pod in pods} == {chosen}, 180, "the kubelet has brought it into both pods")
    credentials = {"username": "admin", "password": chosen}
    assert {client.post("/login", json=credentials).status_code for _ in range(8)} == {200}
    release.install()
    assert release.password == chosen


def test_an_upgrade_that_would_put_all_callers_out_is_refused(release: Secured, tmp_path: Path) -> None:
    """As a release of a chart without tokens looks: its gateway was told nothing of them."""

    def set_variable(setting: str) -> None:
        kubectl("set", "env", f"deployment/{GATEWAY}", "-n", release.namespace, "-c", "agent", setting)

    kubectl("rollout", "pause", f"deployment/{GATEWAY}", "-n", release.namespace)
    try:
        set_variable("SESSIONPOOLS_AUTH_ENABLED-")
        with pytest.raises(AssertionError, match=r"would answer 401 to all of them.*auth\.enabled=false"):
            release.install()
    finally:
        set_variable("SESSIONPOOLS_AUTH_ENABLED=true")
        kubectl("rollout", "resume", f"deployment/{GATEWAY}", "-n", release.namespace)
        kubectl("rollout", "status", f"deployment/{GATEWAY}", "-n", release.namespace, "--timeout=120s")
