"""Lasting work: replicas wanted against replicas there. Never touches a process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from llm_os.errors import ConflictError, NotFoundError, UnavailableError, did_you_mean, from_dict
from llm_os.kernel.adapters import resolved
from llm_os.kernel.attempts import ask_to_stop
from llm_os.kernel.calibrations import taken
from llm_os.kernel.keys import mint_key
from llm_os.kernel.members import engine_phrase, hopeless, several, told_with_others, trouble_of, with_trouble
from llm_os.kernel.outcomes import End, Outcome
from llm_os.kernel.replicas import at_first, count
from llm_os.kernel.revisions import chosen_members, member, planned, revision, settled
from llm_os.kernel.state import State
from llm_os.kernel.submission import check_session, find_model
from llm_os.spec.api import CreatedDeployment, CreateDeployment
from llm_os.spec.base import Json, new_id
from llm_os.spec.calibration import Member
from llm_os.spec.conditions import Condition, Reason
from llm_os.spec.deployments import Deployment, DeploymentSpec, DeploymentState, Replica
from llm_os.spec.events import EventKind
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.models import ModelVersion
from llm_os.spec.routing import KeyEntry
from llm_os.store import rows

MOST_FAILURES = 4
"""Replicas that may die one after the other before the deployment is given up."""
STEADY = 60.0
"""Seconds that a replica lives before its death is no longer counted together with the deaths before it."""


class Deployments:
    def __init__(self, state: State) -> None:
        self._state = state
        self._reused_at: dict[str, float] = {}
        """When a private deployment was given out again: it is not idle before its first request after that."""

    def create(self, request: CreateDeployment) -> CreatedDeployment:
        if self._state.stopping:
            raise ConflictError("The kernel is shutting down.", hint="Start it again with `llm-os up`.")
        if self._state.gateway_error is not None:
            raise from_dict(
                {
                    **self._state.gateway_error,
                    "message": f"The gateway does not run: {self._state.gateway_error['message']}",
                }
            )
        key, sha256 = mint_key()
        with self._state.database.transaction() as tx:
            check_session(tx, request.session)
            version = find_model(tx, request.spec.model)
            asked, because = taken(self._state, tx, request.spec, version, request.session, alone=request.private)
            chosen = chosen_members(self._state, asked, version)
            spec = settled(
                resolved(tx, asked),
                [Member(engine=engine.name, options=options.model_dump(mode="json")) for engine, options in chosen],
            )
            found = self._reusable(tx, spec, version, request) if request.private else None
            deployment = found or self._planned(tx, spec, version, request, because)
            if request.only_check:
                return CreatedDeployment(deployment=deployment, key="", url=self._url())
            if found is None:
                self._add(tx, deployment, request)
            entry = KeyEntry(
                id=new_id("key", self._state.random), sha256=sha256, role="user", deployments=(deployment.spec.name,)
            )
            rows.add_key(tx, entry, deployment.id)
        self._state.pulse.beat()
        return CreatedDeployment(deployment=deployment, key=key, url=self._url())

    def _url(self) -> str | None:
        return f"{self._state.gateway_url}/v1" if self._state.gateway_url else None

    def _planned(
        self, tx: Connection, spec: DeploymentSpec, version: ModelVersion, request: CreateDeployment, because: str
    ) -> Deployment:
        existing = rows.find_deployment(tx, spec.name)
        if existing is not None and not existing.deployment.state.ended:
            raise ConflictError(
                f"A deployment '{spec.name}' is there already (it serves {existing.deployment.version}).",
                hint=f"Update it: llm-os update {spec.name} {spec.model}; or end it: llm-os stop {spec.name}",
            )
        first = planned(self._state, tx, spec, version, request.session).model_copy(update={"because": because})
        return Deployment(
            id=new_id("dep", self._state.random),
            spec=spec,
            version=version.ref,
            task=version.task,
            engine=first.engine,
            session=None if request.keep else request.session,
            state=DeploymentState.PENDING,
            history=(first,),
            wanted=at_first(spec),
            created_at=self._state.clock.now(),
        )

    def _add(self, tx: Connection, deployment: Deployment, request: CreateDeployment) -> None:
        rows.add_deployment(tx, deployment, deployment.history[-1].resources, private=request.private)
        name = deployment.spec.name
        engines = " and ".join(member.engine for member in deployment.history[-1].members)
        message = f"{name} shall serve {deployment.version} with {engines}."
        rows.add_event(tx, deployment.created_at, EventKind.DEPLOYMENT_CREATED, name, message)

    def _reusable(
        self, tx: Connection, spec: DeploymentSpec, version: ModelVersion, request: CreateDeployment
    ) -> Deployment | None:
        any_of_them = request.spec.engine is None and not request.spec.options
        for row in rows.all_deployments(tx, include_ended=False):
            same = row.deployment.version == version.ref and row.deployment.session == request.session
            known = row.deployment.spec
            alike = (known.options, row.deployment.engine, known.members) == (spec.options, spec.engine, spec.members)
            alike = alike or any_of_them  # what was chosen for it may have become another since it was started
            alike = alike and known.adapters == spec.adapters
            if row.private and same and alike and row.deployment.state is not DeploymentState.STOPPING:
                self._reused_at[row.deployment.id] = self._state.clock.now()
                return row.deployment
        return None

    def get(self, tx: Connection, name: str) -> rows.DeploymentRow:
        found = rows.find_deployment(tx, name)
        if found is None:
            known = [r.deployment.spec.name for r in rows.all_deployments(tx, include_ended=True) if not r.private]
            raise NotFoundError(f"There is no deployment '{name}'.", hint=did_you_mean(name, known))
        return found

    def stop(self, name: str) -> Deployment:
        with self._state.database.transaction() as tx:
            row = self.get(tx, name)
            self.stop_row(tx, row, Reason.STOPPED_BY_USER)
            answer = self.get(tx, row.deployment.id).deployment
        self._state.pulse.beat()
        return answer

    def stop_row(
        self, tx: Connection, row: rows.DeploymentRow, reason: Reason, error: Mapping[str, Json] | None = None
    ) -> None:
        """Idempotent. It has ended when its last replica is dead; see `settle`."""
        deployment = row.deployment
        if deployment.state.ended or deployment.state is DeploymentState.STOPPING:
            return
        condition = Condition(kind="stop", status=True, reason=reason, message=f"Asked to end: {reason.value}.")
        stopping = deployment.model_copy(
            update={
                "state": DeploymentState.STOPPING,
                "error": error,
                "conditions": (*deployment.conditions, condition),
            }
        )
        rows.update_deployment(tx, stopping, was=deployment.state)
        now = self._state.clock.now()
        message = f"{deployment.spec.name} ends: {reason.value.replace('_', ' ')}."
        rows.add_event(tx, now, EventKind.DEPLOYMENT_STOPPING, deployment.spec.name, message)
        for attempt in rows.attempts_of(tx, deployment.id):
            ask_to_stop(self._state, tx, attempt, reason)
        self.settle(tx, deployment.id)

    def end_session(self, tx: Connection, session: str, reason: Reason) -> list[str]:
        mine = [r for r in rows.all_deployments(tx, include_ended=False) if r.deployment.session == session]
        for row in mine:
            self.stop_row(tx, row, reason)
        return [f"{row.deployment.spec.name} (serving {row.deployment.version})" for row in mine]

    def settle(self, tx: Connection, deployment: str) -> None:
        """Make state and replicas what the attempts say."""
        row = rows.find_deployment(tx, deployment)
        if row is None or row.deployment.state.ended:
            return
        known, now = row.deployment, self._state.clock.now()
        live = rows.live_attempts_of(tx, deployment)
        replicas = tuple(_replica(row, attempt) for attempt in live)
        ready = any(attempt.state is AttemptState.READY for attempt in live)
        state: DeploymentState
        if known.state is DeploymentState.STOPPING:
            state = known.state if live else (DeploymentState.FAILED if known.error else DeploymentState.STOPPED)
        else:
            state = DeploymentState.READY if ready else DeploymentState.STARTING if live else DeploymentState.PENDING
            if not ready and count(known) == 0:
                state = DeploymentState.ASLEEP
        changed = known.model_copy(
            update={
                "state": state,
                "replicas": replicas,
                "ready_at": known.ready_at or (now if ready else None),
                "ended_at": now if state.ended else None,
            }
        )
        if changed == known:
            return
        rows.update_deployment(tx, changed, was=known.state, not_before=row.not_before)
        self._tell(tx, known, changed)

    def _tell(self, tx: Connection, known: Deployment, changed: Deployment) -> None:
        now, name = self._state.clock.now(), known.spec.name
        if changed.state is known.state:
            return
        if changed.state is DeploymentState.READY:
            rows.add_event(tx, now, EventKind.DEPLOYMENT_READY, name, f"{name} answers requests.")
        elif changed.state is DeploymentState.ASLEEP:
            rows.add_event(tx, now, EventKind.DEPLOYMENT_SCALED, name, f"{name} sleeps until the next request.")
        elif changed.state is DeploymentState.STOPPED:
            rows.drop_keys(tx, known.id)
            rows.add_event(tx, now, EventKind.DEPLOYMENT_STOPPED, name, f"{name} has ended.")
        elif changed.state is DeploymentState.FAILED:
            rows.drop_keys(tx, known.id)
            message = f"{name} failed: {(changed.error or {}).get('message', '')}"
            rows.add_event(tx, now, EventKind.DEPLOYMENT_FAILED, name, message)

    def attempt_ended(self, tx: Connection, attempt: Attempt, outcome: Outcome, log: list[str]) -> None:
        """A replica is dead: start another one later, or give the deployment up."""
        row = rows.find_deployment(tx, attempt.owner)
        if row is None or row.deployment.state.ended:
            return
        now, name = self._state.clock.now(), row.deployment.spec.name
        if row.deployment.state is not DeploymentState.STOPPING:
            steady = attempt.endpoint is not None and now - (attempt.started_at or now) >= STEADY
            failures = 1 if steady else row.failures + 1
            told = f"A replica{engine_phrase(row, attempt)} ended: {outcome.message.rstrip('.')}."
            rows.add_event(tx, now, EventKind.REPLICA_LOST, name, told)
            serves = any(a.state is AttemptState.READY for a in rows.live_attempts_of(tx, attempt.owner))
            if several(row.deployment):
                self._one_of_several_ended(tx, row, attempt, outcome, log, steady=steady, serves=serves)
            elif not serves and (outcome.end is End.USER_ERROR or failures >= MOST_FAILURES):
                self.stop_row(tx, row, Reason.WORKER_FAILED, _failure(name, failures, outcome, log))
            else:
                failures = min(failures, MOST_FAILURES - 1)  # others serve: it is tried for ever, but not often
                wait = min(30.0, 0.5 * 2**failures) * (1 + 0.2 * self._state.random.random())
                rows.update_deployment(
                    tx, row.deployment, was=row.deployment.state, not_before=now + wait, failures=failures
                )
        self.settle(tx, attempt.owner)

    def _one_of_several_ended(
        self,
        tx: Connection,
        row: rows.DeploymentRow,
        attempt: Attempt,
        outcome: Outcome,
        log: list[str],
        *,
        steady: bool,
        serves: bool,
    ) -> None:
        """The other engines go on; the deployment is given up when none of them serves, and none may yet."""
        known, now = row.deployment.troubles.get(attempt.member), self._state.clock.now()
        trouble = trouble_of(known, outcome, now, self._state.random.random(), steady=steady)
        changed = with_trouble(row.deployment, attempt.member, trouble)
        rows.update_deployment(tx, changed, was=changed.state, not_before=row.not_before)
        if not serves and hopeless(changed, MOST_FAILURES):
            error = _failure(changed.spec.name, trouble.failures, outcome, log)
            error = told_with_others(changed, attempt.member, error)
            self.stop_row(tx, self.get(tx, changed.id), Reason.WORKER_FAILED, error)

    def end_idle(self, tx: Connection, live: Sequence[rows.DeploymentRow]) -> bool:
        """End deployments without requests for longer than their `idle_after`. True if any."""
        usage, now, ended = self._state.files.read_usage(), self._state.clock.now(), False
        for row in live:
            spec, ready_at = row.deployment.spec, row.deployment.ready_at
            if spec.idle_after is None or ready_at is None or row.deployment.state is not DeploymentState.READY:
                continue
            seen = usage.deployments.get(spec.name) if usage else None
            given_at = self._reused_at.get(row.deployment.id, 0.0)
            last = max(ready_at, given_at, seen.last_request_at if seen else 0.0)
            if (seen is None or seen.in_flight == 0) and now - last > spec.idle_after:
                self.stop_row(tx, row, Reason.IDLE)
                ended = True
        return ended


def _replica(row: rows.DeploymentRow, attempt: Attempt) -> Replica:
    return Replica(
        attempt=attempt.id,
        state=attempt.state.value,
        endpoint=attempt.endpoint,
        engine=member(row, attempt).engine,
        version=revision(row, attempt.revision).version,
        revision=attempt.revision,
        adapters=attempt.adapters,
        adapters_failed=attempt.adapters_failed,
        member=attempt.member,
    )


def _failure(name: str, failures: int, outcome: Outcome, log: list[str]) -> Mapping[str, Json]:
    if outcome.error is not None:
        return outcome.error
    tail = " | ".join(line for line in log if line.strip())
    times = f"{failures} times, one after the other" if failures > 1 else "at its start"
    return UnavailableError(
        f"The replica of {name} died {times}: {outcome.message.rstrip('.')}.",
        hint=f"Last lines of its log: {tail}" if tail else f"See `llm-os logs {name}`.",
    ).to_dict()
