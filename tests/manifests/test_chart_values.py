"""values.yaml and values.schema.json: what is accepted, and the words for what is not."""

import json
from typing import Any

import pytest
import yaml

from support.manifests import CHART, HelmError, Object, chart

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES_TEXT = (CHART / "values.yaml").read_text()
VALUES = yaml.safe_load(VALUES_TEXT)


def resolved(schema: Object) -> Object:
    target: Object = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    return target


def differences(schema: Object, values: Any, path: str = "") -> list[str]:
    """Keys that only one of schema and values has, and schema objects that are open."""
    schema = resolved(schema)
    if "properties" not in schema:
        return []
    found = [] if schema["additionalProperties"] is False else [f"{path or '/'} takes any key"]
    # what a parent chart hands down
    expected = set(schema["properties"]) - ({"global", "enabled"} if not path else set())
    found += [f"{path}/{key} is in one of schema and values only" for key in expected ^ set(values)]
    for key in expected & set(values):
        found += differences(schema["properties"][key], values[key], f"{path}/{key}")
    return found


def test_the_schema_knows_the_values_that_are_documented_and_no_others() -> None:
    assert differences(SCHEMA, VALUES) == []


def test_every_group_of_values_is_documented_where_it_stands() -> None:
    lines = VALUES_TEXT.splitlines()
    starts = [i for i, line in enumerate(lines) if line.split(":")[0] in VALUES]
    for start, end in zip(starts, [*starts[1:], len(lines) + 1], strict=True):
        assert "#" in "".join(lines[start - 1 : end - 1]), lines[start]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replicas": 2}, "additional properties 'replicas' not allowed"),
        ({"image": {"name": "x"}}, "at '/image': additional properties 'name' not allowed"),
        ({"controller": {"resource": {}}}, "at '/controller': additional properties 'resource' not allowed"),
        ({"watch": {"namespaces": "a,b"}}, "at '/watch/namespaces': got string, want array"),
        ({"watch": {"namespaces": ["a", "a"]}}, "at '/watch/namespaces'"),
        ({"watch": {"namespaces": ["Team A"]}}, "at '/watch/namespaces/0'"),
        ({"watch": {"nodes": ["Worker 1"]}}, "at '/watch/nodes/0'"),
        ({"rbac": {"clusterScoped": "no"}}, "at '/rbac/clusterScoped': got string, want boolean"),
        ({"limits": {"maxSessionsPerNode": -1}}, "at '/limits/maxSessionsPerNode': minimum: got -1, want 0"),
        ({"logLevel": "loud"}, "at '/logLevel': value must be one of 'debug', 'info', 'warning', 'error'"),
        ({"image": {"pullPolicy": "Sometimes"}}, "at '/image/pullPolicy': value must be one of"),
        ({"image": {"digest": "0123"}}, "at '/image/digest'"),
        ({"image": {"tag": 1.1}}, "at '/image/tag': got number, want string"),
        ({"image": {"repository": ""}}, "at '/image/repository'"),
        ({"crds": {"keep": "yes"}}, "at '/crds/keep': got string, want boolean"),
        ({"imagePullSecrets": ["mine"]}, "at '/imagePullSecrets/0': got string, want object"),
        ({"controller": {"extraEnv": [{"value": "x"}]}}, "at '/controller/extraEnv/0': missing property 'name'"),
        ({"controller": {"podAnnotations": {"n": 1}}}, "at '/controller/podAnnotations/n': got number, want string"),
        ({"api": {"namespace": "Team A"}}, "at '/api/namespace'"),
        ({"controller": {"replicas": 0}}, "at '/controller/replicas': minimum: got 0, want 1"),
        ({"gateway": {"replicas": 0}}, "at '/gateway/replicas': minimum: got 0, want 1"),
        ({"web": {"replicas": 0}}, "at '/web/replicas': minimum: got 0, want 1"),
        ({"web": {"store": {"url": "/srv"}}}, "at '/web/store/url'"),
        ({"web": {"store": {"url": "s3://key:secret@bucket"}}}, "at '/web/store/url'"),
        ({"web": {"store": {"persistence": {"size": "much"}}}}, "at '/web/store/persistence/size'"),
        ({"web": {"store": {"persistence": {"accessModes": []}}}}, "at '/web/store/persistence/accessModes': minItems"),
        ({"web": {"service": {}}}, "at '/web': additional properties 'service' not allowed"),
        ({"auth": {"enabled": "no"}}, "at '/auth/enabled': got string, want boolean"),
        ({"auth": {"password": "x"}}, "at '/auth': additional properties 'password' not allowed"),
        ({"auth": {"admin": {"existingSecret": "A b"}}}, "at '/auth/admin/existingSecret'"),
        ({"gateway": {"image": {}}}, "at '/gateway': additional properties 'image' not allowed"),
        ({"gateway": {"haproxyImage": "haproxy:2.8"}}, "at '/gateway/haproxyImage': got string, want object"),
        ({"gateway": {"service": {"type": "ExternalName"}}}, "at '/gateway/service/type': value must be one of"),
        ({"gateway": {"tls": {"secretName": "A b"}}}, "at '/gateway/tls/secretName'"),
        ({"gateway": {"maxConnections": 10}}, "at '/gateway/maxConnections': minimum: got 10, want 100"),
        ({"gateway": {"ingress": {"hosts": ["https://x"]}}}, "at '/gateway/ingress/hosts/0'"),
        ({"gateway": {"httpRoute": {"parentRefs": [{}]}}}, "at '/gateway/httpRoute/parentRefs/0': missing property"),
        ({"gateway": {"httpRoute": {"timeout": "60"}}}, "at '/gateway/httpRoute/timeout'"),
        ({"networkPolicy": {"namespaces": ["Team A"]}}, "at '/networkPolicy/namespaces/0'"),
        ({"networkPolicy": {"dns": {"ports": []}}}, "at '/networkPolicy/dns/ports': minItems: got 0, want 1"),
        ({"networkPolicy": {"sessionEgress": [{"from": []}]}}, "at '/networkPolicy/sessionEgress/0'"),
        ({"networkPolicy": {"monitoring": [{}]}}, "at '/networkPolicy/monitoring/0'"),
        ({"metrics": {"podMonitor": {"interval": "often"}}}, "at '/metrics/podMonitor/interval'"),
    ],
)
def test_a_wrong_value_is_refused_and_named(values: Object, message: str) -> None:
    with pytest.raises(HelmError) as refused:
        chart(values)
    assert message in str(refused.value)


def test_as_a_subchart_it_takes_what_parents_hand_down() -> None:
    assert chart({"global": {"imageRegistry": "x"}, "enabled": True})
