"""The stores that tests of the web API run on: a directory, and a prefix of a real S3-compatible server's bucket."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessionpools.web.store.objects import ObjectStore
from support.s3 import S3Server, s3_server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all tests of a run."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["volume", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store; what its client needs is in the environment."""
    if request.param == "volume":
        return str(tmp_path / "store")
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    return server.url(uuid.uuid4().hex)


@pytest.fixture
def store(store_url: str) -> ObjectStore:
    """An empty store of each kind."""
    return ObjectStore.open(store_url)


@pytest.fixture
def volume(tmp_path: Path) -> ObjectStore:
    """An empty directory as a store."""
    return ObjectStore.open(str(tmp_path / "volume"))
