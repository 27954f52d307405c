"""The in-process API server, and the real client of it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from sessionpools.kube.client import HttpKubeApi
from support.apiserver import ApiServer


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer(bookmark_seconds=0.05) as server:
        yield server


@pytest.fixture
async def api(server: ApiServer) -> HttpKubeApi:
    return await server.connect(rng=random.Random(1))
