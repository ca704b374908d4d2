"""Why something is as it is: a closed vocabulary, so that every reason can be documented and tested."""

from __future__ import annotations

from enum import StrEnum

from llm_os.spec.base import Record


class Reason(StrEnum):
    FITS = "fits"
    CHOSEN = "chosen"
    NOT_ENOUGH_CPU = "not_enough_cpu"
    NOT_ENOUGH_MEMORY = "not_enough_memory"
    NOT_ENOUGH_ACCELERATORS = "not_enough_accelerators"
    NOT_ENOUGH_ACCELERATOR_MEMORY = "not_enough_accelerator_memory"
    SESSION_CAP = "session_cap"
    NEVER_FITS = "never_fits"
    RETRY_BACKOFF = "retry_backoff"
    WAITING_FOR_START = "waiting_for_start"
    CANCELLED_BY_USER = "cancelled_by_user"
    SESSION_ENDED = "session_ended"
    WORKER_FAILED = "worker_failed"
    WORKER_LOST = "worker_lost"
    START_FAILED = "start_failed"
    IDLE = "idle"
    STOPPED_BY_USER = "stopped_by_user"
    REPLACED = "replaced"
    SCALED_DOWN = "scaled_down"
    ROLLED_BACK = "rolled_back"
    READY = "ready"
    SHUTDOWN = "shutdown"
    SUCCEEDED = "succeeded"


class Condition(Record):
    """One claim about a subject, with its reason and a sentence for people."""

    kind: str
    """`placed`, `ready`, `ended` ..."""
    status: bool
    reason: Reason
    message: str
