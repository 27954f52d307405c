"""What Prometheus sees of the gateway is what its callers saw, to the last call."""

from collections.abc import Iterator

import pytest

from support.caller import Caller, caller, service_url
from support.cluster import apply, wait_for
from support.faults import release_pods
from support.pools import WORKERS, PodProxy, publish, session_pool, web_service
from support.prometheus import prometheus

CODE = """
import os
import time


def predict(seconds: float = 0, die: bool = False) -> str:
    time.sleep(seconds)
    if die:
        os._exit(1)
    return "answered"
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Caller]:
    with caller(WORKERS[0]) as made:
        yield made


def test_after_n_calls_of_each_outcome_the_counters_differ_by_n(
    restricted: str, client: Caller, proxy: PodProxy
) -> None:
    service = web_service("counted", CODE, warmup={})
    settings = {"isolation": "Process", "requestTimeoutSeconds": 1, "queue": {"maxLength": 1, "timeoutSeconds": 1}}
    publish(restricted, service, session_pool("counted", 1, 1, **settings)).until_success()
    apply(web_service("unpooled", CODE), namespace=restricted)
    url = service_url(restricted, "counted")
    expression = f'sum by (outcome) (sessionpools_gateway_requests_total{{namespace="{restricted}"}})'
    with prometheus(proxy.url, release_pods("gateway")) as scraped:
        before = scraped.values(expression, "outcome")
        assert before["ok"] == 0  # nobody has called it, and its series are there
        for _ in range(5):
            assert client.call(url, {}).status == 200
        for _ in range(3):
            assert client.request("POST", url, "no json")[0] == 400
        for _ in range(2):
            assert client.call(url, {"die": True}).status == 502
        assert client.call(url, {"seconds": 30}).status == 504
        for _ in range(4):
            assert client.call(service_url(restricted, "unpooled"), {}).status == 503
        # two sessions, one place in the queue, in which a call waits for 0.8 s: three of six are told that it is full
        found = client.load(url, {"seconds": 0.8}, "--connections", "6", "--calls", "6").result()
        assert found["statuses"] == {"200": 3, "429": 3}, found
        wanted = {"ok": 5 + 3, "refused": 3, "died": 2, "timeout": 1, "no-pool": 4, "queue-full": 3}

        def difference() -> dict[str, float]:
            now = scraped.values(expression, "outcome")
            return {outcome: now[outcome] - before.get(outcome, 0) for outcome in now if now[outcome]}

        wait_for(lambda: difference() == wanted, 30, f"the counters differ by {wanted}")
        waited = scraped.values(
            f'sum by (namespace) (sessionpools_gateway_queue_seconds_count{{namespace="{restricted}"}})', "namespace"
        )
        assert waited[restricted] == sum(wanted.values()) - wanted["no-pool"] - wanted["queue-full"]
