"""The clients as others install them: the REST API on loopback, and virtual environments."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.environments import AZUREML, Environment
from support.restapi import RestApi, serving

sys.path.insert(0, str(AZUREML / "src"))


@pytest.fixture
def api() -> Iterator[RestApi]:
    with serving() as made:
        yield made


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


@pytest.fixture(scope="session")
def installed(environments: Path) -> Environment:
    """One with session-pools-client and session-pools-azureml, and nothing of Microsoft's."""
    made = Environment(environments / "ours")
    made.install_ours()
    return made
