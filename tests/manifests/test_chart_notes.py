"""What `helm install` says when it is done: how to log in, and what is not as it should stay."""

from __future__ import annotations

import pytest

from support.manifests import Object, notes

LOUD = "AUTHENTICATION IS TURNED OFF"
LOST = "WHAT IS PUBLISHED IS LOST WITH THE WEB API'S POD"
OFF: Object = {"auth": {"enabled": False}}


def test_it_says_how_to_get_admins_password_and_log_in() -> None:
    text = notes()
    assert "get secret session-pools-admin --output go-template='{{.data.password | base64decode}}'" in text
    assert "curl http://localhost:12800/login --json" in text
    assert "Authorization: Bearer TOKEN" in text
    assert LOUD not in text
    assert "get secret ours " in notes({"auth": {"admin": {"existingSecret": "ours"}}})


def test_with_a_certificate_it_says_https() -> None:
    text = notes({"gateway": {"tls": {"secretName": "certificate"}}})
    assert "curl --insecure https://localhost:12800/login" in text
    assert "https://session-pools-gateway.session-pools:12800/api/NAME/VERSION" in text


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (OFF, "call every web service, publish code, run it and delete services"),
        (OFF | {"web": {"enabled": False}}, "call every web service. Set auth.enabled to true"),
    ],
    ids=["with a web API", "without"],
)
def test_it_is_loud_about_tokens_that_are_turned_off(values: Object, what: str) -> None:
    text = notes(values)
    assert f"{LOUD}: whoever reaches the gateway may {what}" in " ".join(text.split())
    assert "get secret" not in text


def test_it_is_loud_about_a_store_that_ends_with_its_pod() -> None:
    lost = {"web": {"store": {"persistence": {"enabled": False}}}}
    elsewhere = {"web": {"store": {"url": "s3://bucket", "persistence": {"enabled": False}}}}
    assert LOST in notes(lost)
    assert LOST not in notes() + notes(elsewhere)


def test_it_says_where_published_code_runs_if_that_is_beside_the_controller() -> None:
    said = "api.namespace names another namespace"
    assert said in notes()
    assert said not in notes({"api": {"namespace": "scoring"}})


def test_without_a_gateway_it_says_nothing_of_callers() -> None:
    text = notes({"gateway": {"enabled": False}})
    assert "12800" not in text and LOUD not in text
