"""How a deployment goes from one revision to the next, and back. Level-triggered; never touches a process.

A new version is warm before the old one goes: its first replica starts beside those that serve, gets a small part of
the requests (or copies), and only when it did as well as they do are they replaced, one by one. A replica that goes is
taken out of the routing table first and gets time to end what it has begun.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from llm_os.errors import InvalidInputError, LLMOSError
from llm_os.kernel.attempts import ask_to_stop
from llm_os.kernel.deployments import MOST_FAILURES as MOST_DEATHS
from llm_os.kernel.deployments import Deployments
from llm_os.kernel.members import engine_phrase, failures, several, with_trouble
from llm_os.kernel.outcomes import End, Outcome
from llm_os.kernel.replicas import in_force, replaced, surplus
from llm_os.kernel.revisions import (
    MOST_KEPT,
    chosen_anew,
    fitted,
    next_number,
    planned,
    settled,
    still_unasked,
    without_foreign_key,
)
from llm_os.kernel.revisions import in_force as revision_in_force
from llm_os.kernel.starts import last_sign
from llm_os.kernel.state import State
from llm_os.kernel.submission import find_model, is_alias
from llm_os.kernel.verdicts import complaint
from llm_os.spec.base import Json
from llm_os.spec.calibration import Member
from llm_os.spec.conditions import Reason
from llm_os.spec.deployments import (
    Deployment,
    DeploymentSpec,
    DeploymentState,
    Phase,
    Revision,
    Rollout,
    Trouble,
    UpdatePolicy,
)
from llm_os.spec.events import EventKind
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.routing import GatewayUsage, RevisionUsage
from llm_os.store import rows

log = logging.getLogger(__name__)

MOST_FAILURES = 2
"""Replicas of the new version that may die one after the other."""
AGAIN = 15.0
"""Seconds until a version is started again that would be given up, were it not about to be replaced."""
SILENT = 60.0
"""Seconds in which a version that is asked must have answered once."""
TIGHT_AFTER = 5.0
"""Seconds that a rolling update waits for room."""
SOON = 0.25
"""Seconds until what a rollout waits for is looked at again."""
_PLANNED = frozenset({Reason.REPLACED, Reason.SCALED_DOWN, Reason.ROLLED_BACK})
"""Why a replica was asked to end while its deployment goes on."""
_EVENTS = {
    Phase.STARTING: EventKind.ROLLOUT_STARTED,
    Phase.CANARY: EventKind.ROLLOUT_CANARY,
    Phase.ROLLING: EventKind.ROLLOUT_ROLLING,
    Phase.DONE: EventKind.ROLLOUT_DONE,
    Phase.ROLLED_BACK: EventKind.ROLLOUT_ROLLED_BACK,
}


class Rollouts:
    """Steps of all rollouts; `kernel.updates` has what people ask for."""

    def __init__(self, state: State, deployments: Deployments) -> None:
        self._state = state
        self._deployments = deployments
        self.wake_at: float | None = None
        """When something is to be looked at though nothing has moved; None: never."""

    # -- every turn ----------------------------------------------------------------------------------------------------

    def tick(self, tx: Connection, live: Sequence[rows.DeploymentRow]) -> bool:
        """Take every deployment a step further. True when anything changed."""
        self.wake_at, changed = None, False
        usage: GatewayUsage | None = None
        for row in live:
            deployment = row.deployment
            if deployment.state is DeploymentState.STOPPING:
                continue
            if self._follow(tx, row):
                changed, row = True, self._deployments.get(tx, deployment.id)
            rollout = row.deployment.rollout
            if rollout is not None and self._watched(row.deployment, rollout):
                usage = usage or self._state.files.read_usage()
                self.wake_at = self._state.clock.now() + SOON
                if self._advance(tx, row, rollout, usage):
                    changed, row = True, self._deployments.get(tx, deployment.id)
            changed = self._trim(tx, row.deployment) or changed
        return changed

    def _watched(self, deployment: Deployment, rollout: Rollout) -> bool:
        """Whether it is under way, or so fresh that it may yet be taken back."""
        if not rollout.phase.ended:
            return True
        now = self._state.clock.now()
        return (
            rollout.phase is Phase.DONE and now - rollout.since < rollout.policy.watch and len(deployment.history) > 1
        )

    def _follow(self, tx: Connection, row: rows.DeploymentRow) -> bool:
        """Begin an update where the alias that the deployment follows has moved."""
        deployment, spec, rollout = row.deployment, row.deployment.spec, row.deployment.rollout
        if not is_alias(spec.model):
            return False
        card, _, name = spec.model.partition("@")
        number = rows.get_alias(tx, card, name)
        version = f"{card}@{number}"
        if rollout is not None and deployment.updating:
            if rollout.returns or rollout.asked != spec.model or number is None or version == rollout.target.version:
                return False
            return self.take_back(tx, row, rollout, f"{spec.model} means {version} now", refuse=False)
        if number is None or version in {deployment.version, deployment.refused}:
            return False
        try:
            found = find_model(tx, version)
            if found.task != deployment.task:
                raise InvalidInputError(f"it is {found.task}, and {deployment.spec.name} serves {deployment.task}.")
            spec = fitted(self._state, chosen_anew(self._state, tx, row, spec, found), found)
            spec = without_foreign_key(spec, find_model(tx, deployment.version), found)
            target = planned(self._state, tx, spec, found, deployment.session, next_number(deployment))
            target = still_unasked(row, target)
        except Exception as error:  # a plugin's, too: the alias is there at the next start, which must not end as well
            log.warning("%s cannot follow %s.", deployment.spec.name, spec.model, exc_info=error)
            why = error.message if isinstance(error, LLMOSError) else f"{type(error).__name__}: {error}"
            self._refuse(tx, row, version, f"{spec.model} moved to {version}, which cannot be served: {why}")
            return True
        self.begin(tx, row, spec, target, spec.update, f"{spec.model} moved")
        return True

    def _advance(self, tx: Connection, row: rows.DeploymentRow, rollout: Rollout, usage: GatewayUsage | None) -> bool:
        deployment, now = row.deployment, self._state.clock.now()
        live = rows.live_attempts_of(tx, deployment.id)
        ready = sum(a.revision == rollout.target.number and a.state is AttemptState.READY for a in live)
        bad = self._complaint(deployment, rollout, usage)
        if rollout.phase is Phase.DONE:
            return self.go_back(tx, row, bad) if bad else False
        if bad:
            return self.take_back(tx, row, rollout, bad)
        if rollout.phase is Phase.STARTING:
            if ready:
                return self._tried(tx, row, rollout)
            if now - self._alive(live, rollout, rollout.started_at) > rollout.policy.ready_within:
                refusal = self._state.refusals.get(deployment.id)
                why = f"no replica was ready within {_seconds(rollout)}"
                return self.take_back(tx, row, rollout, f"{why}: {refusal.message}" if refusal else why)
        elif rollout.phase is Phase.CANARY:
            bake, used = rollout.policy.bake, self._used(deployment, rollout.target.number, usage)
            if ready and bake is not None and now - rollout.since >= bake and not used.silent:
                told = f"{used.first_bytes} of {used.requests} requests" if used.requests else "nobody asked it"
                return self.go(tx, row, rollout, Phase.ROLLING, f"it did well for {bake:.0f} s ({told})")
            if used.silent and now - rollout.since > max(SILENT, 3 * (bake or 0.0)):
                return self.take_back(tx, row, rollout, f"it answered none of {used.asked} requests")
        elif replaced(deployment, live) or self._as_far_as_it_goes(deployment, rollout, live, ready):
            return self._finish(tx, row, rollout)
        elif not rollout.tight and now - rollout.since > TIGHT_AFTER and self._no_room(deployment, live):
            message = "there is no room for one replica more, so each goes before the next one comes"
            return self.go(tx, row, rollout.model_copy(update={"tight": True}), Phase.ROLLING, message)
        alive = self._alive(live, rollout, max(rollout.since, rollout.started_at))
        if not ready and now - alive > rollout.policy.ready_within:
            return self.take_back(tx, row, rollout, f"none of its replicas was ready for {_seconds(rollout)}")
        return False

    def _alive(self, live: Sequence[Attempt], rollout: Rollout, since: float) -> float:
        """When a replica of the new version came a step further in its start; `since` where none told anything."""
        return last_sign(self._state, [a for a in live if a.revision == rollout.target.number], since)

    def _no_room(self, deployment: Deployment, live: Sequence[Attempt]) -> bool:
        """Whether a replica waits for what nothing that ends already will free."""
        refusal = self._state.refusals.get(deployment.id)
        ending = any(attempt.state is AttemptState.STOPPING for attempt in live)
        return refusal is not None and refusal.reason is not Reason.RETRY_BACKOFF and not ending

    def _as_far_as_it_goes(self, deployment: Deployment, rollout: Rollout, live: Sequence[Attempt], ready: int) -> bool:
        """Whether one of its engines serves alone because there is no room beside it."""
        left = any(attempt.revision == deployment.revision for attempt in live)
        if not rollout.target.beside or left or not ready:
            return False
        return self._state.clock.now() - rollout.since > TIGHT_AFTER and self._no_room(deployment, live)

    def _tried(self, tx: Connection, row: rows.DeploymentRow, rollout: Rollout) -> bool:
        policy = rollout.policy
        if policy.bake == 0:
            return self.go(tx, row, rollout, Phase.ROLLING, "its first replica is ready")
        what = "copies of requests" if policy.shadow else "requests"
        message = f"it gets {policy.canary:.1%} of the {what}"
        if policy.tenants:
            message += f", and all of {', '.join(policy.tenants)}"
        return self.go(tx, row, rollout, Phase.CANARY, message)

    def _complaint(self, deployment: Deployment, rollout: Rollout, usage: GatewayUsage | None) -> str | None:
        if rollout.phase is Phase.STARTING:
            return None
        before = deployment.history[-2].number if rollout.phase is Phase.DONE else deployment.revision
        new, old = (self._used(deployment, number, usage) for number in (rollout.target.number, before))
        return complaint(new, old, rollout.policy)

    @staticmethod
    def _used(deployment: Deployment, number: int, usage: GatewayUsage | None) -> RevisionUsage:
        counted = usage.deployments.get(deployment.spec.name) if usage is not None else None
        return (counted.revisions.get(number) if counted is not None else None) or RevisionUsage()

    def _trim(self, tx: Connection, deployment: Deployment) -> bool:
        """Ask replicas to end that are too many."""
        served = {replica.revision for replica in deployment.replicas}
        there = Counter(replica.member for replica in deployment.replicas)
        few = served <= {deployment.revision} and all(
            there[member] <= number for member, number in enumerate(in_force(deployment))
        )
        if few and not deployment.updating:
            return False
        live = rows.live_attempts_of(tx, deployment.id)
        gone = surplus(deployment, live)
        for attempt in gone:
            current = attempt.revision == deployment.revision and not deployment.updating
            rolled = deployment.rollout is not None and deployment.rollout.phase is Phase.ROLLED_BACK
            failed = rolled and attempt.revision != deployment.revision
            reason = Reason.SCALED_DOWN if current else Reason.ROLLED_BACK if failed else Reason.REPLACED
            ask_to_stop(self._state, tx, attempt, reason)
        if gone:
            self._deployments.settle(tx, deployment.id)
        return bool(gone)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def begin(
        self,
        tx: Connection,
        row: rows.DeploymentRow,
        spec: DeploymentSpec,
        target: Revision,
        policy: UpdatePolicy,
        because: str,
    ) -> None:
        now = self._state.clock.now()
        rollout = Rollout(target=target, policy=policy, asked=spec.model, message=because, started_at=now, since=now)
        self._write(tx, row, {"rollout": rollout, "refused": None}, rollout)

    def go(self, tx: Connection, row: rows.DeploymentRow, rollout: Rollout, phase: Phase, message: str) -> bool:
        now = self._state.clock.now()
        changed = rollout.model_copy(update={"phase": phase, "message": message, "since": now, "failures": 0})
        self._write(tx, row, {"rollout": changed}, changed)
        return True

    def _finish(self, tx: Connection, row: rows.DeploymentRow, rollout: Rollout) -> bool:
        """The new revision is in force."""
        deployment, target, now = row.deployment, rollout.target, self._state.clock.now()
        history = deployment.history or (revision_in_force(row),)
        if rollout.returns:  # what was left behind is nothing to go back to
            history = history[:-2]
        history = (*history, target)[-MOST_KEPT:]
        # Of engines that were named, the options say the precision; what is gone back to has its wish with it.
        wish = target.precision or deployment.spec.precision
        changed = {"model": rollout.asked, "precision": wish if target.because else None}
        members = [Member(engine=one.engine, options=one.options) for one in target.members]
        spec = settled(deployment.spec.model_copy(update=changed), members)
        done = rollout.model_copy(
            update={"phase": Phase.DONE, "since": now, "message": f"it replaced {deployment.version}"}
        )
        changes = {
            "spec": spec,
            "version": target.version,
            "engine": target.engine,
            "revision": target.number,
            "history": history,
            "rollout": done,
            "troubles": {},
        }
        self._write(tx, row, changes, done, failures=0)
        return True

    def take_back(
        self, tx: Connection, row: rows.DeploymentRow, rollout: Rollout, because: str, *, refuse: bool = True
    ) -> bool:
        """The old revision goes on; what there is of the new one ends, and is not followed again (`refuse`)."""
        now = self._state.clock.now()
        back = rollout.model_copy(update={"phase": Phase.ROLLED_BACK, "since": now, "message": because})
        self._write(tx, row, {"rollout": back, "refused": rollout.target.version if refuse else None}, back)
        return True

    def go_back(self, tx: Connection, row: rows.DeploymentRow, because: str) -> bool:
        """Go to the revision before at once: it has been served here."""
        deployment = row.deployment
        before = deployment.history[-2]
        target = before.model_copy(update={"number": next_number(deployment)})
        policy = deployment.spec.update.model_copy(update={"bake": 0.0, "watch": 0.0, "shadow": False})
        now = self._state.clock.now()
        rollout = Rollout(
            target=target,
            policy=policy,
            asked=_followed(deployment, before),
            returns=True,
            message=f"back from {deployment.version}: {because}",
            started_at=now,
            since=now,
        )
        self._write(tx, row, {"rollout": rollout, "refused": deployment.version}, rollout)
        return True

    def _refuse(self, tx: Connection, row: rows.DeploymentRow, version: str, message: str) -> None:
        deployment = row.deployment.model_copy(update={"refused": version})
        rows.update_deployment(tx, deployment, was=deployment.state, not_before=row.not_before)
        now, name = self._state.clock.now(), deployment.spec.name
        rows.add_event(tx, now, EventKind.ROLLOUT_ROLLED_BACK, name, f"{name} stays as it is: {message}.")

    def _write(
        self,
        tx: Connection,
        row: rows.DeploymentRow,
        changes: dict[str, object],
        rollout: Rollout,
        failures: int | None = None,
    ) -> None:
        changed = row.deployment.model_copy(update=changes)
        rows.update_deployment(tx, changed, was=row.deployment.state, not_before=row.not_before, failures=failures)
        name, now = changed.spec.name, self._state.clock.now()
        message = rollout.message.rstrip(".")
        told = f"{name} to {rollout.target.version}, {rollout.phase.value.replace('_', ' ')}: {message}."
        data: dict[str, Json] = {"version": rollout.target.version, "revision": rollout.target.number}
        rows.add_event(tx, now, _EVENTS[rollout.phase], name, told, data)
        self._deployments.settle(tx, changed.id)

    # -- what the observer tells ---------------------------------------------------------------------------------------

    def attempt_ended(self, tx: Connection, attempt: Attempt, outcome: Outcome, log: list[str]) -> bool:
        """A replica is dead. False: it was of the revision in force, and nobody had asked it to end."""
        row = rows.find_deployment(tx, attempt.owner)
        if row is None or row.deployment.state.ended or row.deployment.state is DeploymentState.STOPPING:
            return False
        rollout, current = row.deployment.rollout, attempt.revision == row.deployment.revision
        now, name = self._state.clock.now(), row.deployment.spec.name
        if attempt.reason in _PLANNED or (not current and not row.deployment.updating):
            self._deployments.settle(tx, attempt.owner)
            return True
        hopeless = outcome.end is End.USER_ERROR or failures(row, attempt.member) + 1 >= MOST_DEATHS
        if current and rollout is not None and hopeless and self._watched(row.deployment, rollout):
            if rollout.phase is Phase.DONE:
                return self.go_back(tx, row, f"its replica ended: {outcome.message}")
            # The version in force dies while the next one is on its way: that one may be the cure.
            told = outcome.message.rstrip(".")
            rows.add_event(tx, now, EventKind.REPLICA_LOST, name, f"A replica ended: {told}.")
            again = now + AGAIN
            if several(row.deployment):
                trouble = Trouble(failures=1, not_before=again, message=told)
                row = replace(row, deployment=with_trouble(row.deployment, attempt.member, trouble))
            rows.update_deployment(tx, row.deployment, was=row.deployment.state, not_before=again, failures=0)
            self._deployments.settle(tx, attempt.owner)
            return True
        if current or rollout is None:
            return False
        told = f"A replica of the new version ended: {outcome.message.rstrip('.')}."
        rows.add_event(tx, now, EventKind.REPLICA_LOST, name, told)
        deaths = rollout.failures + 1
        if outcome.end is End.USER_ERROR or deaths >= MOST_FAILURES:
            tail = " | ".join(line for line in log if line.strip())
            told = "" if outcome.error is not None or not tail else f"; last lines of its log: {tail}"
            which = engine_phrase(row, attempt)
            self.take_back(tx, row, rollout, f"its replica{which} ended: {outcome.message}{told}")
            return True
        counted = rollout.model_copy(update={"failures": deaths, "not_before": now + 0.5 * 2**deaths})
        changed = row.deployment.model_copy(update={"rollout": counted})
        rows.update_deployment(tx, changed, was=row.deployment.state, not_before=row.not_before)
        self._deployments.settle(tx, attempt.owner)
        return True


def _seconds(rollout: Rollout) -> str:
    return f"{rollout.policy.ready_within:.0f} s"


def _followed(deployment: Deployment, before: Revision) -> str:
    """What the deployment is said to serve after it went back: the alias, if it follows one."""
    return deployment.spec.model if is_alias(deployment.spec.model) else before.version
