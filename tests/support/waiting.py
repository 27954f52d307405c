"""Waiting for a condition on the event loop, never for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest


async def until(holds: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Return once it holds; fail with `what` after the deadline."""
    try:
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(0.002)
    except TimeoutError:
        pytest.fail(f"waited {seconds:g} s in vain for {what}")
