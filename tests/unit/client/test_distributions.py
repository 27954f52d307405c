"""The three distributions that share the namespace package `sessionpools` can be installed side by side."""

import importlib
import tomllib
from itertools import combinations
from typing import Any

import pytest

from support.tools import ROOT

setuptools: Any = importlib.import_module("setuptools")  # untyped
OPERATOR = ROOT / "operator"
FOLDERS = {
    "session-pools": ROOT,
    "session-pools-session": OPERATOR / "sessionpools" / "session",
    "session-pools-client": OPERATOR / "sessionpools" / "client",
}


def described(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDERS[name] / "pyproject.toml").read_text())


def packages(name: str) -> set[str]:
    """Those with code of their own, by the distribution's settings."""
    listed = described(name)["tool"]["setuptools"]["packages"]
    if isinstance(listed, dict):
        find = listed["find"]
        (where,) = find["where"]
        listed = setuptools.find_namespace_packages(str(ROOT / where), exclude=find["exclude"], include=find["include"])
    return {each for each in listed if any((OPERATOR / each.replace(".", "/")).glob("*.py"))}


def test_each_knows_its_own_name() -> None:
    assert [described(name)["project"]["name"] for name in FOLDERS] == list(FOLDERS)


@pytest.mark.parametrize(("one", "other"), list(combinations(FOLDERS, 2)))
def test_no_package_and_no_command_is_in_two(one: str, other: str) -> None:
    assert not packages(one) & packages(other)
    assert not described(one)["project"]["scripts"].keys() & described(other)["project"]["scripts"].keys()


def test_every_package_is_in_one() -> None:
    folders = {path.parent for path in (OPERATOR / "sessionpools").rglob("*.py")}
    there = {".".join(folder.relative_to(OPERATOR).parts) for folder in folders}
    assert set().union(*map(packages, FOLDERS)) == there
