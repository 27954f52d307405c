"""A line for each change: who, what, how it ended, from where; and from where is not what the caller claims."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pythonjsonlogger.orjson import OrjsonFormatter

from sessionpools.web.auth.audit import Caller, Outcome, record, source_address
from sessionpools.web.auth.identity import Principal, Role

ADA = Principal("ada", Role.CONTRIBUTOR)
CALLER = Caller("192.0.2.1", "7b2c")


@contextmanager
def written() -> Iterator[list[Any]]:
    """What is written as the processes of the product write it, at the quietest level there is."""
    lines: list[Any] = []
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OrjsonFormatter("{levelname}{name}{message}", style="{"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.ERROR)
    try:
        yield lines
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        lines += [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_change_is_one_line_of_json_whatever_the_log_level() -> None:
    with written() as lines:
        record(CALLER, ADA, "delete", "Service", "DiabetesScore", "v1.0.0", outcome=Outcome.DONE)
    assert lines == [
        {
            "levelname": "INFO",
            "name": "sessionpools.audit",
            "message": "audit",
            "user": "ada",
            "role": "Contributor",
            "verb": "delete",
            "kind": "Service",
            "object": "DiabetesScore",
            "version": "v1.0.0",
            "outcome": "done",
            "reason": "",
            "from": "192.0.2.1",
            "requestId": "7b2c",
        }
    ]


def test_what_callers_choose_makes_no_line_of_its_own_and_no_endless_one() -> None:
    with written() as lines:
        record(CALLER, None, "publish", "Service", 'x\n{"user": "admin"}' + "y" * 9999, outcome=Outcome.REFUSED)
    assert len(lines) == 1
    assert lines[0]["user"] == ""
    assert len(lines[0]["object"]) == 256


@pytest.mark.parametrize(
    ("forwarded_for", "by_gateway", "address"),
    [
        (None, True, "10.244.0.7"),
        ("192.0.2.1", True, "192.0.2.1"),
        ("203.0.113.9, 192.0.2.1", True, "192.0.2.1"),
        ("2001:db8::1", True, "2001:db8::1"),
        ("192.0.2.1", False, "10.244.0.7"),
        ("not an address", True, "10.244.0.7"),
        ("192.0.2.1, ", True, "10.244.0.7"),
    ],
)
def test_only_the_gateways_word_about_an_address_counts(
    forwarded_for: str | None, by_gateway: bool, address: str
) -> None:
    assert source_address("10.244.0.7", forwarded_for, by_gateway=by_gateway) == address
