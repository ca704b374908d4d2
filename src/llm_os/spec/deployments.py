"""Lasting work: a served model and its replicas."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from llm_os.spec.base import Json, Name, Record, Ref, Spec
from llm_os.spec.conditions import Condition
from llm_os.spec.units import Duration


class DeploymentSpec(Spec):
    name: Name
    model: Ref
    engine: str | None = None
    """None: the first engine that can serve this format and task here."""
    options: Mapping[str, Json] = Field(default_factory=dict)
    replicas: int = Field(default=1, ge=1, le=64)
    idle_after: Duration | None = None
    """End after this long without a request. None: never."""


class DeploymentState(StrEnum):
    PENDING = "pending"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in {DeploymentState.STOPPED, DeploymentState.FAILED}


class Replica(Record):
    attempt: str
    state: str
    endpoint: str | None
    engine: str


class Deployment(Record):
    id: str
    spec: DeploymentSpec
    version: str
    """`card@number` that is served."""
    task: str
    engine: str
    session: str | None
    """Lease it belongs to; None: kept."""
    state: DeploymentState
    replicas: tuple[Replica, ...] = ()
    conditions: tuple[Condition, ...] = ()
    error: Mapping[str, Json] | None = None
    created_at: float
    ready_at: float | None = None
    ended_at: float | None = None
