"""Renders the chart and the kustomizations as their users do, and reads objects out of the result."""

import functools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from support.tools import ROOT, tool

CHART = ROOT / "charts/session-pools"
CRDS = ROOT / "crds"
BASE = ROOT / "manifests/base"
EXAMPLES = ROOT / "manifests/examples"

Object = dict[str, Any]


class HelmError(Exception):
    """helm refused; the text is what its user reads."""


def helm_template(
    values: Object | None = None, *, release: str = "session-pools", namespace: str = "session-pools"
) -> str:
    """What `helm template` prints for these values."""
    return _rendered(json.dumps(values or {}), release, namespace)


@functools.cache
def _rendered(values: str, release: str, namespace: str) -> str:
    return _helm_template(CHART, values, release, namespace)


def _helm_template(folder: Path, values: str, release: str, namespace: str, *only: str) -> str:
    shown = [argument for path in only for argument in ("--show-only", path)]
    done = subprocess.run(
        [tool("helm"), "template", release, folder, "--namespace", namespace, "--values", "-", *shown],
        input=values,
        text=True,
        capture_output=True,
    )
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


def notes(values: Object | None = None) -> str:
    """What `helm install` prints for these values when it is done."""
    with tempfile.TemporaryDirectory() as directory:
        copy = shutil.copytree(CHART, Path(directory, CHART.name))
        # `helm template` prints no notes, but a template may include them
        (copy / "templates/notes.yaml").write_text(
            'text: {{ include (print .Template.BasePath "/NOTES.txt") . | toJson }}\n'
        )
        rendered = _helm_template(
            copy, json.dumps(values or {}), "session-pools", "session-pools", "templates/notes.yaml"
        )
    (document,) = parse(rendered)
    text: str = document["text"]
    return text


def chart(
    values: Object | None = None, *, release: str = "session-pools", namespace: str = "session-pools"
) -> list[Object]:
    """The objects of the chart for these values."""
    return parse(helm_template(values, release=release, namespace=namespace))


def kustomization(folder: Path) -> list[Object]:
    """The objects that `kubectl apply --kustomize FOLDER` applies."""
    return parse(_built(folder))


@functools.cache
def _built(folder: Path) -> str:
    done = subprocess.run([tool("kubectl"), "kustomize", folder], check=True, text=True, stdout=subprocess.PIPE)
    return done.stdout


def parse(text: str) -> list[Object]:
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


def of_kind(objects: Iterable[Object], *kinds: str) -> list[Object]:
    return [found for found in objects if found["kind"] in kinds]


def the(objects: Iterable[Object], kind: str, name: str | None = None) -> Object:
    """The one object of this kind (and name)."""
    (found,) = [o for o in of_kind(objects, kind) if name in (None, o["metadata"]["name"])]
    return found


@functools.cache
def crds() -> dict[str, Object]:
    """The CustomResourceDefinitions in crds/, by kind."""
    read = [yaml.safe_load(path.read_text()) for path in sorted(CRDS.glob("*.yaml"))]
    return {crd["spec"]["names"]["kind"]: crd for crd in read}
