"""The manifests of session pods and of their code."""

import base64
import json
from typing import Any

from sessionpools.api import names
from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.core import quantity
from sessionpools.core.observe import pod_view
from sessionpools.core.pods import code_config_map, grace_seconds, pod_template, session_pod, settings_of
from sessionpools.core.revision import CodeFiles, resolve
from sessionpools.session.bundles import FETCH, URL_VARIABLE
from sessionpools.session.fetch import MAX_PACKED_BYTES, BundleDigestMismatchError, BundleUnreachableError
from sessionpools.session.unpack import MAX_ENTRIES, MAX_UNPACKED_BYTES, BundleInvalidError, BundleTooLargeError
from support.builders import node, pool, process_pool, service, target_of


def manifest(pool_: SessionPool | None = None, service_: WebService | None = None) -> dict[str, Any]:
    of_pool, of_service = pool_ or pool(), service_ or service()
    return session_pod(
        pod_template(of_pool, of_service, target_of(of_pool, of_service).revision, "IfNotPresent"), node(), 1, 2
    )


def test_it_is_pinned_to_its_node_and_still_goes_through_the_scheduler() -> None:
    spec = manifest()["spec"]
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms == [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["worker-1"]}]}]
    assert "nodeName" not in spec


def test_it_stays_on_a_node_that_is_lost_for_a_while() -> None:
    keys = [(t["key"], t["effect"]) for t in manifest()["spec"]["tolerations"]]
    assert ("node.kubernetes.io/unreachable", "NoExecute") in keys


def test_it_says_its_isolation_which_the_pools_may_cease_to_be() -> None:
    for of, isolation in ((pool(), "Pod"), (process_pool(), "Process")):
        assert manifest(of)["metadata"]["annotations"]["sessionpools.dev/isolation"] == isolation


def test_its_name_is_a_host_name_however_long_the_pools_name_is() -> None:
    name = manifest(pool(meta={"name": "a" * 63}))["metadata"]["name"]
    assert len(name) <= 63


def test_it_belongs_to_its_pool_so_that_the_garbage_collector_removes_it() -> None:
    (owner,) = manifest()["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("SessionPool", "pool-uid", True)


def test_a_process_pod_requests_its_initial_and_is_limited_to_its_maximum() -> None:
    of = service(resources={"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"memory": "0.5Gi"}})
    container = manifest(process_pool(3, 6), of)["spec"]["containers"][0]
    assert container["resources"] == {"requests": {"cpu": "300m", "memory": "600Mi"}, "limits": {"memory": "3Gi"}}
    env = {e["name"]: e["value"] for e in container["env"]}
    assert env["SESSIONPOOLS_SESSION_MEMORY"] == str(512 * 1024 * 1024)


def test_a_process_pod_requests_what_it_is_limited_to_where_no_request_is_given() -> None:
    of = service(resources={"limits": {"memory": "1Gi", "nvidia.com/gpu": 1}})
    container = manifest(process_pool(2, 8), of)["spec"]["containers"][0]
    assert container["resources"] == {
        "requests": {"memory": "2Gi", "nvidia.com/gpu": "8"},
        "limits": {"memory": "8Gi", "nvidia.com/gpu": "8"},
    }


def test_the_grace_covers_pre_stop_drain_and_the_supervisors_own_end() -> None:
    assert grace_seconds(pool(drainTimeoutSeconds=60)) == 3 + 60 + 5


def test_settings_are_the_pools_for_process_and_one_for_pod() -> None:
    assert json.loads(settings_of(process_pool(2, 5)))["maxPoolSize"] == 5
    assert json.loads(settings_of(pool(2, 5)))["maxPoolSize"] == 1


def test_code_in_folders_reaches_the_pod_as_folders() -> None:
    of = service(code={"inline": {"pkg/model.py": "x = 1\n", "service.py": "y = 2\n"}})
    volumes = {v["name"]: v for v in manifest(service_=of)["spec"]["volumes"]}
    items = volumes["session-pools-code"]["configMap"]["items"]
    assert [item["path"] for item in items] == ["pkg/model.py", "service.py"]
    data = code_config_map(of, target_of(pool(), of).revision)["data"]
    assert data[items[0]["key"]] == "x = 1\n"


def test_every_mount_has_its_volume_and_no_name_that_a_service_could_use() -> None:
    spec = manifest(service_=service(volumes=[{"name": "data", "emptyDir": {}}]))["spec"]
    ours = {v["name"] for v in spec["volumes"]} - {"data"}
    assert {m["name"] for m in spec["containers"][0]["volumeMounts"]} == ours
    assert all(name.startswith("session-pools-") for name in ours)


def test_code_that_is_no_text_is_kept_as_bytes() -> None:
    of = service(code={"configMap": {"name": "code"}})
    revision = resolve(pool(), of, CodeFiles((("model.bin", b"\xff\x00"),)), "i")
    assert code_config_map(of, revision)["binaryData"] == {"file-0": base64.b64encode(b"\xff\x00").decode()}


def test_a_bundle_has_a_volume_of_its_own_and_the_address_that_it_has_now() -> None:
    of = service(code={"bundle": {"url": "https://host/b.tar.gz?key=$(NAME)&cost=5$", "sha256": "a" * 64}})
    spec = manifest(service_=of)["spec"]
    (container,) = spec["containers"]
    volumes = {v["name"]: v for v in spec["volumes"]}
    assert volumes["session-pools-bundle"] == {"name": "session-pools-bundle", "emptyDir": {"sizeLimit": "3Gi"}}
    assert {"name": "session-pools-bundle", "mountPath": "/etc/session-pools/bundle"} in container["volumeMounts"]
    env = {e["name"]: e["value"] for e in container["env"]}
    assert env[URL_VARIABLE] == "https://host/b.tar.gz?key=$$(NAME)&cost=5$$"  # the kubelet makes one of two
    session = target_of(pool(), of).revision.session
    assert session["bundle"] == {"sha256": "a" * 64}
    assert session["code"] == "/etc/session-pools/bundle/code"
    made = manifest(service_=of)
    made["metadata"] |= {"uid": "1", "labels": {**made["metadata"]["labels"]}}
    assert pod_view(made).bundle_url == "https://host/b.tar.gz?key=$(NAME)&cost=5$"


def test_the_volume_of_a_bundle_holds_the_largest_there_is() -> None:
    files = MAX_ENTRIES * 4096
    assert MAX_PACKED_BYTES + MAX_UNPACKED_BYTES + files < quantity.to_bytes("3Gi")


def test_controller_and_session_pods_have_one_word_for_each_thing() -> None:
    reasons = {each.reason for each in (BundleUnreachableError, BundleDigestMismatchError)}
    reasons |= {each.reason for each in (BundleInvalidError, BundleTooLargeError)}
    assert reasons == names.BUNDLE_REASONS
    assert (URL_VARIABLE, FETCH) == (names.ENV_BUNDLE_URL, names.PHASE_FETCH_BUNDLE)


def test_code_of_the_image_needs_no_code_volume() -> None:
    of = service(code={"imagePath": "/opt/service"})
    assert "session-pools-code" not in {v["name"] for v in manifest(service_=of)["spec"]["volumes"]}
    assert target_of(pool(), of).revision.session["code"] == "/opt/service"
