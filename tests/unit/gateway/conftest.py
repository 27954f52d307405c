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
def made() -> Iterator[Start]:
    """Makes gateways that are not started, and stops them after the test."""
    all_of_them: list[Gateway] = []

    def make(*routes: Route, **settings: Any) -> Gateway:
        all_of_them.append(Gateway(*routes, **settings))
        return all_of_them[-1]

    yield make
    for one in all_of_them:
        one.stop()


@pytest.fixture
def gateway(made: Start) -> Start:
    """The same, for files without a gateway of their own."""
    return made


@pytest.fixture
def start(made: Start) -> Start:
    """Starts gateways."""
    return lambda *routes, **settings: made(*routes, **settings).start()
