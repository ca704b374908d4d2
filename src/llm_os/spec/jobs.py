"""Finite work: what was asked (JobSpec), what the system knows (Job, Attempt)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from llm_os.spec.base import Json, Name, Record, Ref, Spec
from llm_os.spec.conditions import Condition
from llm_os.spec.placement import Placement
from llm_os.spec.resources import ResourceSpec
from llm_os.spec.units import Duration


class RetryPolicy(Spec):
    """How often a lost or retryable attempt is started again. A user's mistake is never retried."""

    attempts: int = Field(default=4, ge=1)
    backoff: Duration = 1.0


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


class AttemptState(StrEnum):
    PLACED = "placed"
    """Committed and holding resources; the launcher may or may not have started it."""
    RUNNING = "running"
    READY = "ready"
    """Replicas only: answers requests."""
    STOPPING = "stopping"
    ENDED = "ended"
    """Confirmed dead; holds nothing."""

    @property
    def holds(self) -> bool:
        return self is not AttemptState.ENDED


class JobSpec(Spec):
    """Finite work. `inputs` may name refs; they become digests at submission."""

    task: str
    """`family/name`, such as `training/full`."""
    options: Mapping[str, Json] = Field(default_factory=dict)
    inputs: Mapping[str, Ref] = Field(default_factory=dict)
    name: Name | None = None
    """For tasks that make a model or data set: the card it is registered under."""
    resources: ResourceSpec | None = None
    queue: Name = "default"
    priority: int = 0
    retry: RetryPolicy = RetryPolicy()
    targets: tuple[str, ...] = ()


class Choice(Record):
    """What a task, asked for at large, becomes on this machine: decided once, at submission, and recorded as such."""

    task: str
    options: Mapping[str, Json]
    because: str
    """One sentence with the figures, for the person who asked."""


class Attempt(Record):
    """One try at running something. Owner is a job, a deployment (replica) or the system (gateway)."""

    id: str
    owner_kind: str
    """`job`, `replica` or `system`."""
    owner: str
    number: int
    token: int
    """Fencing token: reports of an older token are dropped."""
    state: AttemptState
    placement: Placement
    revision: int = 1
    """Of a replica: the revision of its deployment that it serves."""
    member: int = 0
    """Of a replica: the place of its engine among those of the revision."""
    endpoint: str | None = None
    adapters: Mapping[str, str] = Field(default_factory=dict)
    """Of a replica: adapters that it has told to hold, by name: `card@number`."""
    adapters_failed: Mapping[str, str] = Field(default_factory=dict)
    """Those that it could not take, by name: why."""
    reason: str | None = None
    exit_code: int | None = None
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None


class Job(Record):
    id: str
    spec: JobSpec
    state: JobState
    session: str | None
    """Lease it belongs to; None: it goes on without its session."""
    attempt: str | None = None
    attempts: int = 0
    cancel_requested: bool = False
    progress: Mapping[str, Json] = Field(default_factory=dict)
    """The newest values that were reported (`step`, `total`, `loss`, `stage` ...)."""
    result: Mapping[str, Json] = Field(default_factory=dict)
    """What the task returned; `version` and `artifact` are added by the kernel."""
    error: Mapping[str, Json] | None = None
    """`LLMOSError.to_dict()` of the failure."""
    conditions: tuple[Condition, ...] = ()
    cached: bool = False
    """True: an equal job had succeeded before, its result was reused and nothing ran."""
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
