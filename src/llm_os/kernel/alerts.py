"""What the autopilot found, as the kernel keeps it: the newest page in memory, what fires in the database."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError
from sqlalchemy import Connection

from llm_os.kernel.state import State
from llm_os.spec.alerts import Alert, AlertPage, AlertState, Flow, Told, Watched
from llm_os.spec.base import Json
from llm_os.spec.events import EventKind
from llm_os.store import rows

FIRING = "alerts_firing"
"""Name in `meta` of the alerts that fire: a kernel that starts does not tell them anew."""


class Alerts:
    def __init__(self, state: State) -> None:
        self._state = state
        self._page: AlertPage | None = None
        self.flows: Mapping[str, Flow] = {}
        """Where the time of requests went lately, by deployment."""

    def page(self) -> AlertPage:
        if self._page is None:
            with self._state.database.reading() as tx:
                self._page = AlertPage(alerts=_stored(tx))
        return self._page

    def note(self, watched: Watched) -> None:
        """Take a page; its alerts that began or ended become events, in one transaction with what fires now."""
        if watched.told:
            firing = [alert for alert in watched.page.alerts if alert.state is AlertState.FIRING]
            with self._state.database.transaction() as tx:
                for told in watched.told:
                    _add_event(tx, told)
                rows.set_meta(tx, FIRING, [alert.model_dump(mode="json") for alert in firing])
            self._state.pulse.beat()
        self._page, self.flows = watched.page, watched.flows


def _stored(tx: Connection) -> tuple[Alert, ...]:
    try:
        return tuple(Alert.model_validate(alert) for alert in rows.get_meta(tx, FIRING) or [])
    except ValidationError:  # of another version: they fire anew where they still hold
        return ()


def _add_event(tx: Connection, told: Told) -> None:
    alert = told.alert
    kind = EventKind.ALERT_FIRING if alert.state is AlertState.FIRING else EventKind.ALERT_RESOLVED
    data: dict[str, Json] = {
        "rule": alert.rule,
        "labels": {**alert.labels},
        "value": alert.value,
        "severity": told.severity,
    }
    rows.add_event(tx, told.at, kind, alert.labels.get("model") or alert.rule, told.message, data)
