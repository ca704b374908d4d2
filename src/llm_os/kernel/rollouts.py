"""How a deployment goes from one revision to the next, and back. Level-triggered; never touches a process.

A new version is warm before the old one goes: its first replica starts beside those that serve, gets a small part of
the requests (or copies), and only when it did as well as they do are they replaced, one by one. A replica that goes is
taken out of the routing table first and gets time to end what it has begun.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from llm_os.errors import ConflictError, InvalidInputError, LLMOSError
from llm_os.kernel.attempts import ask_to_stop
from llm_os.kernel.deployments import Deployments
from llm_os.kernel.outcomes import End, Outcome
from llm_os.kernel.replicas import count, surplus
from llm_os.kernel.revisions import MOST_KEPT, fitted, in_force, next_number, planned
from llm_os.kernel.state import State
from llm_os.kernel.submission import find_model, is_alias
from llm_os.kernel.verdicts import complaint
from llm_os.spec.api import UpdateDeployment
from llm_os.spec.base import Json
from llm_os.spec.conditions import Reason
from llm_os.spec.deployments import (
    Deployment,
    DeploymentSpec,
    DeploymentState,
    Phase,
    Revision,
    Rollout,
    UpdatePolicy,
)
from llm_os.spec.events import EventKind
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.routing import GatewayUsage, RevisionUsage
from llm_os.store import rows

MOST_FAILURES = 2
"""Replicas of the new version that may die one after the other."""
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
    def __init__(self, state: State, deployments: Deployments) -> None:
        self._state = state
        self._deployments = deployments
        self.wake_at: float | None = None
        """When something is to be looked at though nothing has moved; None: never."""

    # -- syscalls ------------------------------------------------------------------------------------------------------

    def update(self, name: str, request: UpdateDeployment) -> Deployment:
        """Begin to serve another version, or the same one otherwise.

        Raises:
            NotFoundError: no such deployment, or model.
            ConflictError: it ends or has ended, it is an on-demand one, or an update is under way.
            InvalidInputError: nothing would change.
            Anything that `revisions.planned` raises.
        """
        with self._state.database.transaction() as tx:
            row = self._live(tx, name)
            deployment = row.deployment
            if deployment.rollout is not None and deployment.updating:
                raise ConflictError(
                    f"{name} is being updated to {deployment.rollout.target.version} ({deployment.rollout.phase}).",
                    hint=f"Wait for it, or take it back: llm-os rollback {name}",
                )
            version = find_model(tx, request.model or deployment.spec.model)
            spec = fitted(self._state, _asked(deployment, request), version)
            if version.task != deployment.task:
                raise InvalidInputError(
                    f"{name} serves {deployment.task}, and {version.ref} is {version.task}.",
                    hint="Its callers would get no answer: deploy it under a name of its own.",
                )
            target = planned(self._state, tx, spec, version, deployment.session, next_number(deployment))
            now = in_force(row)
            same = (target.version, target.engine, target.options) == (now.version, now.engine, now.options)
            if same and spec.model == deployment.spec.model:
                raise InvalidInputError(
                    f"{name} serves {target.version} with {target.engine} and these options already.",
                    hint="Name another version, engine or option.",
                )
            self._begin(tx, row, spec, target, request.policy or deployment.spec.update, "asked for")
            found = self._deployments.get(tx, name).deployment
        self._state.pulse.beat()
        return found

    def promote(self, name: str) -> Deployment:
        """Let a version that is being tried take over. Raises ConflictError when none is."""
        with self._state.database.transaction() as tx:
            row = self._live(tx, name)
            rollout = row.deployment.rollout
            if rollout is None or rollout.phase is not Phase.CANARY:
                raise ConflictError(
                    f"No new version of {name} is being tried.",
                    hint=f"Update it first: llm-os update {name} MODEL --until-promoted",
                )
            self._go(tx, row, rollout, Phase.ROLLING, "promoted by hand")
            found = self._deployments.get(tx, name).deployment
        self._state.pulse.beat()
        return found

    def roll_back(self, name: str) -> Deployment:
        """Take an update back that is under way, or go to the version before. Raises ConflictError: there is none."""
        with self._state.database.transaction() as tx:
            row = self._live(tx, name)
            deployment = row.deployment
            if deployment.rollout is not None and deployment.updating:
                self._take_back(tx, row, deployment.rollout, "taken back by hand")
            elif len(deployment.history) < 2:
                raise ConflictError(
                    f"{name} has served nothing but {deployment.version}.", hint="There is no version to go back to."
                )
            else:
                self._return(tx, row, "taken back by hand")
            found = self._deployments.get(tx, name).deployment
        self._state.pulse.beat()
        return found

    def _live(self, tx: Connection, name: str) -> rows.DeploymentRow:
        row = self._deployments.get(tx, name)
        state = row.deployment.state
        if state.ended or state is DeploymentState.STOPPING:
            raise ConflictError(f"{name} is {state.value}.", hint="Deploy the model again.")
        if row.private:
            raise ConflictError(f"{name} belongs to a handle and ends by itself.", hint="Deploy the model by a name.")
        return row

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
        deployment, spec = row.deployment, row.deployment.spec
        if not is_alias(spec.model) or deployment.updating:
            return False
        card, _, name = spec.model.partition("@")
        number = rows.get_alias(tx, card, name)
        version = f"{card}@{number}"
        if number is None or version in {deployment.version, deployment.refused}:
            return False
        try:
            found = find_model(tx, version)
            spec = fitted(self._state, spec, found)
            target = planned(self._state, tx, spec, found, deployment.session, next_number(deployment))
        except LLMOSError as error:
            self._refuse(tx, row, version, f"{spec.model} moved to {version}, which cannot be served: {error.message}")
            return True
        self._begin(tx, row, spec, target, spec.update, f"{spec.model} moved")
        return True

    def _advance(self, tx: Connection, row: rows.DeploymentRow, rollout: Rollout, usage: GatewayUsage | None) -> bool:
        deployment, now = row.deployment, self._state.clock.now()
        live = [a for a in rows.attempts_of(tx, deployment.id) if a.state is not AttemptState.ENDED]
        ready = sum(a.revision == rollout.target.number and a.state is AttemptState.READY for a in live)
        bad = self._complaint(deployment, rollout, usage)
        if rollout.phase is Phase.DONE:
            return self._return(tx, row, bad) if bad else False
        if bad:
            return self._take_back(tx, row, rollout, bad)
        if count(deployment) == 0:  # it sleeps: there is nothing to replace
            return self._finish(tx, row, rollout)
        if rollout.phase is Phase.STARTING:
            if ready:
                return self._tried(tx, row, rollout)
            if now - rollout.started_at > rollout.policy.ready_within:
                refusal = self._state.refusals.get(deployment.id)
                why = f"no replica was ready within {rollout.policy.ready_within:.0f} s"
                return self._take_back(tx, row, rollout, f"{why}: {refusal.message}" if refusal else why)
        elif rollout.phase is Phase.CANARY:
            bake = rollout.policy.bake
            if ready and bake is not None and now - rollout.since >= bake:
                return self._go(tx, row, rollout, Phase.ROLLING, f"it did well for {bake:.0f} s")
        elif ready >= count(deployment) and not any(a.revision == deployment.revision for a in live):
            return self._finish(tx, row, rollout)
        elif not rollout.tight and deployment.id in self._state.refusals and now - rollout.since > TIGHT_AFTER:
            message = "there is no room for one replica more, so each goes before the next one comes"
            return self._go(tx, row, rollout.model_copy(update={"tight": True}), Phase.ROLLING, message)
        return False

    def _tried(self, tx: Connection, row: rows.DeploymentRow, rollout: Rollout) -> bool:
        policy = rollout.policy
        if policy.bake == 0:
            return self._go(tx, row, rollout, Phase.ROLLING, "its first replica is ready")
        what = "copies of requests" if policy.shadow else "requests"
        message = f"it gets {policy.canary:.1%} of the {what}"
        if policy.tenants:
            message += f", and all of {', '.join(policy.tenants)}"
        return self._go(tx, row, rollout, Phase.CANARY, message)

    def _complaint(self, deployment: Deployment, rollout: Rollout, usage: GatewayUsage | None) -> str | None:
        counted = usage.deployments.get(deployment.spec.name) if usage is not None else None
        if counted is None or rollout.phase is Phase.STARTING:
            return None
        done = rollout.phase is Phase.DONE
        before = deployment.history[-2].number if done else deployment.revision
        nothing = RevisionUsage()
        new, old = (counted.revisions.get(number, nothing) for number in (rollout.target.number, before))
        return complaint(new, old, rollout.policy)

    def _trim(self, tx: Connection, deployment: Deployment) -> bool:
        """Ask replicas to end that are too many."""
        served = {replica.revision for replica in deployment.replicas}
        few = len(deployment.replicas) <= count(deployment) and served <= {deployment.revision}
        if few and not deployment.updating:
            return False
        live = [a for a in rows.attempts_of(tx, deployment.id) if a.state is not AttemptState.ENDED]
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

    def _begin(
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

    def _go(self, tx: Connection, row: rows.DeploymentRow, rollout: Rollout, phase: Phase, message: str) -> bool:
        now = self._state.clock.now()
        changed = rollout.model_copy(update={"phase": phase, "message": message, "since": now})
        self._write(tx, row, {"rollout": changed}, changed)
        return True

    def _finish(self, tx: Connection, row: rows.DeploymentRow, rollout: Rollout) -> bool:
        """The new revision is in force."""
        deployment, target, now = row.deployment, rollout.target, self._state.clock.now()
        history = (*(deployment.history or (in_force(row),)), target)[-MOST_KEPT:]
        spec = deployment.spec.model_copy(
            update={"model": rollout.asked, "engine": target.engine, "options": target.options}
        )
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
        }
        self._write(tx, row, changes, done)
        return True

    def _take_back(self, tx: Connection, row: rows.DeploymentRow, rollout: Rollout, because: str) -> bool:
        """The old revision goes on; what there is of the new one ends."""
        now = self._state.clock.now()
        back = rollout.model_copy(update={"phase": Phase.ROLLED_BACK, "since": now, "message": because})
        self._write(tx, row, {"rollout": back, "refused": rollout.target.version}, back)
        return True

    def _return(self, tx: Connection, row: rows.DeploymentRow, because: str) -> bool:
        """Go to the revision before at once: it has been served here."""
        deployment = row.deployment
        before = deployment.history[-2]
        target = before.model_copy(update={"number": next_number(deployment)})
        policy = deployment.spec.update.model_copy(update={"bake": 0.0, "watch": 0.0, "shadow": False})
        now = self._state.clock.now()
        rollout = Rollout(target=target, policy=policy, asked=_followed(deployment, before), started_at=now, since=now)
        rollout = rollout.model_copy(update={"message": f"back from {deployment.version}: {because}"})
        self._write(tx, row, {"rollout": rollout, "refused": deployment.version}, rollout)
        return True

    def _refuse(self, tx: Connection, row: rows.DeploymentRow, version: str, message: str) -> None:
        deployment = row.deployment.model_copy(update={"refused": version})
        rows.update_deployment(tx, deployment, was=deployment.state, not_before=row.not_before)
        now, name = self._state.clock.now(), deployment.spec.name
        rows.add_event(tx, now, EventKind.ROLLOUT_ROLLED_BACK, name, f"{name} stays as it is: {message}.")

    def _write(self, tx: Connection, row: rows.DeploymentRow, changes: dict[str, object], rollout: Rollout) -> None:
        changed = row.deployment.model_copy(update=changes)
        rows.update_deployment(tx, changed, was=row.deployment.state, not_before=row.not_before)
        name, now = changed.spec.name, self._state.clock.now()
        told = f"{name} to {rollout.target.version}, {rollout.phase.value.replace('_', ' ')}: {rollout.message}."
        data: dict[str, Json] = {"version": rollout.target.version, "revision": rollout.target.number}
        rows.add_event(tx, now, _EVENTS[rollout.phase], name, told, data)
        self._deployments.settle(tx, changed.id)

    # -- what the observer tells ---------------------------------------------------------------------------------------

    def attempt_ended(self, tx: Connection, attempt: Attempt, outcome: Outcome, log: list[str]) -> bool:
        """A replica is dead. False: it was of the revision in force, and nobody had asked it to end."""
        row = rows.find_deployment(tx, attempt.owner)
        if row is None or row.deployment.state.ended or row.deployment.state is DeploymentState.STOPPING:
            return False
        if attempt.reason in _PLANNED:
            self._deployments.settle(tx, attempt.owner)
            return True
        rollout = row.deployment.rollout
        if attempt.revision == row.deployment.revision or rollout is None or not row.deployment.updating:
            return attempt.revision != row.deployment.revision
        now, name = self._state.clock.now(), row.deployment.spec.name
        rows.add_event(tx, now, EventKind.REPLICA_LOST, name, f"A replica of the new version ended: {outcome.message}.")
        failures = rollout.failures + 1
        if outcome.end is End.USER_ERROR or failures >= MOST_FAILURES:
            tail = " | ".join(line for line in log if line.strip())
            told = "" if outcome.error is not None or not tail else f"; last lines of its log: {tail}"
            self._take_back(tx, row, rollout, f"its replica ended: {outcome.message}{told}")
            return True
        counted = rollout.model_copy(update={"failures": failures, "not_before": now + 0.5 * 2**failures})
        changed = row.deployment.model_copy(update={"rollout": counted})
        rows.update_deployment(tx, changed, was=row.deployment.state, not_before=row.not_before)
        self._deployments.settle(tx, attempt.owner)
        return True


def _asked(deployment: Deployment, request: UpdateDeployment) -> DeploymentSpec:
    """The spec as it shall be; options are those of their engine."""
    spec = deployment.spec
    if request.model is None and request.engine is None and request.options is None:
        raise InvalidInputError(f"Nothing of {spec.name} is to change.", hint="Name a model, an engine or an option.")
    engine = request.engine or spec.engine
    if request.options is not None:
        options = dict(request.options)
    else:
        options = {} if engine != spec.engine else dict(spec.options)
    return spec.model_copy(update={"model": request.model or spec.model, "engine": engine, "options": options})


def _followed(deployment: Deployment, before: Revision) -> str:
    """What the deployment is said to serve after it went back: the alias, if it follows one."""
    return deployment.spec.model if is_alias(deployment.spec.model) else before.version
