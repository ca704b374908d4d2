"""What happened: append-only, written in the transaction of the change it tells."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from llm_os.spec.base import Json, Record


class EventKind(StrEnum):
    KERNEL_STARTED = "kernel.started"
    KERNEL_STOPPED = "kernel.stopped"
    SESSION_OPENED = "session.opened"
    SESSION_CLOSED = "session.closed"
    SESSION_EXPIRED = "session.expired"
    JOB_SUBMITTED = "job.submitted"
    JOB_PLACED = "job.placed"
    JOB_STARTED = "job.started"
    JOB_WAITING = "job.waiting"
    JOB_RETRIED = "job.retried"
    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCEL_REQUESTED = "job.cancel_requested"
    JOB_CANCELLED = "job.cancelled"
    DEPLOYMENT_CREATED = "deployment.created"
    DEPLOYMENT_WAITING = "deployment.waiting"
    DEPLOYMENT_READY = "deployment.ready"
    DEPLOYMENT_STOPPING = "deployment.stopping"
    DEPLOYMENT_STOPPED = "deployment.stopped"
    DEPLOYMENT_FAILED = "deployment.failed"
    DEPLOYMENT_SCALED = "deployment.scaled"
    ADAPTER_ADDED = "adapter.added"
    ADAPTER_REMOVED = "adapter.removed"
    ADAPTER_FAILED = "adapter.failed"
    ROLLOUT_STARTED = "rollout.started"
    ROLLOUT_CANARY = "rollout.canary"
    ROLLOUT_ROLLING = "rollout.rolling"
    ROLLOUT_DONE = "rollout.done"
    ROLLOUT_ROLLED_BACK = "rollout.rolled_back"
    ALIAS_MOVED = "alias.moved"
    REPLICA_PLACED = "replica.placed"
    REPLICA_READY = "replica.ready"
    REPLICA_LOST = "replica.lost"
    GATEWAY_STARTED = "gateway.started"
    GATEWAY_LOST = "gateway.lost"
    MODEL_REGISTERED = "model.registered"
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    ORPHAN_ENDED = "orphan.ended"
    ALERT_FIRING = "alert.firing"
    ALERT_RESOLVED = "alert.resolved"


class Event(Record):
    seq: int
    at: float
    kind: EventKind
    subject: str
    message: str
    """A sentence for people."""
    data: Mapping[str, Json] = Field(default_factory=dict)
