"""What the scheduler answers: steps to take, and for everything else why not."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from llm_os.spec.base import Json, Record
from llm_os.spec.conditions import Reason
from llm_os.spec.units import Bytes


class Placement(Record):
    """Where one worker runs and what it holds there."""

    node: str
    cpus: float
    memory: Bytes
    devices: tuple[int, ...] = ()
    threads: int = 1
    """Threads the worker may run: its share, or more where its session allows."""


class Step(Record):
    """Place one waiting subject. Verified against the ledger again when it is committed."""

    subject: str
    """Job id or deployment name."""
    kind: str
    """`job` or `replica`."""
    placement: Placement
    because: str


class Refusal(Record):
    subject: str
    kind: str
    reason: Reason
    message: str
    """One sentence with numbers: what is needed, what is free, what would fit."""
    details: Mapping[str, Json] = Field(default_factory=dict)


class Plan(Record):
    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()
