"""The CustomResourceDefinitions: one source, crds/, in the chart behind crds.enabled and crds.keep."""

from support.manifests import CHART, CRDS, chart, crds, of_kind

KIND = "CustomResourceDefinition"
# Above this a plain `kubectl apply` fails: it keeps the object in an annotation, which may have 256 KiB.
MOST_BYTES = 256 * 1024


def test_the_charts_copies_are_the_files_in_crds() -> None:
    source = {path.name: path.read_bytes() for path in CRDS.glob("*.yaml")}
    assert source, "run `make crds`"
    copies = {path.name: path.read_bytes() for path in (CHART / "files/crds").glob("*.yaml")}
    assert copies == source, "run `make crds manifests`"


def test_the_chart_installs_them_as_they_are() -> None:
    rendered = {crd["spec"]["names"]["kind"]: crd for crd in of_kind(chart(), KIND)}
    assert {kind: crd["spec"] for kind, crd in rendered.items()} == {kind: crd["spec"] for kind, crd in crds().items()}
    for kind, crd in crds().items():
        assert rendered[kind]["metadata"]["name"] == crd["metadata"]["name"]
        annotations = crd["metadata"].get("annotations", {})
        assert annotations.items() <= rendered[kind]["metadata"]["annotations"].items()


def test_uninstalling_keeps_them_unless_told_otherwise() -> None:
    for crd in of_kind(chart(), KIND):
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    for crd in of_kind(chart({"crds": {"keep": False}}), KIND):
        assert "helm.sh/resource-policy" not in crd["metadata"].get("annotations", {})


def test_they_can_be_left_out() -> None:
    assert not of_kind(chart({"crds": {"enabled": False}}), KIND)


def test_a_plain_kubectl_apply_takes_them() -> None:
    for path in CRDS.glob("*.yaml"):
        assert path.stat().st_size < MOST_BYTES
