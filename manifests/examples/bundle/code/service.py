"""Guesses the language of a text by the words that are frequent in each."""

from pathlib import Path

WORDS = {}


def load():
    for file in (Path(__file__).parent / "words").glob("*.txt"):
        WORDS[file.stem] = frozenset(file.read_text(encoding="utf-8").split())


def guess(text: str) -> str:
    found = [word.strip(".,;:!?") for word in text.lower().split()]
    return max(sorted(WORDS), key=lambda language: sum(word in WORDS[language] for word in found))
