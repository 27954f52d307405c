from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.gateway_world import World
from support.simulation import Simulation


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as world:
        yield world


@pytest.fixture
async def sim() -> AsyncIterator[Simulation]:
    """With two nodes; tests that need others have a fixture of their own."""
    async with Simulation() as simulation:
        simulation.add_node("worker-1")
        simulation.add_node("worker-2")
        yield simulation
