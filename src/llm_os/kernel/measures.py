"""Adds up the numbers of one moment: machine, disk, ledger, replicas. Reads only."""

from __future__ import annotations

from sqlalchemy import Connection

from llm_os.kernel.state import State
from llm_os.spec.events import EventKind
from llm_os.spec.jobs import AttemptState
from llm_os.spec.measures import DeploymentMeasures, Measures
from llm_os.store import rows, tables

REMEMBERED = 3600.0
"""Seconds for which the lost replicas of a deployment that has ended are still told: it may have died of them."""


class Measuring:
    """Counts what the events tell only once, however often it is asked."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lost: dict[str, tuple[int, float]] = {}
        self._seen = 0

    def take(self, tx: Connection) -> Measures:
        state = self._state
        lost = self._count(tx)
        attempts = rows.live_attempts(tx)
        deployments = {}
        for row in rows.all_deployments(tx, include_ended=False):
            mine = [found.attempt for found in attempts if found.attempt.owner == row.deployment.id]
            watches = [state.watches.get(attempt.id) for attempt in mine]
            deployments[row.deployment.spec.name] = DeploymentMeasures(
                wanted=row.deployment.spec.replicas,
                ready=sum(attempt.state is AttemptState.READY for attempt in mine),
                memory=sum(watch.resident or 0 for watch in watches if watch is not None),
            )
        granted, free = state.grant(), state.ledger(tx).free()
        disk, disk_free = state.files.disk()
        return Measures(
            host=state.machine.reading(),
            disk=disk,
            disk_free=disk_free,
            memory_granted=granted.memory,
            memory_free=free.memory,
            cpus_granted=granted.cpus,
            cpus_free=free.cpus,
            gateway_up=state.gateway_url is not None,
            deployments=deployments,
            lost=lost,
            jobs=rows.count_by_state(tx, tables.jobs),
        )

    def _count(self, tx: Connection) -> dict[str, int]:
        """Replicas that each deployment lost since it was made, as long as somebody may look at its end."""
        for event in rows.events_of_kinds(tx, (EventKind.DEPLOYMENT_CREATED, EventKind.REPLICA_LOST), self._seen):
            self._seen = event.seq
            before, _ = self._lost.get(event.subject, (0, 0.0))
            self._lost[event.subject] = (before + 1 if event.kind is EventKind.REPLICA_LOST else 0, event.at)
        live = {row.deployment.spec.name for row in rows.all_deployments(tx, include_ended=False)}
        now = self._state.clock.now()
        for name in [n for n, (_, at) in self._lost.items() if n not in live and now - at > REMEMBERED]:
            del self._lost[name]
        return {name: lost for name, (lost, _) in self._lost.items()}
