"""What a pool's sessions should be, or why that can not be said."""

import pytest

from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.core.keys import elder_of
from sessionpools.core.revision import CodeFiles
from sessionpools.core.target import CODE_LIMIT_BYTES, Blocked, CodeProblem, Target, target
from support.builders import pool, service


def decided(
    pool_: SessionPool, services: list[WebService], pools: list[SessionPool] | None = None,
    code: CodeFiles | CodeProblem | None = None,
) -> Target | Blocked:  # fmt: skip
    return target(pool_, pools or [pool_], services, code, "default:1")


def blocked(decision: Target | Blocked) -> Blocked:
    assert isinstance(decision, Blocked)
    return decision


def test_a_published_service_is_the_target() -> None:
    decision = decided(pool(), [service()])
    assert isinstance(decision, Target)
    assert decision.revision.session["entrypoint"] == "service:predict"


def test_a_service_that_is_not_published_retires_the_sessions() -> None:
    found = blocked(decided(pool(), []))
    assert (found.reason, found.retire) == ("ServiceNotFound", True)
    assert "'Score'" in found.message
    assert "'v1'" in found.message


def test_names_are_case_sensitive() -> None:
    assert blocked(decided(pool(), [service(name="score")])).reason == "ServiceNotFound"


def test_a_service_of_another_namespace_is_not_found() -> None:
    assert blocked(decided(pool(), [service(meta={"namespace": "other"})])).reason == "ServiceNotFound"


def test_a_service_that_is_being_deleted_retires_the_sessions() -> None:
    leaving = service(meta={"deletionTimestamp": "2026-11-22T12:00:00Z"})
    assert blocked(decided(pool(), [leaving])).retire


def test_the_older_of_two_services_is_served_and_the_other_knows_it() -> None:
    old = service(meta={"name": "first", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"})
    new = service(meta={"name": "second", "uid": "2", "creationTimestamp": "2026-02-01T00:00:00Z"})
    decision = decided(pool(), [new, old])
    assert isinstance(decision, Target)
    assert decision.service is old
    assert elder_of(new, [new, old]) is old
    assert elder_of(old, [new, old]) is None


def test_the_older_of_two_pools_has_the_service() -> None:
    old = pool(meta={"name": "first", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"})
    new = pool(meta={"name": "second", "uid": "2", "creationTimestamp": "2026-02-01T00:00:00Z"})
    assert isinstance(decided(old, [service()], [old, new]), Target)
    found = blocked(decided(new, [service()], [old, new]))
    assert found.reason == "DuplicatePool"
    assert "'first'" in found.message


def test_the_generic_pool_is_answered_by_a_condition() -> None:
    assert blocked(decided(pool(serviceName="", serviceVersion=""), [])).reason == "GenericPoolNotSupported"


@pytest.mark.parametrize("scheme", ["https", "http", "file"])
def test_a_bundle_is_the_target_with_the_address_that_it_has_now(scheme: str) -> None:
    url = f"{scheme}:///a.zip"
    decision = decided(pool(), [service(code={"bundle": {"url": url, "sha256": "0" * 64}})])
    assert isinstance(decision, Target)
    assert decision.bundle_url == url


def test_a_bundle_at_an_address_that_nothing_is_fetched_from_is_refused_with_those_that_there_are() -> None:
    found = blocked(decided(pool(), [service(code={"bundle": {"url": "s3://bucket/a.zip", "sha256": "0" * 64}})]))
    assert found.reason == "InvalidCode"
    assert "'s3'" in found.message
    assert "use https, http, file" in found.message


def test_a_missing_config_map_keeps_the_sessions_that_run() -> None:
    of = service(code={"configMap": {"name": "code"}})
    found = blocked(decided(pool(), [of], code=CodeProblem("ConfigMapNotFound", "create it")))
    assert (found.reason, found.retire) == ("ConfigMapNotFound", False)


def test_code_that_no_config_map_can_hold_is_refused_with_its_size() -> None:
    of = service(code={"inline": {"service.py": "#" * (CODE_LIMIT_BYTES + 1)}})
    found = blocked(decided(pool(), [of]))
    assert found.reason == "CodeTooLarge"
    assert str(CODE_LIMIT_BYTES) in found.message


def test_a_script_that_is_not_among_the_files_is_named() -> None:
    found = blocked(decided(pool(), [service(entrypoint="", script="main.py")]))
    assert found.reason == "InvalidCode"
    assert "'main.py'" in found.message
    assert "service.py" in found.message
