"""Why something waits, failed, was refused or ended: one sentence with cause, numbers and the next step."""

from __future__ import annotations

from sqlalchemy import Connection

from llm_os.errors import NotFoundError, did_you_mean
from llm_os.kernel.state import State
from llm_os.spec.api import Why
from llm_os.spec.jobs import Job, JobState
from llm_os.spec.units import format_duration
from llm_os.store import rows

MOST_EVENTS = 20


def why(state: State, tx: Connection, subject: str) -> Why:
    """`subject` is a job id, a deployment's name, or `gateway`. Raises NotFoundError."""
    events = tuple(rows.events_of(tx, subject, MOST_EVENTS))
    if subject == "gateway":
        sentence = f"The gateway answers at {state.gateway_url}." if state.gateway_url else "The gateway is starting."
        if state.gateway_error is not None:
            sentence = f"{state.gateway_error.get('message')} {state.gateway_error.get('hint')}"
        return Why(subject=subject, kind="gateway", state="", sentence=sentence, events=events)
    found = rows.get_job(tx, subject)
    if found is not None:
        job = found.job
        return Why(
            subject=subject,
            kind="job",
            state=job.state.value,
            sentence=_job(state, job, events[-1].message if events else ""),
            conditions=job.conditions,
            events=events,
        )
    row = rows.find_deployment(tx, subject)
    if row is None:
        known = [job.id for job in rows.newest_jobs(tx, None, 50)]
        known += [r.deployment.spec.name for r in rows.all_deployments(tx, include_ended=True) if not r.private]
        raise NotFoundError(f"There is no job or deployment '{subject}'.", hint=did_you_mean(subject, known))
    deployment = row.deployment
    refusal = state.refusals.get(deployment.id)
    if deployment.error is not None:
        sentence = f"{deployment.error.get('message')} {deployment.error.get('hint')}".strip()
    elif refusal is not None and not deployment.state.ended:
        sentence = refusal.message
    else:
        sentence = events[-1].message if events else f"{subject} is {deployment.state.value}."
    return Why(
        subject=subject,
        kind="deployment",
        state=deployment.state.value,
        sentence=sentence,
        conditions=deployment.conditions,
        events=events,
    )


def _job(state: State, job: Job, last: str) -> str:
    if job.error is not None:
        return f"{job.error.get('message')} {job.error.get('hint')}".strip()
    if job.state is JobState.QUEUED:
        refusal = state.refusals.get(job.id)
        return refusal.message if refusal else "It waits to be placed; that takes a moment."
    if job.state is JobState.RUNNING:
        since = format_duration(state.clock.now() - (job.started_at or job.created_at))
        placed = next((c.message for c in job.conditions if c.kind == "placed"), "")
        return f"It has been running for {since} (attempt {job.attempts}); it {placed or 'was placed'}."
    return last or f"It {job.state.value}."
