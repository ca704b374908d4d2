"""What engines were measured to do with a version on this machine, and what was chosen by it.

Figures are of short runs: they rank engines under the same load, minutes apart, and promise nothing beyond that.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from llm_os.spec.base import Json, Record, Spec
from llm_os.spec.parity import Parity
from llm_os.spec.resources import ResourceSpec

STREAMS = (1, 8, 32)
"""Requests that are under way at all times while an engine is measured."""


class Member(Spec):
    """An engine with its options, of those that a deployment's replicas run with."""

    engine: str
    options: Mapping[str, Json] = Field(default_factory=dict)


class Candidate(Spec):
    """An engine with its options as it could serve a version here, and the program that would."""

    member: Member
    engine_version: str
    argv: tuple[str, ...]
    """With `{attempt}`, `{socket}` and `{threads}` left to whoever starts it."""
    env: Mapping[str, str] = Field(default_factory=dict)
    resources: ResourceSpec
    compared: bool = True
    """Whether it is compared with the reference before it may serve."""


class Speed(Record):
    """What one replica does while so many requests are under way at all times."""

    streams: int = Field(ge=1)
    per_second: float = Field(ge=0)
    """Of all requests together: tokens of a model that generates, texts of a classifier or an embedder."""
    first: float = Field(ge=0)
    """Median seconds to the first token, or to the answer where there are no tokens."""


class Trial(Record):
    """One candidate, measured or refused."""

    member: Member
    speeds: tuple[Speed, ...] = ()
    """By streams, fewest first; empty where it may not serve."""
    parity: Parity | None = None
    ready_seconds: float = 0.0
    """From its start until it answers, without the comparison with the reference."""
    memory: int = 0
    """Most bytes that it held."""
    error: str | None = None
    """Why it is out of the question: it did not start, or does not agree with the reference."""


class Calibration(Record):
    """All candidates for a version on a machine, and those that were taken."""

    version: str
    fingerprint: str
    """Of the devices and of the engines' versions: other figures hold elsewhere."""
    trials: tuple[Trial, ...]
    chosen: tuple[int, ...]
    """Places in `trials`: one engine, or several whose replicas stand side by side, the one for few requests first."""
    why: str
    """One sentence with the figures, for the person who asked for nothing."""

    @property
    def members(self) -> tuple[Member, ...]:
        """What was taken: one engine, or those that stand side by side."""
        return tuple(self.trials[place].member for place in self.chosen)

    def trial(self, engine: str, options: Mapping[str, Json]) -> Trial | None:
        """What an engine with these options did; None: it was not tried so."""
        mine = Member(engine=engine, options=options)
        return next((one for one in self.trials if one.member == mine), None)
