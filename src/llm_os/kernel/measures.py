"""Adds up the numbers of one moment: machine, disk, ledger, replicas. Reads only."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sqlalchemy import Connection

from llm_os.kernel.replicas import total
from llm_os.kernel.state import State
from llm_os.spec.events import EventKind
from llm_os.spec.jobs import AttemptState
from llm_os.spec.measures import DeploymentMeasures, HostReading, Measures
from llm_os.spec.parity import Parity
from llm_os.store import rows, tables

REMEMBERED = 3600.0
"""Seconds for which the lost replicas of a deployment that has ended are still told: it may have died of them."""


LATELY = 300.0
"""Seconds over which pressure on the processor is looked at."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """What held the processor back lately.

    Attributes:
        throttled: seconds a second, by quota; None: not known.
        heated: times, by heat; None: not known.
    """

    throttled: float | None = None
    heated: int | None = None


class Measuring:
    """Counts what the events tell only once, however often it is asked."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._readings: deque[tuple[float, HostReading]] = deque()
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
                wanted=total(row.deployment),
                ready=sum(attempt.state is AttemptState.READY for attempt in mine),
                memory=sum(watch.resident or 0 for watch in watches if watch is not None),
                version=row.deployment.version,
                engine=row.deployment.engine,
                labels=row.deployment.spec.labels,
                parity=_shares(row.deployment.parity),
            )
        granted, free = state.grant(), state.ledger(tx).free()
        disk, disk_free = state.files.disk()
        host = state.machine.reading()
        self._readings.append((state.clock.now(), host))
        while len(self._readings) > 2 and self._readings[1][0] <= state.clock.now() - LATELY:
            self._readings.popleft()
        return Measures(
            host=host,
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

    def lately(self) -> Pressure:
        """From the oldest reading of the last minutes to the newest; nothing of a single one."""
        if not self._readings:
            return Pressure()
        (began, first), (now, last) = self._readings[0], self._readings[-1]
        if now - began < 1.0:
            return Pressure()
        throttled = _grown(first.throttled_seconds, last.throttled_seconds)
        heated = _grown(first.thermal_throttles, last.thermal_throttles)
        return Pressure(
            throttled=throttled / (now - began) if throttled is not None else None,
            heated=int(heated) if heated is not None else None,
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


def _shares(parity: Parity | None) -> dict[str, float]:
    return {} if parity is None else {"sure": parity.sure.value, "everywhere": parity.everywhere.value}


def _grown(before: float | None, now: float | None) -> float | None:
    return None if before is None or now is None else max(0.0, now - before)
