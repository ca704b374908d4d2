"""How many replicas a deployment has, by what is asked of it: more at once, fewer after a while, none when idle."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from llm_os.errors import ConflictError
from llm_os.kernel.deployments import Deployments
from llm_os.kernel.members import several
from llm_os.kernel.need import Pace, followed, need
from llm_os.kernel.replicas import count
from llm_os.kernel.revisions import revision
from llm_os.kernel.state import State
from llm_os.spec.api import ScaleDeployment
from llm_os.spec.deployments import Deployment, DeploymentState
from llm_os.spec.events import EventKind
from llm_os.spec.jobs import AttemptState
from llm_os.store import rows

SOON = 0.25
"""Seconds until what is asked is looked at again: a request may wait for it."""


class Scales:
    def __init__(self, state: State, deployments: Deployments) -> None:
        self._state = state
        self._deployments = deployments
        self._paces: dict[str, Pace] = {}
        self.wake_at: float | None = None
        """When what is asked is to be looked at again; None: nothing scales."""

    def scale(self, name: str, request: ScaleDeployment) -> Deployment:
        """Give it a fixed number of replicas, or let it follow what is asked. Raises ConflictError: it ends."""
        with self._state.database.transaction() as tx:
            row = self._deployments.get(tx, name)
            deployment = row.deployment
            if deployment.state.ended or deployment.state is DeploymentState.STOPPING:
                raise ConflictError(f"{name} is {deployment.state.value}.", hint="Deploy the model again.")
            each = ""
            if request.scaling is None:
                spec = deployment.spec.model_copy(update={"replicas": request.replicas, "scaling": None})
                number, told = request.replicas, f"{request.replicas}"
                each = " of each engine" if several(deployment) else ""
            else:
                spec = deployment.spec.model_copy(update={"scaling": request.scaling})
                number = min(request.scaling.most, max(request.scaling.least, count(deployment)))
                told = f"between {request.scaling.least} and {request.scaling.most}"
            # Whoever asks for replicas by hand asks for those of engines that are out, too.
            changed = deployment.model_copy(update={"spec": spec, "wanted": number, "troubles": {}, "scaled": ""})
            self._write(tx, row, changed, f"{name} shall have {told} replicas{each}.")
            found = self._deployments.get(tx, name).deployment
        self._state.pulse.beat()
        return found

    def tick(self, tx: Connection, live: Sequence[rows.DeploymentRow]) -> bool:
        """Adapt every deployment that scales. True when anything changed."""
        self.wake_at, changed = None, False
        now, usage = self._state.clock.now(), None
        for row in live:
            deployment, scaling = row.deployment, row.deployment.spec.scaling
            if scaling is None or deployment.state is DeploymentState.STOPPING:
                continue
            self.wake_at = now + SOON
            usage = usage or self._state.files.read_usage()
            seen = usage.deployments.get(deployment.spec.name) if usage is not None else None
            # Before its first replica was ready nobody could ask: it is not idle.
            ready_at = now if deployment.ready_at is None else deployment.ready_at
            there = count(deployment)
            found = need(scaling, now, seen, ready_at, there)
            ready = _ready(tx, row)
            number = followed(scaling, there, ready, found, now, self._paces.setdefault(deployment.id, Pace()))
            if number != there:
                told = f"from {there} to {number} replicas: {found.why}"
                update = {"wanted": number, "scaled": told}
                self._write(tx, row, deployment.model_copy(update=update), f"{deployment.spec.name} {told}.")
                changed = True
        for gone in self._paces.keys() - {row.deployment.id for row in live}:
            del self._paces[gone]
        return changed

    def _write(self, tx: Connection, row: rows.DeploymentRow, changed: Deployment, message: str) -> None:
        rows.update_deployment(tx, changed, was=row.deployment.state, not_before=row.not_before)
        rows.add_event(tx, self._state.clock.now(), EventKind.DEPLOYMENT_SCALED, changed.spec.name, message)
        self._deployments.settle(tx, changed.id)


def _ready(tx: Connection, row: rows.DeploymentRow) -> int:
    """Replicas that answer, of those that are counted: of engines side by side it is the last one that scales."""
    live = rows.live_attempts_of(tx, row.deployment.id)
    return sum(
        one.state is AttemptState.READY and one.member == len(revision(row, one.revision).beside) for one in live
    )
