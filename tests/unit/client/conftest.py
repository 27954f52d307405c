"""A server that speaks the REST API, and both clients of it."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from sessionpools.client import AsyncClient, Client
from support.both_clients import Both
from support.restapi import RestApi, serving


@pytest.fixture
def api() -> Iterator[RestApi]:
    with serving() as made:
        yield made


@pytest.fixture(params=["blocking", "awaiting"])
async def client(request: pytest.FixtureRequest, api: RestApi) -> AsyncIterator[Both]:
    kind: Any = Client if request.param == "blocking" else AsyncClient
    made = Both(kind(api.url, user="admin", password="secret"))
    yield made
    await made.close()
