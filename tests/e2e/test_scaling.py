"""Sizes that somebody else changes: the recipe of docs/operations/scaling.md, as it stands there."""

import shutil
from pathlib import Path

import yaml

from support.cluster import cluster_script, docker, kubectl, wait_for
from support.pools import Pool, publish, session_pool, web_service
from support.tools import ROOT, tool

_RECIPE = ROOT / "docs/operations/scaling.md"


def recipe(namespace: str) -> list[dict[str, object]]:
    """Its objects, in a namespace of the test's."""
    text = _RECIPE.read_text().split("```yaml\n")[1].split("```")[0]
    return list(yaml.safe_load_all(text.replace("namespace: demo", f"namespace: {namespace}")))


def image_with_kubectl(directory: Path, name: str) -> None:
    """What the recipe's image holds, on the nodes, which can pull none: the same program and nothing else."""
    shutil.copy(tool("kubectl"), directory / "kubectl")
    containerfile = 'FROM scratch\nCOPY kubectl /bin/kubectl\nENTRYPOINT ["/bin/kubectl"]\n'
    (directory / "Containerfile").write_text(containerfile)
    docker("build", "-f", str(directory / "Containerfile"), "-t", name, str(directory))
    cluster_script("load", name)


def test_a_schedule_changes_the_sizes_and_nothing_changes_them_back(restricted: str, tmp_path: Path) -> None:
    pool = publish(restricted, web_service("diabetes"), session_pool("diabetes", 2, 6, idleTimeoutSeconds=1))
    pool.until_success()
    objects = recipe(restricted)
    image_with_kubectl(tmp_path, "registry.k8s.io/kubectl:v1.34.1")
    kubectl("apply", "--filename", "-", input=yaml.safe_dump_all(objects))
    before = set(pool.lives())
    _run_now("diabetes-morning", pool)
    wait_for(lambda: len(pool.ready_pods()) == 8, 120, "four sessions on each node")
    assert before <= set(pool.lives())
    _run_now("diabetes-evening", pool)
    wait_for(lambda: len(pool.pods()) == 2, 120, "one session on each node")
    assert pool.until_success()["sessions"]["desired"] == 2


def _run_now(name: str, pool: Pool) -> None:
    kubectl("create", "job", f"--from=cronjob/{name}", name, "-n", pool.namespace)
    kubectl("wait", "--for=condition=Complete", f"job/{name}", "-n", pool.namespace, "--timeout=60s")
