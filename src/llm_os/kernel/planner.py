"""Snapshot, schedule, verify each step against the ledger, commit. Level-triggered: runs whenever the state moved."""

from __future__ import annotations

from sqlalchemy import Connection

from llm_os.errors import CapacityError
from llm_os.kernel.attempts import new_attempt
from llm_os.kernel.deployments import Deployments
from llm_os.kernel.jobs import Jobs
from llm_os.kernel.members import engine_phrase, not_before
from llm_os.kernel.replicas import kind_of, wanted
from llm_os.kernel.revisions import revision
from llm_os.kernel.state import State
from llm_os.memory.ledger import Ledger
from llm_os.scheduler.schedule import schedule
from llm_os.scheduler.snapshot import Snapshot, Waiting
from llm_os.spec.conditions import Reason
from llm_os.spec.deployments import DeploymentState
from llm_os.spec.events import EventKind
from llm_os.spec.jobs import JobState
from llm_os.spec.placement import Placement, Refusal, Step
from llm_os.store import rows

NODE = "local"


class Planner:
    def __init__(self, state: State, jobs: Jobs, deployments: Deployments) -> None:
        self._state = state
        self._jobs = jobs
        self._deployments = deployments
        self.wake_at: float | None = None
        """When the earliest back-off ends; None: nothing waits for time to pass."""

    def snapshot(self, tx: Connection) -> Snapshot:
        """The state as the scheduler sees it."""
        waiting = [self._waiting_job(row) for row in rows.jobs_in(tx, [JobState.QUEUED])]
        for row in rows.all_deployments(tx, include_ended=False):
            waiting += self._waiting_replicas(tx, row)
        return Snapshot(
            now=self._state.clock.now(),
            node=NODE,
            granted=self._state.grant(),
            holdings=tuple(self._state.holdings(tx)),
            waiting=tuple(waiting),
            caps=self._state.caps(tx),
        )

    def tick(self, tx: Connection) -> bool:
        """Plan and commit in the caller's transaction. True if anything was placed."""
        snapshot = self.snapshot(tx)
        times = [w.not_before for w in snapshot.waiting if w.not_before is not None and w.not_before > snapshot.now]
        self.wake_at = min(times, default=None)
        if not snapshot.waiting:
            self._state.refusals = {}
            return False
        plan = schedule(snapshot)
        ledger = Ledger(snapshot.granted, snapshot.holdings, snapshot.caps)
        waiting = {w.subject: w for w in snapshot.waiting}
        placed = [step for step in plan.steps if self._commit(tx, step, waiting[step.subject], ledger)]
        self._note(tx, plan.refusals)
        return bool(placed)

    def _waiting_job(self, row: rows.JobRow) -> Waiting:
        threads = row.job.spec.options.get("threads")
        return Waiting(
            subject=row.job.id,
            kind="job",
            session=row.job.session,
            resources=row.resources,
            priority=row.job.spec.priority,
            submitted=row.number,
            not_before=row.not_before,
            wants_threads=threads if isinstance(threads, int) else None,
        )

    def _waiting_replicas(self, tx: Connection, row: rows.DeploymentRow) -> list[Waiting]:
        if row.deployment.state is DeploymentState.STOPPING:
            return []
        deployment = row.deployment
        live = rows.live_attempts_of(tx, deployment.id)
        found = []
        for (number, place), shall in wanted(deployment, live).items():
            new = number != deployment.revision and deployment.rollout is not None
            due = deployment.rollout.not_before if new and deployment.rollout else not_before(row, place)
            found += [
                Waiting(
                    subject=f"{deployment.id}/{number}/{index}/{place}",
                    kind="replica",
                    session=deployment.session,
                    resources=revision(row, number).members[place].resources,
                    submitted=row.number,
                    not_before=due,
                )
                for index in range(sum(kind_of(attempt) == (number, place) for attempt in live), shall)
            ]
        return found

    def _commit(self, tx: Connection, step: Step, waiting: Waiting, ledger: Ledger) -> bool:
        """Verify one step against what is really free, and what is really waiting; drop it if it is stale."""
        try:
            holding = ledger.reserve(step.subject, step.subject, step.kind, waiting.session, waiting.resources)
        except CapacityError:
            return False
        if (holding.cpus, holding.memory) != (step.placement.cpus, step.placement.memory):
            ledger.release(step.subject)
            return False
        placement = step.placement.model_copy(update={"devices": holding.devices})
        if step.kind == "job":
            return self._place_job(tx, step, placement, waiting)
        return self._place_replica(tx, step, placement, waiting)

    def _place_job(self, tx: Connection, step: Step, placement: Placement, waiting: Waiting) -> bool:
        row = rows.get_job(tx, step.subject)
        if row is None or row.job.state is not JobState.QUEUED:
            return False
        attempt = new_attempt(
            self._state, tx, kind="job", owner=step.subject, placement=placement, session=waiting.session
        )
        return self._jobs.started(tx, row, attempt, step.because)

    def _place_replica(self, tx: Connection, step: Step, placement: Placement, waiting: Waiting) -> bool:
        deployment, number, _, place = step.subject.split("/")
        row = rows.find_deployment(tx, deployment)
        if row is None or row.deployment.state.ended or row.deployment.state is DeploymentState.STOPPING:
            return False
        attempt = new_attempt(
            self._state,
            tx,
            kind="replica",
            owner=deployment,
            placement=placement,
            session=waiting.session,
            revision=int(number),
            member=int(place),
        )
        which = engine_phrase(row, attempt)
        message = f"A replica of {row.deployment.spec.name}{which} was placed on {placement.node}: {step.because}."
        rows.add_event(
            tx, attempt.created_at, EventKind.REPLICA_PLACED, row.deployment.spec.name, message, {"attempt": attempt.id}
        )
        self._deployments.settle(tx, deployment)
        return True

    def _note(self, tx: Connection, refusals: tuple[Refusal, ...]) -> None:
        """Keep the newest reason of everything that waits; an event when the kind of reason changed."""
        before = self._state.refusals
        now = self._state.clock.now()
        after: dict[str, Refusal] = {}
        for subject, first in _one_of_each(refusals).items():
            refusal = self._with_alternative(tx, subject, first)
            after[subject] = refusal
            old = before.get(subject)
            if old is None or old.reason is not refusal.reason:
                kind = EventKind.JOB_WAITING if refusal.kind == "job" else EventKind.DEPLOYMENT_WAITING
                rows.add_event(tx, now, kind, _name(tx, subject, refusal.kind), refusal.message, dict(refusal.details))
        self._state.refusals = after

    def _with_alternative(self, tx: Connection, subject: str, refusal: Refusal) -> Refusal:
        """Add what would fit, which only the task knows."""
        row = rows.get_job(tx, subject) if refusal.details.get("resource") == "memory" else None
        if row is None:
            return refusal
        spec = row.job.spec
        task = self._state.plugins.task(spec.task)
        facts = {role: self._state.artifacts.facts(digest) for role, digest in spec.inputs.items()}
        free = int(str(refusal.details["free_memory"]))
        phrase = task.alternatives(task.Options.model_validate(dict(spec.options)), facts, self._state.grant(), free)
        return (
            refusal.model_copy(update={"message": f"{refusal.message.rstrip('.')}; {phrase}."}) if phrase else refusal
        )


def _one_of_each(refusals: tuple[Refusal, ...]) -> dict[str, Refusal]:
    """By job or deployment: of several replicas that wait, the first one that does not only wait for its next try."""
    found: dict[str, Refusal] = {}
    for refusal in refusals:
        subject = refusal.subject.partition("/")[0]
        known = found.get(subject)
        if known is None or (known.reason is Reason.RETRY_BACKOFF and refusal.reason is not Reason.RETRY_BACKOFF):
            found[subject] = refusal
    return found


def _name(tx: Connection, subject: str, kind: str) -> str:
    row = rows.find_deployment(tx, subject) if kind == "replica" else None
    return row.deployment.spec.name if row else subject
