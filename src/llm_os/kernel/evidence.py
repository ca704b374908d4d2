"""Gathers what is known of something that died or is slow, from records, folders and the host; judges nothing."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from llm_os.drivers import host, versions
from llm_os.kernel.diagnosis import Death, Evidence
from llm_os.kernel.measures import Measuring
from llm_os.kernel.state import State
from llm_os.spec.alerts import Flow
from llm_os.spec.base import Json
from llm_os.spec.conditions import Reason
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.store import rows

LOG_LINES = 60
MOST_DEATHS = 6
IN_A_ROW = 900.0
"""Seconds between deaths above which they have nothing to do with each other."""
STEADY = 60.0
"""Seconds that an attempt lives before the deaths before it are history."""
_ASKED = {reason.value for reason in Reason} - {Reason.START_FAILED.value, Reason.WORKER_LOST.value}


def gather(
    state: State,
    tx: Connection,
    measuring: Measuring,
    *,
    name: str,
    kind: str,
    owner: str,
    error: Mapping[str, Json] | None,
    lives: bool,
    flow: Flow | None = None,
) -> Evidence:
    """What is known of `name`.

    Args:
        owner: of its attempts.
        error: that it ended with.
        lives: it has not ended.
    """
    measures = measuring.take(tx)
    pressure = measuring.lately()
    return Evidence(
        name=name,
        kind=kind,
        error=error,
        deaths=_deaths(state, rows.attempts_of(tx, owner), state.clock.now()),
        lives=lives,
        flow=flow,
        now=state.clock.now(),
        disk_free=measures.disk_free,
        memory_available=measures.host.memory_available,
        throttled=pressure.throttled,
        heated=pressure.heated,
        clock=measures.host.frequency,
        misfits=lambda: tuple(str(misfit) for misfit in versions.misfits()),
        extra_of=versions.extra_of,
        listener=host.listener,
    )


def _deaths(state: State, attempts: list[Attempt], now: float) -> tuple[Death, ...]:
    """The newest attempts that ended unasked, one soon after the other; none before one that lives steadily."""
    deaths: list[Death] = []
    for attempt in reversed(attempts):
        if attempt.state is not AttemptState.ENDED:
            if now - (attempt.started_at or now) >= STEADY:
                break
            continue
        if attempt.reason in _ASKED or attempt.exit_code == 0 or len(deaths) == MOST_DEATHS:
            break
        at = attempt.ended_at or attempt.created_at
        if deaths and deaths[-1].at - at > IN_A_ROW:
            break
        deaths.append(_death(state, attempt, at))
    return tuple(reversed(deaths))


def _death(state: State, attempt: Attempt, at: float) -> Death:
    record = state.files.read_exit(attempt.id)
    reports, _ = state.files.read_reports(attempt.id, 0)
    error = next((report.values for report in reversed(reports) if report.kind == "error"), None)
    return Death(
        attempt=attempt.id,
        at=at,
        lived=at - attempt.started_at if attempt.started_at is not None else None,
        code=record.code if record else None,
        signal=record.signal if record else None,
        message=(record.message if record else "") or attempt.reason or "",
        error=error,
        log=tuple(state.files.log_tail(attempt.id, LOG_LINES)),
        held=attempt.placement.memory,
    )
