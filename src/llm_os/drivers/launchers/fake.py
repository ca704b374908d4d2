"""Processes that are none: scripts that live in the time of the event loop, for tests. Its options are its faults.

A `FakeHost` is the machine: what runs on it outlives launchers and kernels. A `FakeLauncher` is one view on it. What a
process does is a `Script`; what it reports and how it ends goes to the host's `started`, `reported` and `ended`, which
a test overrides. It touches no disk and starts nothing.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from llm_os.drivers.device import Available, Probe
from llm_os.drivers.launcher import Launcher
from llm_os.errors import UnavailableError
from llm_os.spec.attempts import Exit
from llm_os.spec.base import Json
from llm_os.spec.processes import Handle, ProcessPhase, ProcessStatus

ReportKind = Literal["progress", "message", "checkpoint", "ready", "result", "error"]


@dataclass(frozen=True, slots=True)
class Script:
    """What one fake process does. Seconds count from its start, times of death too.

    Attributes:
        start_fails: it cannot be executed.
        starts_after: seconds until `start` returns; it counts as starting meanwhile.
        says: first line of its log.
        reports: when it reports what.
        lasts: seconds until it ends by itself; None: until it is ended.
        code: exit code at its own end; None: `dies_by` ends it.
        dies_by: the signal that ends it.
        stop_code: exit code when it is asked to stop; None: it ignores being asked.
        stops_after: seconds from being asked to its end.
        stub_dies_after: seconds until its supervisor is killed: it ends and leaves no exit record.
        children: processes that outlive a killed supervisor until somebody looks.
        resident: resident bytes.
    """

    start_fails: bool = False
    starts_after: float = 0.0
    says: str = "up"
    reports: tuple[tuple[float, ReportKind, Mapping[str, Json]], ...] = ()
    lasts: float | None = None
    code: int | None = 0
    dies_by: int | None = None
    stop_code: int | None = 12
    stops_after: float = 0.0
    stub_dies_after: float | None = None
    children: int = 0
    resident: int = 64 * 2**20


@dataclass(slots=True, eq=False)
class Process:
    """One attempt on the host, from its start on for ever."""

    attempt: str
    folder: Path
    pid: int
    script: Script
    phase: ProcessPhase = ProcessPhase.STARTING
    exit: Exit | None = None
    stub: bool = True
    orphans: int = 0
    log: bytes = b""
    running: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether anything of it runs, its supervisor and orphans included."""
        return self.phase in {ProcessPhase.STARTING, ProcessPhase.RUNNING} or self.orphans > 0


class FakeHost:
    """The machine that fake processes run on.

    Args:
        script: what an attempt does; asked once, when it starts.
        now: wall time in seconds, for exit records.
    """

    def __init__(self, script: Callable[[str, Path], Script], now: Callable[[], float]) -> None:
        self._script = script
        self._now = now
        self.processes: dict[str, Process] = {}

    def started(self, process: Process) -> None:
        """A process begins."""

    def reported(self, process: Process, kind: ReportKind, values: Mapping[str, Json]) -> None:
        """A process appends a report."""

    def ended(self, process: Process) -> None:
        """A process is over; `exit` is None when its supervisor was killed."""

    def alive(self) -> list[Process]:
        return [process for process in self.processes.values() if process.alive]

    def begin(self, attempt: str, folder: Path) -> Process:
        """Start it, or find it where it started already. Raises UnavailableError."""
        if attempt in self.processes:
            return self.processes[attempt]
        script = self._script(attempt, folder)
        if script.start_fails:
            raise UnavailableError(f"The attempt {attempt} could not be started: its script says so.", hint="Again?")
        process = Process(attempt, folder, 1000 + len(self.processes), script)
        self.processes[attempt] = process
        self.started(process)
        self._at(process, script.starts_after, self._run)
        return process

    def ask_to_stop(self, attempt: str) -> None:
        """As a signal, or a word in `control.json`: it may be ignored. Asking twice is asking once."""
        process = self.processes.get(attempt)
        if process is not None and process.alive and process.script.stop_code is not None:
            code = process.script.stop_code
            self._at(process, process.script.stops_after, lambda p: self._end(p, Exit(code=code, at=self._now())))

    def kill(self, attempt: str, by: int = int(signal.SIGKILL), message: str = "") -> None:
        """The program dies; its supervisor notes it, if there still is one."""
        process = self.processes[attempt]
        process.orphans = 0
        self._end(process, Exit(code=None, signal=by, at=self._now(), message=message))

    def kill_stub(self, attempt: str) -> None:
        """The supervisor dies, the program with it; no exit record is left, and children stay behind."""
        process = self.processes[attempt]
        process.stub = False
        if process.exit is None:
            process.orphans = process.script.children
            self._over(process, ProcessPhase.LOST)

    def seal(self, attempt: str, folder: Path, message: str) -> Process:
        """Something that never started never will."""
        process = Process(attempt, folder, 1000 + len(self.processes), Script())
        self.processes[attempt] = process
        self._end(process, Exit(code=None, at=self._now(), started=False, message=message))
        return process

    def _run(self, process: Process) -> None:
        script = process.script
        process.phase = ProcessPhase.RUNNING
        process.log += f"{script.says}\n".encode()
        process.running.set()
        for seconds, kind, values in script.reports:
            self._at(process, seconds, lambda p, k=kind, v=values: self.reported(p, k, v))  # type: ignore[misc]
        if script.stub_dies_after is not None:
            self._at(process, script.stub_dies_after, lambda p: self.kill_stub(p.attempt))
        if script.lasts is not None:
            self._at(process, script.lasts, self._end_by_itself)

    def _end_by_itself(self, process: Process) -> None:
        script = process.script
        code = None if script.dies_by is not None else script.code
        self._end(process, Exit(code=code, signal=script.dies_by, at=self._now()))

    def _end(self, process: Process, record: Exit) -> None:
        if process.phase not in {ProcessPhase.STARTING, ProcessPhase.RUNNING}:
            return
        process.exit = record
        self._over(process, ProcessPhase.EXITED)

    def _over(self, process: Process, phase: ProcessPhase) -> None:
        process.phase = phase
        for timer in process.timers:
            timer.cancel()
        process.timers.clear()
        process.running.set()
        process.over.set()
        self.ended(process)

    def _at(self, process: Process, seconds: float, what: Callable[[Process], None]) -> None:
        if seconds <= 0:
            what(process)
        else:
            process.timers.append(asyncio.get_running_loop().call_later(seconds, what, process))


class FakeLauncher(Launcher):
    """See `Launcher`; made as often as there are kernels."""

    name = "fake"

    def __init__(self, host: FakeHost) -> None:
        self._host = host

    def probe(self) -> Probe:
        return Available(version="1", detail="scripts instead of processes")

    async def start(self, attempt: str, folder: Path) -> Handle:
        process = self._host.begin(attempt, folder)
        await process.running.wait()
        return Handle(attempt=attempt, launcher=self.name, pid=process.pid, start_time=process.pid, boot_id="fake")

    async def inspect(self, attempt: str, folder: Path) -> ProcessStatus:
        process = self._host.processes.get(attempt)
        if process is None:
            return ProcessStatus(attempt=attempt, phase=ProcessPhase.ABSENT)
        process.orphans = 0
        if process.exit is None:
            resident = process.script.resident if process.phase is ProcessPhase.RUNNING else None
            return ProcessStatus(attempt=attempt, phase=process.phase, resident_memory=resident)
        ended = process.exit
        return ProcessStatus(
            attempt=attempt,
            phase=ProcessPhase.EXITED,
            exit_code=ended.code,
            signal=ended.signal,
            message=ended.message,
        )

    async def list(self) -> tuple[ProcessStatus, ...]:
        alive = sorted(self._host.alive(), key=lambda process: process.attempt)
        return tuple(ProcessStatus(attempt=process.attempt, phase=process.phase) for process in alive)

    async def stop(self, attempt: str, folder: Path, grace: float, reason: str) -> ProcessStatus:
        process = self._host.processes.get(attempt)
        if process is None:
            self._host.seal(attempt, folder, f"Never started: {reason}")
        elif process.alive:
            self._host.ask_to_stop(attempt)
            try:
                async with asyncio.timeout(grace):
                    await process.over.wait()
            except TimeoutError:
                self._host.kill(attempt, message=f"Ended by force: {reason}")
        return await self.inspect(attempt, folder)

    async def recover(self, handle: Handle, folder: Path) -> ProcessStatus:
        status = await self.inspect(handle.attempt, folder)
        if status.phase is ProcessPhase.ABSENT:
            return ProcessStatus(attempt=handle.attempt, phase=ProcessPhase.LOST)
        return status

    async def logs(self, attempt: str, folder: Path, offset: int, limit: int) -> bytes:
        process = self._host.processes.get(attempt)
        return b"" if process is None else process.log[offset : offset + limit]
