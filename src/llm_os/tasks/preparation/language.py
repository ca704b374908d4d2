"""Languages: each text's is told and written into a column; rows in some languages are kept, or dropped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from llm_os.spec.base import Spec
from llm_os.tasks.preparation.step import Bench, Row, Step
from llm_os.tasks.preparation.texts import texts
from llm_os.tasks.preparation.words import SHORTEST, Guess, detect, written_in_han


class LanguageOptions(Spec):
    keep: tuple[str, ...] = Field(default=(), examples=[["en", "zh"]])
    """ISO 639-1 codes: rows in other languages are dropped; none: all are kept."""
    drop: tuple[str, ...] = Field(default=(), examples=[["fr"]])
    """ISO 639-1 codes: rows in these languages are dropped."""
    column: str | None = "language"
    """Column that the language is written into; none: it is not written."""
    least_score: float = Field(default=0.5, ge=0, le=1)
    """A language told with less probability than this counts as `unknown`."""
    unsure: Literal["keep", "drop"] = "keep"
    """What happens to rows whose language is `unknown` (short texts, numbers, mixed ones), where `keep` or `drop` is
    given."""


class Language(Step[LanguageOptions]):
    """A row's language is that of all its texts together."""

    Options = LanguageOptions

    def apply(self, rows: Iterator[Row], options: LanguageOptions, bench: Bench) -> Iterator[Row]:
        for row in rows:
            language = told("\n".join(texts(row)), options.least_score)
            bench.notes[language] += 1
            if not wanted(language, options):
                bench.notes["dropped"] += 1
                continue
            yield row if options.column is None else {**row, options.column: language}


def told(text: str, least_score: float) -> str:
    """ISO 639-1 code, or `unknown` for texts that are too short or do not say clearly."""
    if len(text.strip()) < (SHORTEST // 5 if written_in_han(text) else SHORTEST):
        return "unknown"
    guess: Guess = detect(text)
    return guess.language if guess.score >= least_score else "unknown"


def wanted(language: str, options: LanguageOptions) -> bool:
    """Whether a row in that language stays."""
    if language == "unknown":
        return options.unsure == "keep" or not (options.keep or options.drop)
    return language not in options.drop and (not options.keep or language in options.keep)


PLUGIN = Language()
