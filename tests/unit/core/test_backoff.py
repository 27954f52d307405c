"""How long what failed is left alone."""

from sessionpools.core.backoff import Backoff, doubled

BACKOFF = Backoff(15.0, 300.0)


def test_it_is_twice_as_long_each_time_within_its_bound() -> None:
    waits = [BACKOFF.seconds(failures, "worker-1") for failures in range(1, 9)]
    for wait, plain in zip(waits, [15, 30, 60, 120, 240, 300, 300, 300], strict=True):
        assert plain <= wait <= plain * 1.5


def test_nothing_is_waited_for_after_no_failure() -> None:
    assert BACKOFF.seconds(0, "worker-1") == 0


def test_nodes_that_failed_together_do_not_come_back_together() -> None:
    waits = [BACKOFF.seconds(1, f"worker-{number}") for number in range(20)]
    assert len({round(wait, 2) for wait in waits}) > 15
    assert waits == [BACKOFF.seconds(1, f"worker-{number}") for number in range(20)]


def test_another_node_is_the_first_to_come_back_each_time() -> None:
    nodes = [f"worker-{number}" for number in range(5)]
    first = {min(nodes, key=lambda node: BACKOFF.seconds(failures, node)) for failures in range(1, 20)}
    assert len(first) > 2


def test_years_of_failures_are_a_number_too() -> None:
    assert doubled(0.5, 60.0, 100_000) == 60.0
    assert BACKOFF.seconds(100_000, "worker-1") <= 450
