"""The examples: the API server takes them, also where `restricted` is enforced, and they do what their READMEs say."""

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.core.model import NodeView
from sessionpools.core.pods import pod_template, session_pod
from sessionpools.core.revision import CodeFiles, resolve
from support.manifests import EXAMPLES, Object, crds, kustomization, the
from support.pod_security import violations

FOLDERS = sorted(path.parent for path in EXAMPLES.glob("*/kustomization.yaml"))
each_example = pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])


def closed(schema: Any) -> Any:
    """The schema with unknown fields refused, as `kubectl apply` does it, where the API server would prune them."""
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if "properties" in made:
        made["properties"] = {name: closed(property_) for name, property_ in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    return made


def validate(o: Object) -> None:
    """As the API server does it, but for CEL rules."""
    if o["kind"] not in crds():
        kubernetes_validate.validate(o, "1.34", strict=True)
        return
    (version,) = crds()[o["kind"]]["spec"]["versions"]
    assert o["apiVersion"] == f"sessionpools.dev/{version['name']}"
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.Draft202012Validator(schema).validate(o)


def service_of(folder: Path) -> WebService:
    return WebService.model_validate(the(kustomization(folder), "WebService"))


def pool_of(folder: Path) -> SessionPool:
    return SessionPool.model_validate(the(kustomization(folder), "SessionPool"))


def code_of(folder: Path) -> dict[str, str]:
    """The code's files, wherever the WebService has them from."""
    code = service_of(folder).spec.code
    if code.inline is not None:
        return code.inline
    if code.config_map is not None:
        data: dict[str, str] = the(kustomization(folder), "ConfigMap", code.config_map.name)["data"]
        return data
    if code.bundle is not None:
        with tarfile.open(fileobj=io.BytesIO(bundle_of(folder))) as archive:
            files = [member for member in archive if member.isfile()]
            return {member.name.removeprefix("./"): read(archive, member) for member in files}
    return {path.name: path.read_text() for path in (folder / "code").iterdir() if path.is_file()}


def read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    assert file is not None
    return file.read().decode()


def bundle_of(folder: Path) -> bytes:
    """The archive as its server gives it out."""
    (data,) = the(kustomization(folder), "ConfigMap")["binaryData"].values()
    return base64.b64decode(data)


@each_example
def test_kustomize_builds_it_and_every_object_is_valid(folder: Path) -> None:
    objects = kustomization(folder)
    for o in objects:
        validate(o)
    # in the order in which they are applied: each after what it names
    kinds = [o["kind"] for o in objects]
    assert [kinds[0], *kinds[-2:]] == ["Namespace", "WebService", "SessionPool"]
    assert set(kinds[1:-2]) <= {"ConfigMap", "Service", "Deployment"}


@each_example
def test_it_is_in_a_namespace_of_its_own_that_enforces_restricted(folder: Path) -> None:
    objects = kustomization(folder)
    namespace = the(objects, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [o["metadata"]["namespace"] for o in objects if o["kind"] != "Namespace"]
    assert set(others) == {namespace["metadata"]["name"]}
    table = (EXAMPLES / "README.md").read_text()
    assert f"| [{folder.name}]({folder.name}) | `{namespace['metadata']['name']}` |" in table


@each_example
def test_its_pool_is_for_its_service(folder: Path) -> None:
    service, pool = service_of(folder).spec, pool_of(folder).spec
    assert (pool.service_name, pool.service_version) == (service.name, service.version)


@each_example
def test_its_session_pods_satisfy_restricted(folder: Path) -> None:
    service, pool = service_of(folder), pool_of(folder)
    files = CodeFiles(tuple((path, text.encode()) for path, text in sorted(code_of(folder).items())))
    revision = resolve(pool, service, files, "session-pools-session:dev")
    pod = session_pod(
        pod_template(pool, service, revision, "IfNotPresent"), NodeView("worker", "uid", True, True), 0, 0
    )
    assert violations(pod["spec"]) == []


def test_the_bundle_is_the_one_of_its_code_and_digest_and_its_server_satisfies_restricted() -> None:
    folder = EXAMPLES / "bundle"
    bundle = service_of(folder).spec.code.bundle
    assert bundle is not None
    assert hashlib.sha256(bundle_of(folder)).hexdigest() == bundle.sha256
    there = {str(path.relative_to(folder / "code")): path.read_text() for path in (folder / "code").rglob("*.*")}
    assert code_of(folder) == there
    objects = kustomization(folder)
    deployment, service = the(objects, "Deployment"), the(objects, "Service")
    pod = deployment["spec"]["template"]
    assert violations(pod["spec"]) == []
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    metadata, (port,) = service["metadata"], service["spec"]["ports"]
    assert bundle.url.startswith(f"http://{metadata['name']}.{metadata['namespace']}.svc:{port['port']}/")


def test_the_first_example_is_the_one_that_the_demo_shows() -> None:
    service, pool = service_of(EXAMPLES / "diabetes"), pool_of(EXAMPLES / "diabetes")
    assert (service.metadata.namespace, service.spec.name, service.spec.version) == ("demo", "DiabetesScore", "v1.0.0")
    assert (pool.spec.initial_pool_size, pool.spec.max_pool_size, pool.spec.isolation) == (3, 6, "Pod")


# Runs a service's code as a session would, without the session runtime: init once, then the calls.
CALL = """
import importlib, json, sys

spec, calls = json.load(sys.stdin)
for module in spec.get("modules", []):
    importlib.import_module(module)
frames = [p["name"] for p in spec.get("inputs", []) if p["type"] == "data.frame"]

def named(reference):
    module, function = reference.split(":")
    return getattr(importlib.import_module(module), function)

if "init" in spec:
    named(spec["init"])()
def answer(inputs):
    for name in frames:
        inputs[name] = importlib.import_module("pandas").DataFrame(inputs[name])
    if "entrypoint" in spec:
        (output,) = spec["outputs"]
        return {output["name"]: named(spec["entrypoint"])(**inputs)}
    exec(open("/".join([sys.path[0], spec["script"]])).read(), inputs)
    return {output["name"]: inputs[output["name"]] for output in spec["outputs"]}

def plain(value):
    if hasattr(value, "to_dict"):
        return value.to_dict("list")
    return value.tolist()

print(json.dumps([answer(inputs) for inputs in calls], default=plain), file=sys.stderr)
"""


def answers(folder: Path, calls: list[Object], directory: Path) -> list[Object]:
    for path, text in code_of(folder).items():
        (directory / path).parent.mkdir(exist_ok=True)
        (directory / path).write_text(text)
    spec = the(kustomization(folder), "WebService")["spec"]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(directory)!r})\n{CALL}"],
        input=json.dumps([spec, calls]),
        cwd=directory,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    made: list[Object] = json.loads(done.stderr.splitlines()[-1])
    return made


@each_example
def test_its_code_answers_the_warmup_and_the_readmes_call_as_the_readme_says(folder: Path, tmp_path: Path) -> None:
    readme = (folder / "README.md").read_text()
    (request,) = re.findall(r"--json '(\{.*\})'", readme)
    (shown,) = re.findall(r"^```json\n(.*)\n```$", readme, re.MULTILINE)
    warmup = service_of(folder).spec.warmup
    assert warmup is not None
    warmed, called = answers(folder, [warmup, json.loads(request)], tmp_path)
    assert called == json.loads(shown)["outputParameters"]
    assert warmed.keys() == called.keys()


def test_the_readmes_name_objects_that_are_there() -> None:
    for folder in FOLDERS:
        objects = kustomization(folder)
        readme = (folder / "README.md").read_text()
        names = {o["metadata"]["name"] for o in objects}
        namespace = the(objects, "Namespace")["metadata"]["name"]
        assert set(re.findall(r"--namespace (\S+)", readme)) == {namespace, "session-pools"}, folder.name
        spec = the(objects, "WebService")["spec"]
        assert f":12800/namespaces/{namespace}/api/{spec['name']}/{spec['version']} " in readme, folder.name
        mentioned = re.findall(r"(?:sessionpool[/ ]|webservice[/ ]|sessionpools\.dev/pool=)([a-z0-9-]+)", readme)
        assert set(mentioned) <= names, folder.name
        assert f"kubectl apply --kustomize manifests/examples/{folder.name}\n" in readme
