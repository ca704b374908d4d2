"""Why something waits, failed, was refused, is slow or ended: one sentence with cause, numbers and the next step."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from llm_os.errors import NotFoundError, did_you_mean
from llm_os.kernel.attempts import GATEWAY
from llm_os.kernel.diagnosis import diagnose, where_the_time_goes
from llm_os.kernel.evidence import gather
from llm_os.kernel.measures import Measuring
from llm_os.kernel.members import shortfall
from llm_os.kernel.starts import shown
from llm_os.kernel.state import State
from llm_os.spec.alerts import Flow
from llm_os.spec.api import Why
from llm_os.spec.base import Json
from llm_os.spec.conditions import Reason
from llm_os.spec.deployments import Deployment, DeploymentState, Phase
from llm_os.spec.diagnoses import Diagnosis
from llm_os.spec.events import Event
from llm_os.spec.jobs import AttemptState, Job, JobState
from llm_os.spec.placement import Refusal
from llm_os.spec.units import format_duration
from llm_os.store import rows

MOST_EVENTS = 20
VAGUE = frozenset({"job_failed", "internal", "unavailable", "error", "None"})
"""Errors that say that something ended, not why: a diagnosis says more."""


def why(state: State, tx: Connection, subject: str, flows: Mapping[str, Flow], measuring: Measuring) -> Why:
    """`subject` is a job id, a deployment's name, or `gateway`. Raises NotFoundError.

    Args:
        flows: where the time of requests went lately, by deployment.
    """
    if subject == GATEWAY:
        return _gateway(state, tx, measuring)
    found = rows.get_job(tx, subject)
    if found is not None:
        return _job(state, tx, found.job, measuring)
    row = rows.find_deployment(tx, subject)
    if row is None:
        known = [job.id for job in rows.newest_jobs(tx, None, 50)]
        known += [r.deployment.spec.name for r in rows.all_deployments(tx, include_ended=True) if not r.private]
        raise NotFoundError(f"There is no job or deployment '{subject}'.", hint=did_you_mean(subject, known))
    return _deployment(state, tx, row, flows.get(row.deployment.spec.name), measuring)


def _gateway(state: State, tx: Connection, measuring: Measuring) -> Why:
    sentence = f"The gateway answers at {state.gateway_url}." if state.gateway_url else "The gateway is starting."
    error = state.gateway_error
    diagnoses: tuple[Diagnosis, ...] = ()
    if state.gateway_url is None:
        known: Mapping[str, Json] | None = {**error} if error is not None else None  # type: ignore[dict-item]
        diagnoses = diagnose(
            gather(state, tx, measuring, name="The gateway", kind=GATEWAY, owner=GATEWAY, error=known, lives=True)
        )
    if error is not None:
        sentence = f"{error.get('message')} {error.get('hint')}"
    elif diagnoses:
        sentence = f"{diagnoses[0].sentence} {diagnoses[0].next}"
    events = tuple(rows.events_of(tx, GATEWAY, MOST_EVENTS))
    return Why(subject=GATEWAY, kind=GATEWAY, state="", sentence=sentence, diagnoses=diagnoses, events=events)


def _job(state: State, tx: Connection, job: Job, measuring: Measuring) -> Why:
    events = tuple(rows.events_of(tx, job.id, MOST_EVENTS))
    diagnoses: tuple[Diagnosis, ...] = ()
    if job.state is not JobState.SUCCEEDED and job.attempts and not job.cancel_requested:
        diagnoses = diagnose(
            gather(
                state, tx, measuring, name=job.id, kind="job", owner=job.id, error=job.error, lives=not job.state.ended
            )
        )
    if job.error is not None:
        sentence = _with(diagnoses, job.error)
    elif _waits_out(state.refusals.get(job.id), diagnoses):
        sentence = f"{diagnoses[0].sentence} {diagnoses[0].next}"
    else:
        sentence = _of_job(state, job, events)
    return Why(
        subject=job.id,
        kind="job",
        state=job.state.value,
        sentence=sentence,
        diagnoses=diagnoses,
        conditions=job.conditions,
        events=events,
    )


def _of_job(state: State, job: Job, events: tuple[Event, ...]) -> str:
    if job.state is JobState.QUEUED:
        refusal = state.refusals.get(job.id)
        return refusal.message if refusal else "It waits to be placed; that takes a moment."
    if job.state is JobState.RUNNING:
        since = format_duration(state.clock.now() - (job.started_at or job.created_at))
        placed = next((c.message for c in job.conditions if c.kind == "placed"), "")
        return f"It has been running for {since} (attempt {job.attempts}); it {placed or 'was placed'}."
    return events[-1].message if events else f"It {job.state.value}."


def _starts(state: State, deployment: Deployment) -> str:
    """A further sentence: how far a replica that starts is."""
    doing = next((replica.doing for replica in shown(state, deployment).replicas if replica.doing), "")
    return f" A replica starts: it has {doing}." if doing else ""


def _serves(state: State, deployment: Deployment) -> str:
    """That it answers, and how its newest update fares or ended, unless that took over."""
    name, rollout = deployment.spec.name, deployment.rollout
    if rollout is None or rollout.phase is Phase.DONE:
        chosen = f" Its engine was chosen: {deployment.because}." if deployment.because else ""
        return f"{name} answers requests.{chosen}"
    phase = rollout.phase.value.replace("_", " ")
    told = f"is {phase}" if deployment.updating else f"was {phase}"
    update = f"Its update to {rollout.target.version} {told}: {rollout.message}.{_starts(state, deployment)}"
    return f"{name} answers requests with {deployment.version}. {update}"


def _deployment(state: State, tx: Connection, row: rows.DeploymentRow, flow: Flow | None, measuring: Measuring) -> Why:
    deployment, name = row.deployment, row.deployment.spec.name
    events = tuple(rows.events_of(tx, name, MOST_EVENTS))
    refusal, ready = state.refusals.get(deployment.id), deployment.state is DeploymentState.READY
    flow = None if deployment.state.ended else flow
    diagnoses: tuple[Diagnosis, ...] = ()
    if deployment.state is not DeploymentState.STOPPED:
        diagnoses = diagnose(
            gather(
                state,
                tx,
                measuring,
                name=name,
                kind="deployment",
                owner=deployment.id,
                error=deployment.error,
                lives=not deployment.state.ended and deployment.state is not DeploymentState.STOPPING,
                flow=flow,
            )
        )
    if deployment.error is not None:
        sentence = _with(diagnoses, deployment.error)
    elif ready and (missing := _missing(tx, deployment, refusal)):
        sentence = f"{_serves(state, deployment)} Of its engines, {missing}."
    elif refusal is not None and not deployment.state.ended and not _waits_out(refusal, diagnoses):
        sentence = refusal.message
    elif diagnoses:
        sentence = f"{diagnoses[0].sentence} {diagnoses[0].next}"
    elif ready:
        sentence = _serves(state, deployment)
    else:
        sentence = events[-1].message if events else f"{name} is {deployment.state.value}."
        sentence += _starts(state, deployment)
    return Why(
        subject=name,
        kind="deployment",
        state=deployment.state.value,
        sentence=sentence,
        facts=(
            *(where_the_time_goes(flow, state.clock.now()) if flow is not None and ready else ()),
            *((f"It went {deployment.scaled}.",) if deployment.scaled and not deployment.state.ended else ()),
        ),
        diagnoses=diagnoses,
        conditions=deployment.conditions,
        events=events,
    )


def _missing(tx: Connection, deployment: Deployment, refusal: Refusal | None) -> str:
    """Of engines side by side those that do not answer, and why."""
    live: dict[int, AttemptState] = {}
    for attempt in rows.live_attempts_of(tx, deployment.id):
        if attempt.revision == deployment.revision and live.get(attempt.member) is not AttemptState.READY:
            live[attempt.member] = attempt.state
    return shortfall(deployment, live, refusal)


def _waits_out(refusal: Refusal | None, diagnoses: tuple[Diagnosis, ...]) -> bool:
    """Whether it waits for its next try only because of what is known to be wrong with it."""
    return refusal is not None and refusal.reason is Reason.RETRY_BACKOFF and bool(diagnoses)


def _with(diagnoses: tuple[Diagnosis, ...], error: Mapping[str, Json]) -> str:
    """The error in its own words, unless they are vague and the evidence shows more."""
    if diagnoses and str(error.get("code")) in VAGUE:
        return f"{diagnoses[0].sentence} {diagnoses[0].next}"
    return f"{error.get('message')} {error.get('hint')}".strip()
