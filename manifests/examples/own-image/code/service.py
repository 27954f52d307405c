"""Scores how friendly a text is by the words in it. The model is a file beside the code, as images carry it."""

import json
import re
from pathlib import Path

WEIGHTS: dict[str, float] = json.loads(Path(__file__).with_name("weights.json").read_text())


def score(text: str) -> float:
    """Between -1 and 1; 0 for a text without a word that is known."""
    known = [WEIGHTS[word] for word in re.findall(r"\w+", text.lower()) if word in WEIGHTS]
    return round(sum(known) / len(known), 2) if known else 0.0
