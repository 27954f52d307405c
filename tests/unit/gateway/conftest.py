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
def gateway() -> Iterator[Start]:
    """Makes gateways that are not started, and stops them after the test."""
    made: list[Gateway] = []

    def make(*routes: Route, **settings: Any) -> Gateway:
        made.append(Gateway(*routes, **settings))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def start(gateway: Start) -> Start:
    """Starts gateways."""
    return lambda *routes, **settings: gateway(*routes, **settings).start()
