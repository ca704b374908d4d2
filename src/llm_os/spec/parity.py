"""What an engine is compared by before it serves: what the reference says, and the figures of the comparison.

The reference is the model in PyTorch with fp32 weights: what evaluations judge. See docs/how-to/parity.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from llm_os.spec.base import Record

FILE = "reference.json"
"""Where the artifact of `evaluation/reference` holds its Reference."""
COMPARING = "comparing"
"""Stage of a replica's start: its engine is asked what the reference was asked."""


class Place(Record):
    """What the reference says behind the beginning of a text."""

    at: int
    """Tokens of the beginning."""
    token: int
    """The likeliest next one."""
    text: str
    """Its text; empty where it ends an answer."""
    ends: bool = False
    """Whether an answer ends with it."""
    margin: float
    """By how much it is likelier than the second one, in nats."""


class CheckText(Record):
    """A text as the model reads it, and the places in it where engines are asked."""

    ids: tuple[int, ...]
    places: tuple[Place, ...]
    logprobs: tuple[float, ...] = ()
    """Natural logarithms of the probabilities of the tokens but the first, each behind those before it."""


class Reading(Record):
    """How the reference's tokenizer reads a text, or its template writes messages with the beginning of an answer."""

    text: str | None = None
    messages: tuple[Mapping[str, str], ...] = ()
    ids: tuple[int, ...]


class ScoredText(Record):
    """A text that a classifier judged: scores by label."""

    text: str
    scores: Mapping[str, float]


class Reference(Record):
    """What the reference says of the check texts: places of a model that generates, or scores of a classifier."""

    texts: tuple[CheckText, ...] = ()
    readings: tuple[Reading, ...] = ()
    scored: tuple[ScoredText, ...] = ()


class Share(Record):
    """So many of so many, with the 95 % interval of the share (Wilson)."""

    count: int
    agreed: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share; 1 of nothing."""
        return self.agreed / self.count if self.count else 1.0

    def __str__(self) -> str:
        return f"{self.value:.1%} of {self.count} ({self.low:.1%} to {self.high:.1%})"


class Parity(Record):
    """How far an engine agrees with the reference: on the next token, or on the label of a classifier."""

    everywhere: Share
    sure: Share
    """Where the reference is sure: its first choice leads by a margin."""
    readings: Share | None = None
    """Texts and chats that became the same tokens; None: the engine does not tell its tokens, or reads none."""
    perplexity: float | None = None
    """Of the check texts, as a multiple of the reference's; None: the engine does not tell how likely texts are."""
    mean_difference: float | None = None
    """Of a classifier: mean absolute difference of scores."""
    largest_difference: float | None = None
    engine_version: str = ""
    key: str = Field(default="", max_length=64)
    """Of what it holds for: reference, engine, its version and options. Equal keys are not compared again."""
    at: float = 0.0
    """When, seconds since the epoch."""
    complaints: tuple[str, ...] = ()
    """Limits that it does not keep, of a service that was compared again; what is refused at its start serves not."""

    @property
    def agrees(self) -> bool:
        """Whether it keeps the limits."""
        return not self.complaints

    @property
    def rank(self) -> tuple[bool, float, float]:
        """The worse, the smaller."""
        return not self.complaints, self.sure.value, self.everywhere.value

    @property
    def short(self) -> str:
        """`98.8% sure, 94.6% all`: for a column."""
        return f"{self.sure.value:.1%} sure, {self.everywhere.value:.1%} all"

    @property
    def sentence(self) -> str:
        """All figures, for people."""
        what = "next tokens" if self.mean_difference is None else "labels"
        told = f"{self.sure} {what} where it is sure, {self.everywhere} everywhere"
        if self.mean_difference is not None:
            told += f", scores differ by {self.mean_difference:.4f} on average"
        if self.perplexity is not None:
            told += f", perplexity {self.perplexity - 1:+.1%}"
        if self.readings is not None and self.readings.agreed < self.readings.count:
            told += f"; {self.readings.count - self.readings.agreed} of {self.readings.count} texts are read otherwise"
        return told
