"""Which languages the texts are in, and which rows are of another one than most."""

from __future__ import annotations

from collections import Counter, defaultdict

from llm_os.spec.quality import Languages, RowRef
from llm_os.tasks.preparation.words import SHORTEST, detect, written_in_han
from llm_os.tasks.quality.rows import Seen

SURE = 0.6
"""Probability from which the model is believed. Its 98 % are for longer texts; on a line it needs a margin."""
KEPT = 50
"""Rows that are remembered of each language."""


class LanguageCheck:
    """Texts of fewer than 20 letters, and those the model is not sure of, count as `unknown`."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._rows: dict[str, list[RowRef]] = defaultdict(list)

    def add(self, seen: Seen) -> None:
        code = language(seen.text)
        self._counts[code] += 1
        if len(self._rows[code]) < KEPT:
            self._rows[code].append(seen.at)

    def result(self, examples: int) -> Languages | None:
        """None: no row was seen."""
        if not self._counts:
            return None
        main = next((code for code, _ in self._counts.most_common() if code != "unknown"), None)
        others = [at for code, rows in self._rows.items() if code not in (main, "unknown") for at in rows]
        return Languages(
            looked_at=self._counts.total(), counts=dict(self._counts.most_common()), others=tuple(others[:examples])
        )


def language(text: str) -> str:
    if written_in_han(text):
        return "zh"
    if sum(sign.isalpha() for sign in text) < SHORTEST:
        return "unknown"
    guess = detect(text)
    return guess.language if guess.score >= SURE else "unknown"
