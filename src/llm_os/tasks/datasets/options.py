"""Options that every source of data shares; the names that `load_data` has are the same here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llm_os.spec.base import Spec
from llm_os.tasks.preparation.step import StepSpec


class DataOptions(Spec):
    kind: Literal[
        "auto", "classification", "score", "multi-label", "tokens", "text", "pairs", "chat", "preference", "choices"
    ] = "auto"
    """What the rows are; `auto` looks at the columns of the first."""
    labels: int | Literal["score"] | None = None
    """Number of classes that must be found, or `score` for numbers; none: as many as there are."""
    test_size: float = Field(default=0.2, gt=0, lt=1)
    """Share of the rows that goes to the test split."""
    seed: int = 42
    """Another seed is another split."""
    limit: int | None = Field(default=None, ge=4)
    """At most this many rows, chosen at random by the seed, classes in proportion."""
    split: Literal["stratified", "random", "grouped", "time"] = "stratified"
    """How rows are divided: classes in proportion, at random, whole groups, or the newest rows as the test."""
    group: str | None = None
    """Column whose equal values stay on one side (split='grouped')."""
    time: str | None = None
    """Column to order rows by (split='time'): a number, or a date in ISO 8601."""
    steps: tuple[StepSpec, ...] | None = None
    """Preparation steps, in order; none said: `clean`. An empty list: rows as they come."""
    near_duplicates: float | None = Field(default=0.8, ge=0.3, le=1)
    """Texts at least this similar (Jaccard, character n-grams) count as one text when rows are divided; none: equal
    texts only."""
    leaks: Literal["refuse", "drop", "keep"] = "refuse"
    """Where a split that was given has like texts on both sides: an error that names them, or the training rows go."""
    bad_rows: Literal["refuse", "skip"] = "refuse"
    """A row that cannot be read: an error that names it, or it is counted and left out."""
    language: str = Field(default="unknown", min_length=2, max_length=16)
    """`en`, `zh` or another ISO 639-1 code; `unknown`."""


class OwnDataOptions(DataOptions):
    """What all sources of the user's own data know besides."""

    name: str | None = None
    """What the data set is called; none: as its source."""
    text: str | None = None
    """Column of the texts (messages, tokens, prompts); none: the one with a usual name."""
    label: str | None = None
    """Column of the labels (tags, scores); none: the one with a usual name."""
    other: str | None = None
    """Column of the second text of pairs; none: the one with a usual name."""

    @property
    def asked(self) -> dict[str, str | None]:
        """Columns that the user named, by role."""
        return {"text": self.text, "label": self.label, "other": self.other}


class SplitNames(OwnDataOptions):
    """Of sources whose makers divided them already."""

    train_split: str | None = None
    """Name of the makers' split to train on; none: `train`, or the only one."""
    test_split: str | None = None
    """Name of the makers' split to test on; none: `test`, or else `validation`."""
