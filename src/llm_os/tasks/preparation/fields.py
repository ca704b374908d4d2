"""Where personal data stands in a row: every text of every column but the labels. Knows the kinds' columns, no step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llm_os.spec.base import Json
from llm_os.tasks.preparation.personal import KINDS, Span, find, replace

Row = Mapping[str, Json]
LABELS = frozenset({"label", "labels", "tags", "score"})
"""Columns that are left alone: what stands there names a class."""
DIALLED = re.compile(r"phone|mobile|\btel|\bfax|手机|电话", re.IGNORECASE)
"""Columns whose plain numbers are taken for phone numbers; elsewhere a number is an id, an amount or a time."""


class Found(NamedTuple):
    """Personal data in one text of a row: `text[begin:end]` for each span."""

    column: str
    text: str
    spans: Sequence[Span]


class Search:
    """Looks through rows. The arguments are those of `personal.find`."""

    def __init__(self, regions: Sequence[str], kinds: Sequence[str] = KINDS) -> None:
        self._regions, self._kinds = regions, tuple(kinds)
        self._numbers = tuple(kind for kind in self._kinds if kind in ("id", "card"))
        self._found: list[Found] = []

    def found(self, row: Row) -> list[Found]:
        """What is in a row, column by column."""
        return self.redacted(row)[1]

    def redacted(self, row: Row) -> tuple[Row, list[Found]]:
        """The row with `[EMAIL]`, `[PHONE]`, ... in their places, and what was there; the same object for nothing.

        Tokens stay as many as they were: each that a number spans becomes the placeholder.
        """
        self._found = []
        changed = {
            name: self._value(name, value)
            for name, value in row.items()
            if name not in LABELS and not name.startswith("\x00")
        }
        return ({**row, **changed} if self._found else row), self._found

    def _value(self, column: str, value: Any) -> Any:
        if isinstance(value, str):
            return replace(value, self._spans(column, value, self._kinds))
        if isinstance(value, int | float) and not isinstance(value, bool):
            plain = f"{value:.0f}" if isinstance(value, float) else str(value)
            dialled = ("phone",) if "phone" in self._kinds and DIALLED.search(column) else ()
            spans = self._spans(column, plain, (*self._numbers, *dialled)) if len(plain) > 6 else []
            return replace(plain, spans) if spans else value
        if isinstance(value, list):
            return self._tokens(value) if column == "tokens" else [self._value(column, item) for item in value]
        return {name: self._value(name, item) for name, item in value.items()} if isinstance(value, dict) else value

    def _tokens(self, tokens: list[Any]) -> list[str]:
        """They are searched with spaces between: a number may take several."""
        new, begin = [str(token) for token in tokens], 0
        spans = self._spans("tokens", " ".join(new), self._kinds)
        for number, token in enumerate(new):
            end = begin + len(token)
            new[number] = next((f"[{s.kind.upper()}]" for s in spans if s.begin < end and s.end > begin), token)
            begin = end + 1
        return new

    def _spans(self, column: str, text: str, kinds: Sequence[str]) -> list[Span]:
        spans = find(text, self._regions, kinds) if kinds else []
        if spans:
            self._found.append(Found(column, text, spans))
        return spans
