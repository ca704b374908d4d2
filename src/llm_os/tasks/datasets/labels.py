"""How labels are written: one way in a column, or several that were mixed up. Knows no file, no kind and no split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llm_os.errors import DataError

NO_LABEL = frozenset({"nan", "NaN", "NAN"})
"""What programs write where a number is missing; no class is called so."""


class Writing:
    """Sees the labels of a column one by one, as their source gives them."""

    def __init__(self) -> None:
        self._first: tuple[str, str] | None = None

    def check(self, value: Any, where: str) -> None:
        """Raises DataError for a label of another type than the first one. Files without types have texts only."""
        kind = _kind(value)
        if self._first is None:
            self._first = (kind, where)
        elif kind != self._first[0]:
            raise DataError(
                f"the label '{str(value)[:40]}' is a {kind}, that of {self._first[1]} is a {self._first[0]}",
                hint="Write all labels in one way: all as texts, or all as numbers.",
            )


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "truth value"
    return "number" if isinstance(value, int | float) else "text"


def written(value: Any, text: str) -> str:
    """The name of a class: a whole number is written as one, because a column with a gap holds 1.0 in place of 1."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else text


def doubtful(names: Sequence[str]) -> str | None:
    """What to say of classes of which some are numbers and some are words; None where nothing is odd."""
    numbers = [name for name in names if _is_number(name)]
    words = [name for name in names if not _is_number(name)]
    if not numbers or not words:
        return None
    return (
        f"Some classes are numbers ({', '.join(numbers[:5])}), some are words ({', '.join(words[:5])}). Is it meant so?"
    )


def _is_number(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False
