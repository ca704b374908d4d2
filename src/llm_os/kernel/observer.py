"""Turns what was read and what effects brought back into records. The loop calls it inside one transaction."""

from __future__ import annotations

from sqlalchemy import Connection

from llm_os.errors import InternalError, InvalidInputError
from llm_os.kernel.adapting import Adapting
from llm_os.kernel.attempts import GATEWAY, ask_to_stop
from llm_os.kernel.deployments import Deployments
from llm_os.kernel.effects import Dead, Ingested, Result, Seen, Started, StartFailed
from llm_os.kernel.jobs import Jobs
from llm_os.kernel.outcomes import End, Outcome, outcome_of
from llm_os.kernel.parity import keep
from llm_os.kernel.rollouts import Rollouts
from llm_os.kernel.state import State
from llm_os.kernel.verification import noted
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import EXIT_OK
from llm_os.spec.conditions import Reason
from llm_os.spec.events import EventKind
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.processes import ProcessPhase
from llm_os.store import rows

LOG_LINES = 8
STEADY = 5.0
"""Seconds that a gateway runs before the next one is started without a pause."""


class Observer:
    def __init__(
        self, state: State, jobs: Jobs, deployments: Deployments, rollouts: Rollouts, adapting: Adapting
    ) -> None:
        self._state = state
        self._adapting = adapting
        self._jobs = jobs
        self._deployments = deployments
        self._rollouts = rollouts
        self.gateway_failures = 0
        self.gateway_not_before = 0.0

    def apply(self, tx: Connection, result: Result) -> None:
        """A result of an effect; stale ones change nothing."""
        row = rows.get_attempt(tx, result.attempt)
        if row is None or row.attempt.state is AttemptState.ENDED:
            return
        attempt = row.attempt
        if isinstance(result, Started):
            started = attempt.model_copy(update={"started_at": self._state.clock.now()})
            if attempt.state is AttemptState.PLACED:
                started = started.model_copy(update={"state": AttemptState.RUNNING})
            rows.update_attempt(tx, started, was=attempt.state, handle=result.handle)
            if started.owner_kind == "job":
                text = f"{started.owner} started as attempt {started.number}."
                rows.add_event(tx, self._state.clock.now(), EventKind.JOB_STARTED, started.owner, text)
        elif isinstance(result, StartFailed):
            self._start_failed(tx, attempt, result)
        elif isinstance(result, Dead):
            self._ended(tx, attempt, self._outcome(attempt), None)
        elif isinstance(result, Seen):
            self._seen(tx, attempt, result)
        else:
            self._ingested(tx, attempt, result)

    def _start_failed(self, tx: Connection, attempt: Attempt, result: StartFailed) -> None:
        """What could not be started may yet run: an earlier start may have been cut off after its effect.

        So it is stopped, which seals it, and its end is told when the launcher has confirmed that it is dead.
        """
        user = isinstance(result.error, InvalidInputError)
        end = End.USER_ERROR if user else End.LOST
        self._state.watch(attempt.id).failed_start = Outcome(
            end, result.error.message, result.error.to_dict(), retryable=not user
        )
        ask_to_stop(self._state, tx, attempt, Reason.START_FAILED)

    def _seen(self, tx: Connection, attempt: Attempt, result: Seen) -> None:
        status, watch = result.status, self._state.watch(attempt.id)
        watch.resident = status.resident_memory
        watch.inspected_at = self._state.clock.now()
        gone = status.phase in {ProcessPhase.LOST, ProcessPhase.ABSENT}
        no_record = self._state.files.read_exit(attempt.id) is None
        if gone and no_record and attempt.state in {AttemptState.RUNNING, AttemptState.READY}:
            self._ended(tx, attempt, Outcome(End.LOST, status.message or "its process is gone", retryable=True), None)

    def _ingested(self, tx: Connection, attempt: Attempt, result: Ingested) -> None:
        outcome = self._outcome(attempt)
        if result.error is not None:
            outcome = Outcome(
                End.FAILED, result.error.message, result.error.to_dict(), retryable=result.error.retryable
            )
        self._ended(tx, attempt, outcome, result.artifact)

    def look(self, tx: Connection, attempt: Attempt) -> str | None:
        """Read the folder of a live attempt. Returns `ingest` when its output must be taken in first."""
        state, watch = self._state, self._state.watch(attempt.id)
        new, watch.offset = state.files.read_reports(attempt.id, watch.offset)
        if new:
            watch.reports.extend(new)
            noted(state, tx, attempt, new)
            state.pulse.beat()
        record = state.files.read_exit(attempt.id)
        if record is not None and attempt.state is not AttemptState.STOPPING:
            if not record.started and attempt.state is AttemptState.PLACED:
                return None
            rest, watch.offset = state.files.read_reports(attempt.id, watch.offset)
            watch.reports.extend(rest)
            if record.code == EXIT_OK and attempt.owner_kind == "job" and self._has_output(tx, attempt):
                return "ingest"
            self._ended(tx, attempt, self._outcome(attempt), None)
            return None
        if attempt.owner_kind == "replica":
            attempt = self._adapting.heard(tx, attempt)
        ready = watch.newest("ready")
        if ready is not None and attempt.state is AttemptState.RUNNING and attempt.owner_kind != "job":
            self._ready(tx, attempt, {name: str(value) for name, value in ready.values.items()})
        error = watch.newest("error")
        if error is not None and attempt.owner == GATEWAY:
            state.gateway_error = dict(error.values)
        return None

    def _ready(self, tx: Connection, attempt: Attempt, values: dict[str, str]) -> None:
        endpoint = values.get("endpoint") or values.get("url")
        ready = attempt.model_copy(update={"state": AttemptState.READY, "endpoint": endpoint})
        if not rows.update_attempt(tx, ready, was=attempt.state):
            return
        now = self._state.clock.now()
        if attempt.owner == GATEWAY:
            self._state.gateway_url, self._state.gateway_error = endpoint, None
            self.gateway_failures = 0
            rows.set_meta(tx, "gateway_url", endpoint)
            rows.add_event(tx, now, EventKind.GATEWAY_STARTED, GATEWAY, f"The gateway answers at {endpoint}.")
            return
        row = rows.find_deployment(tx, attempt.owner)
        subject = attempt.owner if row is None else row.deployment.spec.name
        rows.add_event(tx, now, EventKind.REPLICA_READY, subject, f"A replica answers at {endpoint}.")
        keep(self._state, tx, attempt, self._state.watch(attempt.id).newest("ready"))
        self._deployments.settle(tx, attempt.owner)

    def _has_output(self, tx: Connection, attempt: Attempt) -> bool:
        row = rows.get_job(tx, attempt.owner)
        if row is None or row.job.cancel_requested:
            return False
        return self._state.plugins.task(row.job.spec.task).output is not None

    def _outcome(self, attempt: Attempt) -> Outcome:
        failed = self._state.watch(attempt.id).failed_start
        if failed is not None:
            return failed
        log = str(self._state.files.attempt(attempt.id) / "log")
        error = self._state.watch(attempt.id).newest("error")
        return outcome_of(self._state.files.read_exit(attempt.id), error, log)

    def _ended(
        self, tx: Connection, attempt: Attempt, outcome: Outcome, artifact: tuple[str, ArtifactFacts] | None
    ) -> None:
        """The one place where an attempt ends and its owner learns of it, in one transaction."""
        exit_record = self._state.files.read_exit(attempt.id)
        ended = attempt.model_copy(
            update={
                "state": AttemptState.ENDED,
                "reason": attempt.reason or outcome.message,
                "exit_code": exit_record.code if exit_record else None,
                "ended_at": self._state.clock.now(),
            }
        )
        if not rows.update_attempt(tx, ended, was=attempt.state):
            return
        log = self._state.files.log_tail(attempt.id, LOG_LINES)
        if attempt.owner_kind == "job":
            result = self._state.watch(attempt.id).newest("result")
            path = str(self._state.files.attempt(attempt.id) / "log")
            self._jobs.attempt_ended(tx, ended, outcome, result.values if result else {}, artifact, path)
        elif attempt.owner_kind == "replica":
            if not self._rollouts.attempt_ended(tx, ended, outcome, log):
                self._deployments.attempt_ended(tx, ended, outcome, log)
        else:
            self._gateway_ended(tx, ended, outcome)

    def _gateway_ended(self, tx: Connection, attempt: Attempt, outcome: Outcome) -> None:
        now = self._state.clock.now()
        self._state.gateway_url = None
        steady = attempt.endpoint is not None and now - (attempt.started_at or now) >= STEADY
        # Every request waits for the next one: only what dies again and again is waited for.
        self.gateway_failures = 0 if steady else self.gateway_failures + 1
        self.gateway_not_before = now if steady else now + min(10.0, 0.25 * 2**self.gateway_failures)
        if outcome.error is not None:
            self._state.gateway_error = dict(outcome.error)
        elif outcome.end is not End.LOST:
            self._state.gateway_error = InternalError(f"The gateway ended: {outcome.message.rstrip('.')}.").to_dict()
        rows.add_event(tx, now, EventKind.GATEWAY_LOST, GATEWAY, f"The gateway ended: {outcome.message.rstrip('.')}.")
