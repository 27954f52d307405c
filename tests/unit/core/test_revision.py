"""What is in a revision and what is not."""

from typing import Any

import pytest

from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.core.revision import CodeFiles, code_files_of, resolve
from support.builders import pool, process_pool, service


def revision(pool_: SessionPool | None = None, service_: WebService | None = None, image: str = "default:1") -> str:
    of = service_ or service()
    return resolve(pool_ or pool(), of, code_files_of(of), image).name


@pytest.mark.parametrize(
    "spec",
    [
        {"image": "mine:1"},
        {"code": {"inline": {"service.py": "def predict(): ..."}}},
        {"entrypoint": "service:other"},
        {"entrypoint": "", "script": "service.py"},
        {"init": "service:load"},
        {"modules": ["numpy"]},
        {"warmup": {"bmi": 1}},
        {"inputs": [{"name": "bmi", "type": "numeric"}]},
        {"forkSafe": False},
        {"env": [{"name": "A", "value": "b"}]},
        {"envFrom": [{"secretRef": {"name": "s"}}]},
        {"volumes": [{"name": "v", "emptyDir": {}}]},
        {"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
        {"resources": {"limits": {"memory": "1Gi"}}},
        {"serviceAccountName": "other"},
        {"imagePullSecrets": [{"name": "s"}]},
        {"outputFiles": ["plot.png"]},
    ],
)
def test_what_decides_what_a_session_is_makes_a_new_revision(spec: dict[str, Any]) -> None:
    assert revision(service_=service(**spec)) != revision()


def test_isolation_and_a_restart_make_a_new_revision() -> None:
    restarted = pool(meta={"annotations": {"sessionpools.dev/restartedAt": "2026-11-22T12:00:00Z"}})
    assert len({revision(), revision(process_pool()), revision(restarted)}) == 3


@pytest.mark.parametrize(
    "changed",
    [
        pool(0, 9),
        pool(requestTimeoutSeconds=30),
        pool(idleTimeoutSeconds=1),
        pool(queue={"maxLength": 5, "timeoutSeconds": 1}),
        pool(update={"maxSurge": 3}),
        pool(recycleAfterRequests=7),
        pool(placement={"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}], "priorityClassName": "p"}),
    ],
)
def test_sizes_timeouts_queue_and_placement_do_not(changed: SessionPool) -> None:
    assert revision(changed) == revision()


def test_a_description_does_not() -> None:
    assert revision(service_=service(description="new words")) == revision()


def test_of_a_bundle_the_digest_counts_and_not_where_it_lies() -> None:
    def of(url: str, sha256: str) -> str:
        return revision(service_=service(code={"bundle": {"url": url, "sha256": sha256}}))

    assert of("https://a/b.tar.gz", "0" * 64) == of("http://c/d.zip", "0" * 64)
    assert len({revision(), of("https://a/b", "0" * 64), of("https://a/b", "1" * 64)}) == 3


def test_what_is_no_bundle_has_the_revision_that_it_had_before_there_were_any() -> None:
    assert revision() == "ddd6bc9776"


def test_the_code_of_a_config_map_counts_by_its_bytes() -> None:
    of = service(code={"configMap": {"name": "code"}})
    names = {resolve(pool(), of, CodeFiles((("service.py", text),)), "i").name for text in (b"a", b"b", b"a")}
    assert len(names) == 2


class TestTheDefaultImage:
    def recorded(self, image: str) -> SessionPool:
        of = service()
        there = resolve(pool(), of, code_files_of(of), image)
        return pool().model_copy(
            update={"status": pool().status.model_copy(update={"image": image, "revision": there.name})}
        )

    def test_it_stays_what_it_was_while_the_revision_does(self) -> None:
        of = service()
        assert resolve(self.recorded("default:1"), of, code_files_of(of), "default:2").image == "default:1"
        assert revision(self.recorded("default:1"), image="default:2") == revision(image="default:1")

    def test_of_sessions_that_still_serve_it_stays_when_what_they_run_is_applied_again(self) -> None:
        of = service()
        there = resolve(pool(), of, code_files_of(of), "default:1")
        images = {there.name: "default:1", "another": "default:0"}
        assert resolve(pool(), of, code_files_of(of), "default:2", images) == there
        changed = service(init="service:load")
        assert resolve(pool(), changed, code_files_of(changed), "default:2", images).image == "default:2"
        own = service(image="mine:1")
        assert resolve(pool(), own, code_files_of(own), "default:2", images).image == "mine:1"

    def test_a_new_default_comes_with_the_next_revision(self) -> None:
        of = service(init="service:load")
        assert resolve(self.recorded("default:1"), of, code_files_of(of), "default:2").image == "default:2"

    def test_an_image_that_the_service_names_is_taken_as_it_is(self) -> None:
        of = service(image="mine:1")
        assert resolve(self.recorded("default:1"), of, code_files_of(of), "default:2").image == "mine:1"
