"""Numbers of one moment, from a real database, and a machine and a clock that a test sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection

from llm_os.kernel.alerts import Alerts
from llm_os.kernel.measures import LATELY, REMEMBERED, Measuring, Pressure
from llm_os.memory.ledger import Ledger
from llm_os.spec.alerts import Alert, AlertPage, AlertState, Told, Watched
from llm_os.spec.deployments import Deployment, DeploymentSpec, DeploymentState
from llm_os.spec.events import EventKind
from llm_os.spec.measures import HostReading
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.store import rows
from llm_os.store.database import Database


class Place:
    """What of a kernel's state the numbers are made of."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite:///{folder / 'state.db'}")
        self.at = 1000.0
        self.throttled: float | None = None
        self.watches: dict[str, Any] = {}
        self.gateway_url = None
        self.clock = SimpleNamespace(now=lambda: self.at)
        self.files = SimpleNamespace(disk=lambda: (100, 7))
        self.machine = SimpleNamespace(reading=self._reading)
        self.pulse = SimpleNamespace(beat=lambda: None)

    def _reading(self) -> HostReading:
        return HostReading(memory=10, memory_available=4, throttled_seconds=self.throttled)

    def grant(self) -> Capacity:
        return Capacity(cpus=2, memory=8)

    def ledger(self, tx: Connection) -> Ledger:
        return Ledger(self.grant())

    def write(self, what: Callable[[Connection], None]) -> None:
        with self.database.transaction() as tx:
            what(tx)

    def happened(self, kind: EventKind, name: str) -> None:
        self.write(lambda tx: rows.add_event(tx, self.at, kind, name, "It happened."))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def lost(place: Place, measuring: Measuring) -> dict[str, int]:
    with place.database.reading() as tx:
        return dict(measuring.take(tx).lost)


def test_lost_replicas_are_counted_from_the_making_of_their_deployment(place: Place) -> None:
    state: Any = place
    measuring = Measuring(state)
    place.happened(EventKind.DEPLOYMENT_CREATED, "chat")
    for _ in range(3):
        place.happened(EventKind.REPLICA_LOST, "chat")
    place.happened(EventKind.REPLICA_LOST, "mood")
    assert lost(place, measuring) == {"chat": 3, "mood": 1}
    place.happened(EventKind.REPLICA_LOST, "chat")
    assert lost(place, measuring) == lost(place, Measuring(state)) == {"chat": 4, "mood": 1}
    place.happened(EventKind.DEPLOYMENT_CREATED, "chat")
    assert lost(place, measuring) == {"chat": 0, "mood": 1}


def test_those_of_a_deployment_that_ended_are_told_for_an_hour_and_of_one_that_lives_always(place: Place) -> None:
    state: Any = place
    measuring = Measuring(state)
    spec = DeploymentSpec(name="chat", model="writer@1", replicas=2, labels={"team": "search"})
    chat = Deployment(
        id="dep-1", spec=spec, version="writer@1", task="t", engine="fake", session=None,
        state=DeploymentState.PENDING, created_at=1.0,
    )  # fmt: skip
    place.write(lambda tx: rows.add_deployment(tx, chat, ResourceSpec(memory=1), private=False))
    place.happened(EventKind.REPLICA_LOST, "chat")
    place.happened(EventKind.REPLICA_LOST, "gone")
    place.at += REMEMBERED
    assert lost(place, measuring) == {"chat": 1, "gone": 1}
    place.at += 1
    assert lost(place, measuring) == {"chat": 1}
    with place.database.reading() as tx:
        found = measuring.take(tx)
    assert (found.deployments["chat"].wanted, found.deployments["chat"].ready) == (2, 0)
    assert (found.deployments["chat"].labels, found.deployments["chat"].version) == ({"team": "search"}, "writer@1")
    assert found.deployments["chat"].parity == {}
    assert (found.disk, found.disk_free, found.memory_free, found.gateway_up) == (100, 7, 8, False)


def test_pressure_is_that_of_the_last_minutes(place: Place) -> None:
    state: Any = place
    measuring = Measuring(state)
    assert measuring.lately() == Pressure()
    for at, throttled in ((0, 0.0), (100, 100.0), (LATELY + 100, 100.0), (LATELY + 200, 130.0)):
        place.at, place.throttled = 1000 + at, throttled
        lost(place, measuring)
    assert measuring.lately() == Pressure(throttled=30 / (LATELY + 100))


def test_what_fires_is_an_event_once_and_known_to_the_next_kernel(place: Place) -> None:
    state: Any = place
    alert = Alert(rule="slow", labels={"model": "chat"}, state=AlertState.FIRING, value=9, since=5, seen=5)
    pending = alert.model_copy(update={"rule": "other", "state": AlertState.PENDING})
    told = Told(alert=alert, severity="critical", message="Too slow.", at=5, began=5)
    page = AlertPage(evaluated_at=5, alerts=(alert, pending))
    alerts = Alerts(state)
    alerts.note(Watched(page=page, told=(told,)))
    alerts.note(Watched(page=page))
    assert alerts.page() == page
    assert Alerts(state).page() == AlertPage(alerts=(alert,))
    over = alert.model_copy(update={"state": AlertState.RESOLVED})
    alerts.note(Watched(page=AlertPage(evaluated_at=9), told=(told.model_copy(update={"alert": over}),)))
    assert Alerts(state).page() == AlertPage()
    with place.database.reading() as tx:
        events = rows.events_since(tx, 0, 10)
    assert [(event.kind, event.subject) for event in events] == [
        (EventKind.ALERT_FIRING, "chat"),
        (EventKind.ALERT_RESOLVED, "chat"),
    ]
    assert events[0].data == {"rule": "slow", "labels": {"model": "chat"}, "severity": "critical", "value": 9}
