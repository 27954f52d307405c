"""The web API over an in-process API server and a directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from support.web import WebWorld


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with WebWorld(tmp_path) as made:
        yield made


@pytest.fixture
def admin(world: WebWorld) -> httpx.AsyncClient:
    return world.client()
