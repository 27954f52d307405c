"""manifests/base: the chart for those who use kustomize, rendered and never edited."""

import subprocess
from pathlib import Path

from support.manifests import BASE, chart, kustomization, of_kind, the
from support.tools import ROOT

BY_HAND = {"kustomization.yaml", "namespace.yaml"}


def test_it_is_what_the_chart_renders(tmp_path: Path) -> None:
    subprocess.run([ROOT / "scripts/manifests", tmp_path], check=True)
    rendered = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in BASE.iterdir() if path.name not in BY_HAND}
    assert committed == rendered, "run `make manifests`"


def test_kustomize_builds_it_with_every_object_of_the_chart_and_a_namespace() -> None:
    def key(o: dict[str, object]) -> tuple[object, object]:
        return o["kind"], o["metadata"]["name"]  # type: ignore[index]

    built = kustomization(BASE)
    expected = {key(o) for o in chart()} | {("Namespace", "session-pools")}
    assert {key(o) for o in built} == expected - {("Secret", "session-pools-admin")}


def test_nothing_in_it_claims_to_be_helms() -> None:
    for o in kustomization(BASE):
        assert "Helm" not in o["metadata"]["labels"].values()
        assert not [a for a in o["metadata"].get("annotations", {}) if a.startswith("helm.sh/")]


def test_no_password_and_no_key_is_in_it_and_the_web_api_takes_admins_from_a_secret_that_somebody_makes() -> None:
    built = kustomization(BASE)
    assert [o["metadata"]["name"] for o in of_kind(built, "Secret")] == ["session-pools-keys"]
    assert not any("data" in o or "stringData" in o for o in of_kind(built, "Secret"))
    volumes = the(built, "Deployment", "session-pools-web")["spec"]["template"]["spec"]["volumes"]
    (admin,) = [volume["secret"] for volume in volumes if volume["name"] == "admin"]
    assert admin == {"secretName": "session-pools-admin"}
    page = (ROOT / "docs/operations/install.md").read_text()
    assert "create secret generic session-pools-admin --from-literal=password=" in page


def test_its_namespace_enforces_restricted() -> None:
    namespace = the(kustomization(BASE), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_an_overlay_moves_it_to_another_namespace(tmp_path: Path) -> None:
    # kustomize wants relative paths
    base = "../" * len(tmp_path.resolve().parts[1:]) + str(BASE.relative_to("/"))
    (tmp_path / "kustomization.yaml").write_text(f"namespace: operators\nresources: [{base}]\n")
    built = kustomization(tmp_path)
    for component in ("controller", "gateway", "web"):
        assert the(built, "Deployment", f"session-pools-{component}")["metadata"]["namespace"] == "operators"
        binding = the(built, "ClusterRoleBinding", f"session-pools-{component}")
        assert binding["subjects"][0]["namespace"] == "operators"
