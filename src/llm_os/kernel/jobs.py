"""Finite work: accepts it, cancels it, and says what follows when an attempt ended. Never touches a process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from sqlalchemy import Connection

from llm_os.errors import ConflictError, JobCancelledError, NotFoundError, did_you_mean
from llm_os.kernel.attempts import ask_to_stop
from llm_os.kernel.calibrations import completed
from llm_os.kernel.outcomes import Next, Outcome, backoff, final_error, next_step
from llm_os.kernel.registry import model_version
from llm_os.kernel.state import State
from llm_os.kernel.submission import check, check_session
from llm_os.spec.api import SubmitJob
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json, new_id
from llm_os.spec.conditions import Condition, Reason
from llm_os.spec.events import EventKind
from llm_os.spec.jobs import Attempt, Job, JobState
from llm_os.store import rows


class Jobs:
    LIVE: ClassVar[tuple[JobState, ...]] = (JobState.QUEUED, JobState.RUNNING)

    def __init__(self, state: State) -> None:
        self._state = state

    def submit(self, request: SubmitJob) -> Job:
        if self._state.stopping:
            raise ConflictError("The kernel is shutting down.", hint="Start it again with `llm-os up`.")
        now = self._state.clock.now()
        with self._state.database.transaction() as tx:
            check_session(tx, request.session)
            asked = completed(self._state, tx, request.spec, request.session)
            checked = check(self._state, tx, asked, self._state.ledger(tx), request.session)
            job = Job(
                id=new_id("job", self._state.random),
                spec=checked.spec,
                state=JobState.QUEUED,
                session=None if request.background else request.session,
                result={"parent": checked.parent} if checked.parent else {},
                conditions=(checked.chosen,) if checked.chosen else (),
                created_at=now,
            )
            job = job if request.again else self._reuse(tx, job, checked.cache_key)
            rows.add_job(tx, job, checked.resources, checked.cache_key)
            rows.add_event(tx, now, EventKind.JOB_SUBMITTED, job.id, f"{job.spec.task} was submitted.")
            if job.cached:
                rows.add_event(
                    tx,
                    now,
                    EventKind.JOB_SUCCEEDED,
                    job.id,
                    f"{job.spec.task} had been done before; its result is used.",
                )
        self._state.pulse.beat()
        return job

    def _reuse(self, tx: Connection, job: Job, key: str | None) -> Job:
        result = rows.get_result(tx, key) if key else None
        if result is None:
            return job
        digest = str(result["artifact"])
        try:
            facts = self._state.artifacts.facts(digest)
        except NotFoundError:
            return job
        if facts.kind == "model":  # it may be asked for under another name than before
            result["version"] = model_version(tx, job, digest, facts, job.created_at).ref
        return job.model_copy(
            update={
                "state": JobState.SUCCEEDED,
                "cached": True,
                "result": result,
                "started_at": job.created_at,
                "ended_at": job.created_at,
                "conditions": (Condition(kind="ended", status=True, reason=Reason.SUCCEEDED, message="Reused."),),
            }
        )

    def get(self, tx: Connection, job: str) -> rows.JobRow:
        found = rows.get_job(tx, job)
        if found is None:
            known = [other.id for other in rows.newest_jobs(tx, None, 50)]
            raise NotFoundError(f"There is no job '{job}'.", hint=did_you_mean(job, known))
        return found

    def cancel(self, job: str, reason: Reason = Reason.CANCELLED_BY_USER) -> Job:
        with self._state.database.transaction() as tx:
            row = self.get(tx, job)
            answer = self.cancel_row(tx, row, reason)
        self._state.pulse.beat()
        return answer

    def cancel_row(self, tx: Connection, row: rows.JobRow, reason: Reason) -> Job:
        """Idempotent. A queued job ends at once; a running one when its worker is dead."""
        job, now = row.job, self._state.clock.now()
        if job.state.ended or job.cancel_requested:
            return job
        condition = Condition(kind="cancel", status=True, reason=reason, message=f"Asked to end: {reason.value}.")
        asked = job.model_copy(update={"cancel_requested": True, "conditions": (*job.conditions, condition)})
        if job.state is JobState.QUEUED:
            return self._end(tx, asked, JobState.CANCELLED, was=job.state, error=self._cancelled(asked))
        rows.update_job(tx, asked, was=job.state)
        rows.add_event(tx, now, EventKind.JOB_CANCEL_REQUESTED, job.id, f"{job.id} was asked to end: {reason.value}.")
        attempt = rows.get_attempt(tx, job.attempt) if job.attempt else None
        if attempt is not None:
            ask_to_stop(self._state, tx, attempt.attempt, reason)
        return asked

    def end_session(self, tx: Connection, session: str, reason: Reason) -> list[str]:
        mine = [row for row in rows.jobs_in(tx, self.LIVE) if row.job.session == session]
        for row in mine:
            self.cancel_row(tx, row, reason)
        return [f"{row.job.id} ({row.job.spec.task})" for row in mine]

    def started(self, tx: Connection, row: rows.JobRow, attempt: Attempt, because: str) -> bool:
        """Note that an attempt was placed. False: the job is no longer waiting."""
        placed = Condition(kind="placed", status=True, reason=Reason.FITS, message=because)
        conditions = (*[c for c in row.job.conditions if c.kind != "placed"], placed)
        job = row.job.model_copy(
            update={
                "state": JobState.RUNNING,
                "attempt": attempt.id,
                "attempts": attempt.number,
                "conditions": conditions,
                "started_at": row.job.started_at or self._state.clock.now(),
            }
        )
        if not rows.update_job(tx, job, was=JobState.QUEUED):
            return False
        message = f"{job.spec.task} was placed on {attempt.placement.node}: {because}."
        rows.add_event(tx, attempt.created_at, EventKind.JOB_PLACED, job.id, message, {"attempt": attempt.id})
        return True

    def attempt_ended(
        self,
        tx: Connection,
        attempt: Attempt,
        outcome: Outcome,
        result: Mapping[str, Json],
        ingested: tuple[str, ArtifactFacts] | None,
        log: str,
    ) -> None:
        """What follows for the job; a late word about an earlier attempt changes nothing."""
        row = rows.get_job(tx, attempt.owner)
        if row is None or row.job.attempt != attempt.id or row.job.state is not JobState.RUNNING:
            return
        job = row.job
        step = next_step(job, outcome)
        if step is Next.CANCEL:
            self._end(tx, job, JobState.CANCELLED, was=job.state, error=self._cancelled(job))
        elif step is Next.INGEST:
            self._succeed(tx, row, attempt, result, ingested)
        elif step is Next.RETRY:
            now = self._state.clock.now()
            wait = backoff(job, self._state.random.random())
            queued = job.model_copy(update={"state": JobState.QUEUED, "attempt": None})
            rows.update_job(tx, queued, was=job.state, not_before=now + wait)
            message = f"Attempt {attempt.number}: {outcome.message}; tried again in {wait:.1f} s."
            rows.add_event(tx, now, EventKind.JOB_RETRIED, job.id, message, {"attempt": attempt.id})
        else:
            self._end(tx, job, JobState.FAILED, was=job.state, error=final_error(job, outcome, log))

    def _succeed(
        self,
        tx: Connection,
        row: rows.JobRow,
        attempt: Attempt,
        result: Mapping[str, Json],
        ingested: tuple[str, ArtifactFacts] | None,
    ) -> None:
        job, now = row.job, self._state.clock.now()
        whole: dict[str, Json] = {**job.result, **result}
        if ingested is not None:
            digest, facts = ingested
            whole["artifact"] = digest
            if facts.kind == "model":
                version = model_version(tx, job, digest, facts, now)
                whole["version"] = version.ref
        job = job.model_copy(update={"result": whole})
        self._end(tx, job, JobState.SUCCEEDED, was=JobState.RUNNING, error=None)
        if row.cache_key and "artifact" in whole:
            rows.put_result(tx, row.cache_key, job.id, whole)

    def _end(
        self, tx: Connection, job: Job, state: JobState, *, was: JobState, error: Mapping[str, Json] | None
    ) -> Job:
        kinds = {
            JobState.SUCCEEDED: (EventKind.JOB_SUCCEEDED, "succeeded"),
            JobState.FAILED: (EventKind.JOB_FAILED, f"failed: {(error or {}).get('message', '')}"),
            JobState.CANCELLED: (EventKind.JOB_CANCELLED, "was cancelled"),
        }
        kind, words = kinds[state]
        now = self._state.clock.now()
        watch = self._state.watches.get(job.attempt or "")
        progress = watch.newest("progress") if watch else None
        ended = job.model_copy(
            update={
                "state": state,
                "error": error,
                "ended_at": now,
                "progress": dict(progress.values) if progress else job.progress,
            }
        )
        if rows.update_job(tx, ended, was=was):
            rows.add_event(tx, now, kind, job.id, f"{job.spec.task} {words}.")
        return ended

    @staticmethod
    def _cancelled(job: Job) -> Mapping[str, Json]:
        reasons = [condition.reason.value for condition in job.conditions if condition.kind == "cancel"]
        why = reasons[-1].replace("_", " ") if reasons else "cancelled"
        return JobCancelledError(
            f"{job.id} was cancelled: {why}.", hint="Submit it again; background=True lets it outlive its script."
        ).to_dict()
