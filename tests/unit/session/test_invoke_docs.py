"""The example at the head of docs/reference/calls.md does what the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from unit.session.conftest import StartPod

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "calls.md"


def test_the_first_example_answers_as_printed(start_pod: StartPod) -> None:
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (_, code), (_, request), (_, answer) = blocks[:3]
    reply = start_pod(code).call(json.loads(request))
    assert reply.status == 200
    assert reply.json == json.loads(answer)
