"""How many replicas a deployment has, by what is asked of it: more at once, fewer after a while, none when idle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from llm_os.errors import ConflictError
from llm_os.kernel.deployments import Deployments
from llm_os.kernel.replicas import count
from llm_os.kernel.state import State
from llm_os.spec.api import ScaleDeployment
from llm_os.spec.deployments import Deployment, DeploymentState, Scaling
from llm_os.spec.events import EventKind
from llm_os.spec.routing import DeploymentUsage
from llm_os.store import rows

SOON = 0.25
"""Seconds until what is asked is looked at again: a request may wait for it."""


@dataclass(slots=True)
class Calm:
    """How long fewer replicas have been enough, and the most that were needed in this time. Lost with a restart."""

    since: float
    peak: int


def needed(scaling: Scaling, now: float, usage: DeploymentUsage | None, ready_at: float) -> int:
    """Replicas for what is under way and waits. Pure.

    Args:
        now: seconds since the epoch. ready_at: since when it could be asked.
    """
    busy = usage.in_flight if usage is not None else 0
    last = max(ready_at, usage.last_request_at if usage is not None else 0.0)
    found = math.ceil(busy / scaling.in_flight)
    if found == 0 and now - last < scaling.idle_after:
        found = 1
    return min(scaling.most, max(scaling.least, found))


class Scales:
    def __init__(self, state: State, deployments: Deployments) -> None:
        self._state = state
        self._deployments = deployments
        self._calm: dict[str, Calm] = {}
        self.wake_at: float | None = None
        """When what is asked is to be looked at again; None: nothing scales."""

    def scale(self, name: str, request: ScaleDeployment) -> Deployment:
        """Give it a fixed number of replicas, or let it follow what is asked. Raises ConflictError: it ends."""
        with self._state.database.transaction() as tx:
            row = self._deployments.get(tx, name)
            deployment = row.deployment
            if deployment.state.ended or deployment.state is DeploymentState.STOPPING:
                raise ConflictError(f"{name} is {deployment.state.value}.", hint="Deploy the model again.")
            if request.scaling is None:
                spec = deployment.spec.model_copy(update={"replicas": request.replicas, "scaling": None})
                number, told = request.replicas, f"{request.replicas}"
            else:
                spec = deployment.spec.model_copy(update={"scaling": request.scaling})
                number = min(request.scaling.most, max(request.scaling.least, count(deployment)))
                told = f"between {request.scaling.least} and {request.scaling.most}"
            # Whoever asks for replicas by hand asks for those of engines that are out, too.
            changed = deployment.model_copy(update={"spec": spec, "wanted": number, "troubles": {}})
            self._write(tx, row, changed, f"{name} shall have {told} replicas.")
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
            number = self._steadied(deployment, scaling, needed(scaling, now, seen, ready_at), now)
            if number != count(deployment):
                busy = seen.in_flight if seen is not None else 0
                message = f"{deployment.spec.name} from {count(deployment)} to {number} replicas: {busy} requests."
                self._write(tx, row, deployment.model_copy(update={"wanted": number}), message)
                changed = True
        return changed

    def _steadied(self, deployment: Deployment, scaling: Scaling, number: int, now: float) -> int:
        """More at once; fewer when fewer were enough for a while."""
        there = count(deployment)
        if number >= there:
            self._calm.pop(deployment.id, None)
            return number
        calm = self._calm.setdefault(deployment.id, Calm(now, number))
        calm.peak = max(calm.peak, number)
        # What `idle_after` allows has waited already.
        if number and now - calm.since < scaling.steady:
            return there
        del self._calm[deployment.id]
        return number if not number else calm.peak

    def _write(self, tx: Connection, row: rows.DeploymentRow, changed: Deployment, message: str) -> None:
        rows.update_deployment(tx, changed, was=row.deployment.state, not_before=row.not_before)
        rows.add_event(tx, self._state.clock.now(), EventKind.DEPLOYMENT_SCALED, changed.spec.name, message)
        self._deployments.settle(tx, changed.id)
