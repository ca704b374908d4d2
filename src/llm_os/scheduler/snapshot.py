"""The immutable view that the scheduler decides on; built by the kernel, knows no SQL and no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llm_os.spec.resources import Capacity, Caps, Holding, ResourceSpec


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job or replica that wants to run.

    Attributes:
        subject: job id, or `<deployment id>/<what tells its replicas apart>`.
        kind: `job` or `replica`.
        resources: what one worker needs.
        submitted: order of submission; earlier goes first among equals.
        not_before: seconds of the clock before which it must not start (back-off), None: at once.
        wants_threads: threads it asks for at most; None: as many as its session allows.
    """

    subject: str
    kind: str
    session: str | None
    resources: ResourceSpec
    priority: int = 0
    submitted: float = 0.0
    not_before: float | None = None
    wants_threads: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State at `now` (seconds). One node in this issue; `granted` is what its operator grants."""

    now: float
    node: str
    granted: Capacity
    holdings: tuple[Holding, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    caps: Mapping[str, Caps] = field(default_factory=dict)
    """Caps by session id."""
