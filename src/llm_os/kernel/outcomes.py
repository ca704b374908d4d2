"""How an attempt ended, and what follows for its job: pure functions, decided from records alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from llm_os.errors import InternalError, JobFailedError
from llm_os.spec.attempts import EXIT_OK, EXIT_STOPPED, EXIT_USER_ERROR, Exit, Report
from llm_os.spec.base import Json
from llm_os.spec.jobs import Job


class End(Enum):
    SUCCESS = "success"
    USER_ERROR = "user_error"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"
    """Killed, or gone without a record: nobody's mistake."""


@dataclass(frozen=True, slots=True)
class Outcome:
    end: End
    message: str
    error: Mapping[str, Json] | None = None
    retryable: bool = False


class Next(Enum):
    INGEST = "ingest"
    RETRY = "retry"
    FAIL = "fail"
    CANCEL = "cancel"


def outcome_of(exit_record: Exit | None, error: Report | None, log: str) -> Outcome:
    """Read the records of an attempt that is dead. `exit_record` None: it left none.

    Args:
        error: its last report of kind `error`.
        log: path of its log, named where nothing better is known.
    """
    if exit_record is None:
        return Outcome(End.LOST, "its process is gone without a record", retryable=True)
    if not exit_record.started:
        return Outcome(End.LOST, exit_record.message or "it never started", retryable=True)
    if exit_record.code == EXIT_OK:
        return Outcome(End.SUCCESS, "finished")
    if exit_record.code == EXIT_STOPPED:
        return Outcome(End.STOPPED, "stopped because it was asked to", retryable=True)
    if error is not None:
        values = error.values
        end = End.USER_ERROR if exit_record.code == EXIT_USER_ERROR else End.FAILED
        return Outcome(end, str(values.get("message", "failed")), values, retryable=bool(values.get("retryable")))
    if exit_record.signal is not None:
        return Outcome(End.LOST, f"ended by signal {exit_record.signal}", retryable=True)
    failure = JobFailedError(f"The worker ended with exit code {exit_record.code}.", hint=f"Its log: {log}.")
    return Outcome(End.FAILED, failure.message, failure.to_dict())


def next_step(job: Job, outcome: Outcome) -> Next:
    """What follows for a job whose attempt ended."""
    if job.cancel_requested:
        return Next.CANCEL
    if outcome.end is End.SUCCESS:
        return Next.INGEST
    if outcome.end in {End.LOST, End.STOPPED} or outcome.retryable:
        return Next.RETRY if job.attempts < job.spec.retry.attempts else Next.FAIL
    return Next.FAIL


def final_error(job: Job, outcome: Outcome, log: str) -> Mapping[str, Json]:
    """`LLMOSError.to_dict()` of a job that failed for good."""
    if outcome.error is not None:
        return outcome.error
    failure = InternalError if outcome.end is End.SUCCESS else JobFailedError
    return failure(
        f"The job was tried {job.attempts} times; the last time: {outcome.message}.",
        hint=f"Its log: {log}. Out of memory? `llm-os why {job.id}` shows what it needed.",
    ).to_dict()


def backoff(job: Job, jitter: float) -> float:
    """Seconds before the next try: doubling from the policy's, at most a minute; `jitter` in [0, 1) adds up to 20 %."""
    return min(60.0, job.spec.retry.backoff * 2 ** max(0, job.attempts - 1)) * (1 + 0.2 * jitter)
