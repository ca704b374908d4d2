"""What a quality report says of data: counts, row numbers and masked excerpts; never a raw value that is personal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from llm_os.spec.base import Json, Record


class RowRef(Record):
    """`row` counts from 0 in what was described (`data[row]`); rows of another split count in that split."""

    split: str
    row: int = Field(ge=0)


class Spread(Record):
    """Numbers at a glance: quantiles by nearest rank, and a histogram whose bins begin at `edges`."""

    min: float
    p25: float
    p50: float
    p75: float
    p95: float
    max: float
    mean: float
    edges: tuple[float, ...]
    """One more than `counts`; the last bin includes its end."""
    counts: tuple[int, ...]


class Column(Record):
    name: str
    filled: int
    """Rows that have a value."""
    distinct: int
    """Different values, at most 1000 are told apart."""
    constant: str | None = None
    """The value of all filled rows where it is one only, masked."""


class Languages(Record):
    looked_at: int
    counts: Mapping[str, int]
    """Rows by ISO 639-1 code, most first; `unknown`: too short, or the model is not sure."""
    others: tuple[RowRef, ...] = ()
    """Some of the rows that are surely of another language than most."""


class CopyGroup(Record):
    rows: tuple[RowRef, ...]
    """The first few of them."""
    count: int
    similarity: float
    """The least of the pairs that link the group; 1: equal but for case and spaces."""
    labels: tuple[str, ...] = ()
    """The different labels that they have."""
    excerpt: str


class Copies(Record):
    """Texts that occur more than once. Similarity is that of character n-grams (Jaccard)."""

    compared: int
    """Rows whose texts were compared for being nearly equal, those of other splits included."""
    threshold: float | None
    equal: int
    """Rows that repeat an earlier one."""
    near: int
    """Rows that nearly repeat an earlier one."""
    conflicting: int
    """Rows whose equal text has different labels."""
    alike: int = 0
    """Rows that look like made from one template; then only equal texts are counted."""
    leaking: int
    """Rows (of the training split, where all are described) with an equal or nearly equal text in another split."""
    groups: tuple[CopyGroup, ...] = ()
    conflicts: tuple[CopyGroup, ...] = ()
    leaks: tuple[CopyGroup, ...] = ()


class Doubt(Record):
    at: RowRef
    label: str
    likely: str
    """What a model that was trained on other rows says."""
    margin: float
    """Probability of the label less that of the likely one, -1 to 0 (scores: standard deviations off, negative)."""
    excerpt: str


class Doubts(Record):
    """Labels that a model disagrees with which did not see them: confident learning (Northcutt et al. 2021)."""

    method: str
    looked_at: int
    agreement: float
    """Share of the labels that the model agrees with (scores: R²)."""
    count: int
    """Labels it is confidently against."""
    confused: Mapping[str, int] = Field(default_factory=dict)
    """`label -> likely`: how many of them, most first."""
    rows: tuple[Doubt, ...] = ()
    """Most doubtful first."""


class Sample(Record):
    at: RowRef
    column: str
    kind: str
    masked: str


class Personal(Record):
    looked_at: int
    rows: int
    counts: Mapping[str, int]
    """Finds by kind: `email`, `phone`, `id`, `ssn`, `card`, `iban`."""
    samples: tuple[Sample, ...] = ()


class Fault(Record):
    name: str
    """What it is, such as `HTML`."""
    rows: int
    examples: tuple[RowRef, ...] = ()
    hint: str = ""


class Finding(Record):
    """One thing that a person should know, worst first."""

    severity: Literal["error", "warning", "note"]
    check: str
    sentence: str
    hint: str = ""
    rows: tuple[RowRef, ...] = ()


class Quality(Record):
    """The whole report."""

    version: Literal[1] = 1
    name: str
    digest: str
    kind: str
    language: str
    split: str
    """`train`, `test`, or `all`."""
    start: int = 0
    rows: int
    splits: Mapping[str, int]
    """Rows of every split that the data set has."""
    source: Mapping[str, Json] = Field(default_factory=dict)
    steps: tuple[str, ...] = ()
    left_out: Mapping[str, int] = Field(default_factory=dict)
    """Rows that preparation left out, by reason."""
    classes: Mapping[str, Mapping[str, int]] = Field(default_factory=dict)
    """Rows by class, for each described split."""
    score: Spread | None = None
    lengths: Mapping[str, Spread] = Field(default_factory=dict)
    """`characters`, `words`, and `tokens` where a model was named."""
    model: str | None = None
    context_length: int | None = None
    too_long: int | None = None
    """Rows with more tokens than the model reads."""
    columns: tuple[Column, ...] = ()
    empty_columns: tuple[str, ...] = ()
    languages: Languages | None = None
    copies: Copies
    doubts: Doubts | None = None
    personal: Personal
    faults: tuple[Fault, ...] = ()
    findings: tuple[Finding, ...] = ()
    sampled: Mapping[str, int] = Field(default_factory=dict)
    """Checks that looked at some of the rows only: how many."""
    seconds: float = 0.0
