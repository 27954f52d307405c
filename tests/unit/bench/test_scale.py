"""What bench.scale reads out of metrics, and what it puts beside pools."""

import pytest

from bench.scale_figures import Fill
from bench.scale_metrics import Samples
from bench.scale_objects import Shape, daemon_sets, pools
from sessionpools.api import names

NAME = "decide_seconds"
SHAPE = Shape("scale", ({"zone": "a"}, {"zone": "b"}), nodes=3, sessions=4, pairs=1)
POD = {
    "metadata": {
        "name": "pool-0-1",
        "labels": {names.LABEL_POOL_UID: "uid", "app.kubernetes.io/name": "session-pools"},
        "annotations": {names.ANNOTATION_NODE: "kwok-0"},
    },
    "spec": {"nodeName": "kwok-0", "affinity": {}, "containers": [{"name": "session"}], "tolerations": []},
}


def histogram(*counts: int) -> Samples:
    bounds = ("0.01", "0.05", "+Inf")
    lines = [f'{NAME}_bucket{{le="{bound}"}} {count}' for bound, count in zip(bounds, counts, strict=True)]
    return Samples.parse("\n".join([f"# TYPE {NAME} histogram", *lines, "other_total 1"]), NAME)


def requests(*lines: str) -> Samples:
    """A line is "code resource subresource verb count"."""
    text = ["# TYPE apiserver_request_total counter"]
    for line in lines:
        code, resource, subresource, verb, count = line.split(",")
        labels = f'code="{code}",resource="{resource}",subresource="{subresource}",verb="{verb}"'
        text.append(f"apiserver_request_total{{{labels}}} {count}")
    return Samples.parse("\n".join(text), "apiserver_request_total")


def test_a_quantile_lies_on_a_straight_line_within_its_bucket() -> None:
    assert histogram(50, 100, 100).quantile(NAME, 0.75) == 0.03


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert histogram(0, 0, 10).quantile(NAME, 0.99) == 0.05


def test_a_histogram_without_observations_holds_no_bar() -> None:
    with pytest.raises(ValueError, match="observed nothing"):
        histogram(0, 0, 0).quantile(NAME, 0.99)


def test_what_was_counted_before_does_not_count() -> None:
    assert histogram(50, 100, 100).since(histogram(50, 50, 50)).quantile(NAME, 0.5) == 0.03


def test_writes_are_the_controllers_and_not_those_of_others() -> None:
    counted = requests(
        "201,pods,,POST,1000", "409,pods,,POST,7", "201,pods,binding,POST,1000", "200,pods,status,PATCH,1000",
        "201,sessionpools,,POST,10", "200,sessionpools,status,APPLY,20", "200,webservices,,PATCH,1",
    )  # fmt: skip
    fill = Fill(1, 1, 1, {}, counted, Samples({}))
    assert (fill.creates(), fill.creates("201"), fill.status_patches) == (1007, 1000, 21)


def test_daemon_sets_give_each_node_as_many_pods_as_the_pools() -> None:
    found = daemon_sets(SHAPE, POD)
    assert SHAPE.pods == 24
    assert [each["spec"]["template"]["spec"]["nodeSelector"]["zone"] for each in found] == ["a"] * 4 + ["b"] * 4
    assert [each["spec"]["initialPoolSize"] for each in pools(SHAPE)] == [4, 4]


def test_a_daemon_sets_pods_are_bound_by_the_scheduler_and_not_the_controllers() -> None:
    template = daemon_sets(SHAPE, POD)[0]["spec"]["template"]
    assert names.LABEL_POOL_UID not in template["metadata"]["labels"]
    assert template["spec"].keys() == {"containers", "tolerations", "nodeSelector"}
