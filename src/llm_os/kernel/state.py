"""What all parts of the kernel share: the ports, the ledger as the database tells it, and the pulse of changes.

Holds nothing that a restart would miss: the fields that live in memory are views of files and devices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from llm_os.drivers.launcher import Launcher
from llm_os.kernel.outcomes import Outcome
from llm_os.kernel.ports import Artifacts, Clock, Files, Machine, Plugins, Random
from llm_os.memory.ledger import Ledger
from llm_os.settings import Settings
from llm_os.spec.attempts import Report
from llm_os.spec.placement import Refusal
from llm_os.spec.resources import Capacity, Caps, Holding
from llm_os.store import rows
from llm_os.store.database import Database

MEMORY_SHARE = 0.9
"""Of the machine's memory, what is granted when the operator says nothing."""


@dataclass(slots=True)
class Watch:
    """What was read from one attempt's folder so far; made anew from the file after a restart."""

    offset: int = 0
    reports: list[Report] = field(default_factory=list)
    resident: int | None = None
    inspected_at: float = 0.0
    carried: tuple[tuple[str, str], ...] | None = None
    """Adapters of its deployment, by name, when a replica was told last; None: not since the kernel started."""
    failed_start: Outcome | None = None
    """Why the launcher could not start it; lost with a restart, when its sealed folder tells as much."""

    def newest(self, kind: str) -> Report | None:
        return next((report for report in reversed(self.reports) if report.kind == kind), None)


def once(reports: Iterable[Report]) -> list[Report]:
    """Reports of one attempt without those that came before (a worker repeats a write that it was unsure of)."""
    first: dict[int, Report] = {}
    for report in reports:
        first.setdefault(report.seq, report)
    return list(first.values())


class Pages:
    """Reports of attempts that somebody follows; each line of a file is read once."""

    MOST = 64
    """Attempts remembered; the others are read from the start again."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._read: dict[str, tuple[list[Report], int]] = {}

    def of(self, attempt: str) -> list[Report]:
        """All reports of `attempt` that are there now."""
        reports, offset = self._read.pop(attempt, ([], 0))
        new, offset = self._files.read_reports(attempt, offset)
        reports.extend(new)
        self._read[attempt] = (reports, offset)  # at the end: the first one was not asked for the longest
        while len(self._read) > self.MOST:
            del self._read[next(iter(self._read))]
        return reports


class Pulse:
    """Counts changes; whoever waits is woken by the next one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = asyncio.Event()
        self.version = 0

    def beat(self) -> None:
        self.version += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return at the next beat, or after `seconds`."""
        event = self._event
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._clock.sleep(seconds))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


class State:
    """The ports and what is derived from them. `session` arguments are session ids."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        artifacts: Artifacts,
        launcher: Launcher,
        machine: Machine,
        plugins: Plugins,
        clock: Clock,
        random: Random,
        files: Files,
    ) -> None:
        self.settings = settings
        self.database = database
        self.artifacts = artifacts
        self.launcher = launcher
        self.machine = machine
        self.plugins = plugins
        self.clock = clock
        self.random = random
        self.files = files
        self.pulse = Pulse(clock)
        self.watches: dict[str, Watch] = {}
        self.refusals: dict[str, Refusal] = {}
        self.gateway_url: str | None = None
        self.gateway_error: dict[str, object] | None = None
        self.stopping = False

    def watch(self, attempt: str) -> Watch:
        return self.watches.setdefault(attempt, Watch())

    def grant(self) -> Capacity:
        """What this node grants: the operator's settings inside what the machine has."""
        there = self.machine.capacity()
        cpus = min(self.settings.cpus or there.cpus, there.cpus)
        memory = min(self.settings.memory or int(MEMORY_SHARE * there.memory), there.memory)
        return Capacity(cpus=cpus, memory=memory, devices=there.devices)

    def holdings(self, tx: Connection) -> list[Holding]:
        """One for each attempt that is not confirmed dead."""
        held = []
        for row in rows.live_attempts(tx):
            attempt, placement = row.attempt, row.attempt.placement
            watch = self.watches.get(attempt.id)
            held.append(
                Holding(
                    attempt=attempt.id,
                    owner=attempt.owner,
                    kind=attempt.owner_kind,
                    session=row.session,
                    cpus=placement.cpus,
                    memory=placement.memory,
                    devices=placement.devices,
                    measured_memory=watch.resident if watch else None,
                )
            )
        return held

    def caps(self, tx: Connection) -> dict[str, Caps]:
        return {session.id: session.caps for session in rows.open_sessions(tx)}

    def ledger(self, tx: Connection) -> Ledger:
        return Ledger(self.grant(), self.holdings(tx), self.caps(tx))
