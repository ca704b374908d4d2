"""Typed rows in and out: one function for each thing the kernel reads or writes. Guards, but decides nothing.

Every function takes the connection of the caller's transaction. Updates that are guarded answer whether they took
effect: False means that somebody was quicker and the caller's knowledge is stale. Statements that each turn of the
kernel's loop needs are built once, at the end of the module: building one costs three times as much as running it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Select, Text, bindparam, cast, delete, exists, func, insert, or_, select, update

from llm_os.spec.base import Json
from llm_os.spec.deployments import Deployment, DeploymentState
from llm_os.spec.events import Event, EventKind
from llm_os.spec.jobs import Attempt, AttemptState, Job, JobState
from llm_os.spec.models import ModelVersion
from llm_os.spec.processes import Handle
from llm_os.spec.resources import ResourceSpec
from llm_os.spec.routing import KeyEntry
from llm_os.spec.sessions import Session
from llm_os.store import tables as t


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job and what only the kernel needs of it."""

    job: Job
    number: int
    not_before: float | None
    resources: ResourceSpec
    cache_key: str | None


@dataclass(frozen=True, slots=True)
class AttemptRow:
    attempt: Attempt
    session: str | None
    handle: Handle | None


@dataclass(frozen=True, slots=True)
class DeploymentRow:
    deployment: Deployment
    number: int
    private: bool
    not_before: float | None
    failures: int
    resources: ResourceSpec


def _dump(record: Any) -> Any:
    return record.model_dump(mode="json")


def _next(tx: Connection, column: Any) -> int:
    return int(tx.execute(select(func.coalesce(func.max(column), 0))).scalar_one()) + 1


# -- meta and leases --------------------------------------------------------------------------------------------------


def get_meta(tx: Connection, name: str) -> Any:
    row = tx.execute(_META, {"name": name}).first()
    return None if row is None else row[0]


def set_meta(tx: Connection, name: str, value: Json) -> None:
    tx.execute(delete(t.meta).where(t.meta.c.name == name))
    tx.execute(insert(t.meta).values(name=name, value=value))


def take_lease(tx: Connection, name: str, holder: str) -> int:
    """A token larger than any before: whoever holds a smaller one has lost the lease."""
    row = tx.execute(select(t.leases.c.token).where(t.leases.c.name == name)).first()
    token = 1 if row is None else int(row[0]) + 1
    tx.execute(delete(t.leases).where(t.leases.c.name == name))
    tx.execute(insert(t.leases).values(name=name, token=token, holder=holder))
    return token


def lease_token(tx: Connection, name: str) -> int:
    return int(tx.execute(_LEASE, {"name": name}).scalar_one_or_none() or 0)


# -- sessions ---------------------------------------------------------------------------------------------------------


def put_session(tx: Connection, session: Session) -> None:
    tx.execute(delete(t.sessions).where(t.sessions.c.id == session.id))
    tx.execute(
        insert(t.sessions).values(
            id=session.id, closed=session.closed, expires_at=session.expires_at, record=_dump(session)
        )
    )


def get_session(tx: Connection, session: str) -> Session | None:
    row = tx.execute(_SESSION, {"id": session}).first()
    return None if row is None else Session.model_validate(row[0])


def open_sessions(tx: Connection) -> list[Session]:
    return [Session.model_validate(row[0]) for row in tx.execute(_OPEN_SESSIONS)]


# -- jobs -------------------------------------------------------------------------------------------------------------


def add_job(tx: Connection, job: Job, resources: ResourceSpec, cache_key: str | None) -> None:
    tx.execute(
        insert(t.jobs).values(
            id=job.id,
            number=_next(tx, t.jobs.c.number),
            state=job.state,
            session=job.session,
            not_before=None,
            resources=_dump(resources),
            cache_key=cache_key,
            record=_dump(job),
        )
    )


def update_job(tx: Connection, job: Job, *, was: JobState, not_before: float | None = None) -> bool:
    """Write a job that is still in state `was`."""
    values = {"state": job.state, "session": job.session, "not_before": not_before, "record": _dump(job)}
    done = tx.execute(update(t.jobs).where(t.jobs.c.id == job.id, t.jobs.c.state == was).values(**values))
    return done.rowcount == 1


def _job_row(row: Any) -> JobRow:
    return JobRow(
        Job.model_validate(row.record),
        row.number,
        row.not_before,
        ResourceSpec.model_validate(row.resources),
        row.cache_key,
    )


def get_job(tx: Connection, job: str) -> JobRow | None:
    row = tx.execute(_JOB, {"id": job}).first()
    return None if row is None else _job_row(row)


def jobs_in(tx: Connection, states: Iterable[JobState]) -> list[JobRow]:
    return [_job_row(row) for row in tx.execute(_jobs_in(tuple(states)))]


def any_work(tx: Connection) -> bool:
    """Whether a job or a deployment has not ended."""
    return bool(tx.execute(_ANY_WORK).scalar_one())


def newest_jobs(tx: Connection, state: str | None, limit: int, given: str | None = None) -> list[Job]:
    """Newest first. `given`: only jobs that have this digest as an input."""
    query = select(t.jobs.c.record).order_by(t.jobs.c.number.desc())
    if state is not None:
        query = query.where(t.jobs.c.state == state)
    if given is None:
        return [Job.model_validate(row[0]) for row in tx.execute(query.limit(limit))]
    query = query.where(cast(t.jobs.c.record, Text).contains(given))  # it may stand elsewhere in the record too
    found = (Job.model_validate(row[0]) for row in tx.execute(query))
    return list(islice((job for job in found if given in job.spec.inputs.values()), limit))


def count_by_state(tx: Connection, table: Any) -> dict[str, int]:
    return {row[0]: row[1] for row in tx.execute(select(table.c.state, func.count()).group_by(table.c.state))}


def get_result(tx: Connection, key: str) -> dict[str, Any] | None:
    row = tx.execute(select(t.results.c.result).where(t.results.c.key == key)).first()
    return None if row is None else dict(row[0])


def put_result(tx: Connection, key: str, job: str, result: Mapping[str, Json]) -> None:
    tx.execute(delete(t.results).where(t.results.c.key == key))
    tx.execute(insert(t.results).values(key=key, job=job, result=dict(result)))


# -- attempts ---------------------------------------------------------------------------------------------------------


def add_attempt(tx: Connection, attempt: Attempt, session: str | None) -> None:
    tx.execute(
        insert(t.attempts).values(
            id=attempt.id,
            owner_kind=attempt.owner_kind,
            owner=attempt.owner,
            session=session,
            state=attempt.state,
            token=attempt.token,
            handle=None,
            record=_dump(attempt),
        )
    )


def update_attempt(tx: Connection, attempt: Attempt, *, was: AttemptState, handle: Handle | None = None) -> bool:
    """Write an attempt that is still in state `was` and has the same fencing token."""
    values: dict[str, Any] = {"state": attempt.state, "record": _dump(attempt)}
    if handle is not None:
        values["handle"] = _dump(handle)
    a = t.attempts
    guard = (a.c.id == attempt.id, a.c.state == was, a.c.token == attempt.token)
    return tx.execute(update(a).where(*guard).values(**values)).rowcount == 1


def _attempt_row(row: Any) -> AttemptRow:
    handle = None if row.handle is None else Handle.model_validate(row.handle)
    return AttemptRow(Attempt.model_validate(row.record), row.session, handle)


def get_attempt(tx: Connection, attempt: str) -> AttemptRow | None:
    row = tx.execute(_ATTEMPT, {"id": attempt}).first()
    return None if row is None else _attempt_row(row)


def live_attempts(tx: Connection) -> list[AttemptRow]:
    return [_attempt_row(row) for row in tx.execute(_LIVE_ATTEMPTS)]


def live_attempts_of(tx: Connection, owner: str) -> list[Attempt]:
    """Those that have not ended, oldest first: of a deployment that sleeps and wakes there are many that have."""
    return [Attempt.model_validate(row[0]) for row in tx.execute(_LIVE_ATTEMPTS_OF, {"owner": owner})]


def attempts_of(tx: Connection, owner: str) -> list[Attempt]:
    return [Attempt.model_validate(row[0]) for row in tx.execute(_ATTEMPTS_OF, {"owner": owner})]


# -- deployments ------------------------------------------------------------------------------------------------------


def add_deployment(tx: Connection, deployment: Deployment, resources: ResourceSpec, *, private: bool) -> None:
    tx.execute(
        insert(t.deployments).values(
            id=deployment.id,
            number=_next(tx, t.deployments.c.number),
            name=deployment.spec.name,
            state=deployment.state,
            session=deployment.session,
            private=private,
            not_before=None,
            failures=0,
            resources=_dump(resources),
            record=_dump(deployment),
        )
    )


def update_deployment(
    tx: Connection,
    deployment: Deployment,
    *,
    was: DeploymentState,
    not_before: float | None = None,
    failures: int | None = None,
) -> bool:
    """Write a deployment that is still in state `was`. `failures` None: as it was."""
    values: dict[str, Any] = {
        "state": deployment.state,
        "session": deployment.session,
        "not_before": not_before,
        "record": _dump(deployment),
    }
    if failures is not None:
        values["failures"] = failures
    d = t.deployments
    done = tx.execute(update(d).where(d.c.id == deployment.id, d.c.state == was).values(**values))
    return done.rowcount == 1


def _deployment_row(row: Any) -> DeploymentRow:
    return DeploymentRow(
        Deployment.model_validate(row.record),
        row.number,
        row.private,
        row.not_before,
        row.failures,
        ResourceSpec.model_validate(row.resources),
    )


def find_deployment(tx: Connection, name: str) -> DeploymentRow | None:
    """By id, or the newest of that name: a live one if there is one."""
    found = [_deployment_row(row) for row in tx.execute(_DEPLOYMENTS_NAMED, {"name": name})]
    live = [row for row in found if not row.deployment.state.ended]
    best = live or found
    return best[-1] if best else None


def all_deployments(tx: Connection, *, include_ended: bool) -> list[DeploymentRow]:
    return [_deployment_row(row) for row in tx.execute(_ALL_DEPLOYMENTS if include_ended else _LIVE_DEPLOYMENTS)]


# -- models and keys --------------------------------------------------------------------------------------------------


def add_model(tx: Connection, version: ModelVersion) -> None:
    tx.execute(
        insert(t.models).values(
            card=version.card, number=version.number, manifest=version.manifest, record=_dump(version)
        )
    )


def next_number(tx: Connection, card: str) -> int:
    query = select(func.coalesce(func.max(t.models.c.number), 0)).where(t.models.c.card == card)
    return int(tx.execute(query).scalar_one()) + 1


def model_by_manifest(tx: Connection, card: str, manifest: str) -> ModelVersion | None:
    m = t.models
    row = tx.execute(select(m.c.record).where(m.c.card == card, m.c.manifest == manifest)).first()
    return None if row is None else ModelVersion.model_validate(row[0])


def list_models(tx: Connection, card: str | None = None) -> list[ModelVersion]:
    query = select(t.models.c.record).order_by(t.models.c.card, t.models.c.number)
    if card is not None:
        query = query.where(t.models.c.card == card)
    return [ModelVersion.model_validate(row[0]) for row in tx.execute(query)]


def get_alias(tx: Connection, card: str, name: str) -> int | None:
    """Number of the version that the card's alias means."""
    return tx.execute(_ALIAS, {"card": card, "name": name}).scalar_one_or_none()


def set_alias(tx: Connection, card: str, name: str, number: int) -> None:
    drop_alias(tx, card, name)
    tx.execute(insert(t.aliases).values(card=card, name=name, number=number))


def drop_alias(tx: Connection, card: str, name: str) -> None:
    tx.execute(delete(t.aliases).where(t.aliases.c.card == card, t.aliases.c.name == name))


def list_aliases(tx: Connection) -> list[tuple[str, str, int]]:
    """Card, alias and number, in this order."""
    found = tx.execute(select(t.aliases).order_by(t.aliases.c.card, t.aliases.c.name))
    return [(row.card, row.name, row.number) for row in found]


def add_key(tx: Connection, key: KeyEntry, owner: str) -> None:
    tx.execute(insert(t.keys).values(id=key.id, owner=owner, record=_dump(key)))


def drop_keys(tx: Connection, owner: str) -> None:
    tx.execute(delete(t.keys).where(t.keys.c.owner == owner))


def drop_key(tx: Connection, key: str) -> None:
    tx.execute(delete(t.keys).where(t.keys.c.id == key))


def list_keys(tx: Connection) -> list[KeyEntry]:
    return [KeyEntry.model_validate(row[0]) for row in tx.execute(_KEYS)]


# -- events -----------------------------------------------------------------------------------------------------------


def add_event(
    tx: Connection, at: float, kind: EventKind, subject: str, message: str, data: Mapping[str, Json] | None = None
) -> None:
    values = {"at": at, "kind": kind, "subject": subject, "message": message, "data": dict(data or {})}
    tx.execute(_ADD_EVENT, values)


def events_since(tx: Connection, since: int, limit: int) -> list[Event]:
    rows = tx.execute(_EVENTS_SINCE, {"since": since, "limit": limit})
    return [Event.model_validate(dict(row._mapping)) for row in rows]


def events_of(tx: Connection, subject: str, limit: int) -> list[Event]:
    e = t.events
    rows = tx.execute(select(e).where(e.c.subject == subject).order_by(e.c.seq.desc()).limit(limit)).all()
    return [Event.model_validate(dict(row._mapping)) for row in reversed(rows)]


def events_of_kinds(tx: Connection, kinds: Iterable[EventKind], since: int) -> list[Event]:
    """All events of these kinds behind `since`, oldest first."""
    e = t.events
    asked = select(e).where(e.c.seq > since, e.c.kind.in_([kind.value for kind in kinds])).order_by(e.c.seq)
    return [Event.model_validate(dict(row._mapping)) for row in tx.execute(asked)]


# -- statements of every turn ------------------------------------------------------------------------------------------

_ENDED_DEPLOYMENTS = (DeploymentState.STOPPED, DeploymentState.FAILED)
_META = select(t.meta.c.value).where(t.meta.c.name == bindparam("name"))
_LEASE = select(t.leases.c.token).where(t.leases.c.name == bindparam("name"))
_SESSION = select(t.sessions.c.record).where(t.sessions.c.id == bindparam("id"))
_OPEN_SESSIONS = select(t.sessions.c.record).where(t.sessions.c.closed.is_(False)).order_by(t.sessions.c.id)
_JOB = select(t.jobs).where(t.jobs.c.id == bindparam("id"))
_ATTEMPT = select(t.attempts).where(t.attempts.c.id == bindparam("id"))
_LIVE_ATTEMPTS = select(t.attempts).where(t.attempts.c.state != AttemptState.ENDED).order_by(t.attempts.c.id)
_ATTEMPTS_OF = select(t.attempts.c.record).where(t.attempts.c.owner == bindparam("owner")).order_by(t.attempts.c.token)
_LIVE_ATTEMPTS_OF = _ATTEMPTS_OF.where(t.attempts.c.state != AttemptState.ENDED)
_DEPLOYMENTS_NAMED = (
    select(t.deployments)
    .where((t.deployments.c.name == bindparam("name")) | (t.deployments.c.id == bindparam("name")))
    .order_by(t.deployments.c.number)
)
_ALL_DEPLOYMENTS = select(t.deployments).order_by(t.deployments.c.number)
_LIVE_DEPLOYMENTS = _ALL_DEPLOYMENTS.where(*(t.deployments.c.state != state for state in _ENDED_DEPLOYMENTS))
_ANY_WORK = select(
    exists(select(t.jobs.c.id).where(or_(t.jobs.c.state == JobState.QUEUED, t.jobs.c.state == JobState.RUNNING)))
    | exists(select(t.deployments.c.id).where(*(t.deployments.c.state != state for state in _ENDED_DEPLOYMENTS)))
)
_ALIAS = select(t.aliases.c.number).where(t.aliases.c.card == bindparam("card"), t.aliases.c.name == bindparam("name"))
_KEYS = select(t.keys.c.record).order_by(t.keys.c.id)
_ADD_EVENT = insert(t.events)
_EVENTS_SINCE = (
    select(t.events).where(t.events.c.seq > bindparam("since")).order_by(t.events.c.seq).limit(bindparam("limit"))
)


@cache
def _jobs_in(states: tuple[JobState, ...]) -> Select[Any]:
    """With a comparison for each state: a list in the statement would be expanded at each execution."""
    return select(t.jobs).where(or_(*(t.jobs.c.state == state for state in states))).order_by(t.jobs.c.number)
