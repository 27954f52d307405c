"""What the tests of HAProxy's answers share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from sessionpools.gateway.model import Route
from support.gateway import Gateway


class Start(Protocol):
    def __call__(self, *routes: Route, **settings: Any) -> Gateway: ...


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts gateways, and stops them after the test."""
    made: list[Gateway] = []

    def make(*routes: Route, **settings: Any) -> Gateway:
        made.append(Gateway(*routes, **settings))
        return made[-1].start()

    yield make
    for one in made:
        one.stop()
