"""Starts attempts as processes of this machine, through the stub; keeps no state that a restart would lose.

All it knows lies in attempt folders and in the process table, so a new object, also in another kernel, sees the same.
What it must not know: jobs, deployments, the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path

from llm_os.drivers.device import Available, Probe, Unavailable
from llm_os.drivers.folders import is_locked, read_exit, read_handle, seal, write_exit
from llm_os.drivers.identity import Process, read_process, same_process
from llm_os.drivers.launcher import Launcher
from llm_os.drivers.members import alive_or_reap, end_all, kill, marked, members, reap, resident_memory, snapshot
from llm_os.drivers.spare import Spare
from llm_os.drivers.stubs import spawn
from llm_os.errors import DiskFullError, UnavailableError
from llm_os.settings import Settings
from llm_os.spec.attempts import AttemptSpec, Exit
from llm_os.spec.processes import Handle, ProcessPhase, ProcessStatus

log = logging.getLogger(__name__)

START_PATIENCE = 60.0
"""Seconds a stub may take to answer; it takes 0.03 on an idle machine."""
STUB_PATIENCE = 5.0
"""Seconds a stub may take to write `exit.json` after its program was ended by force."""

MEMORY_AGE = 0.5
"""Seconds a reading of resident memory may be old: reading the process table takes 4 ms, and inspects are many."""


class LocalLauncher(Launcher):
    """See `Launcher`. Linux only.

    Args:
        settings: names the folder of attempts that `list` looks through.
    """

    name = "local"

    def __init__(self, settings: Settings) -> None:
        self._attempts = settings.attempts.resolve()
        self._ended: set[str] = set()
        """Folders seen with an `exit.json`: it never goes away, so thousands of them are not looked at twice."""
        self._stubs: dict[int, int | None] = {}
        """Stubs this object started and has not buried: process id -> start time."""
        self._table: dict[int, Process] = {}
        self._table_at = -MEMORY_AGE
        self._spares = settings.run.resolve() / "spares"
        self._kept: dict[str, Spare] = {}
        """Spares by role."""
        self._changing = threading.Lock()
        """Held while a spare is taken or replaced."""
        self._heard: dict[str, int] = {}
        """Attempts whose end rings the bell: the descriptor of each one's stub."""

    def probe(self) -> Probe:
        if not sys.platform.startswith("linux"):
            return Unavailable("Local processes are run on Linux only.", hint="Run LLM OS in a Linux container.")
        return Available(version=f"Linux {os.uname().release}", detail="sessions, locks and parent-death signals")

    async def start(self, attempt: str, folder: Path) -> Handle:
        handle = await asyncio.to_thread(self._start, attempt, folder.resolve())
        self._listen(handle)
        return handle

    async def inspect(self, attempt: str, folder: Path) -> ProcessStatus:
        return await asyncio.to_thread(self._inspect, attempt, folder.resolve())

    async def list(self) -> tuple[ProcessStatus, ...]:
        return await asyncio.to_thread(self._list)

    async def recover(self, handle: Handle, folder: Path) -> ProcessStatus:
        self._listen(handle)
        status = await self.inspect(handle.attempt, folder)
        if status.phase is not ProcessPhase.ABSENT:
            return status
        await asyncio.to_thread(end_all, folder.resolve(), handle)
        return _status(handle.attempt, ProcessPhase.LOST, "Its folder holds no trace of it any more.")

    async def stop(self, attempt: str, folder: Path, grace: float, reason: str) -> ProcessStatus:
        folder = folder.resolve()
        loop = asyncio.get_running_loop()
        handle = await _handle_to_stop(folder, reason)
        if handle is not None and (stub := same_process(handle)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stub.pid, signal.SIGTERM)
            await _gone(handle, loop.time() + grace)
        if handle is not None and same_process(handle) is not None:
            # The stub stays, to reap what is killed and to write exit.json.
            who = await asyncio.to_thread(members, folder, handle)
            await asyncio.to_thread(kill, [process for process in who if process.pid != handle.pid])
            await _gone(handle, loop.time() + STUB_PATIENCE)
        await asyncio.to_thread(_finish, folder, handle, reason)
        return await self.inspect(attempt, folder)

    async def prepare(self, like: AttemptSpec | None, role: str = "task") -> None:
        await asyncio.to_thread(self._prepare, like, role)

    async def logs(self, attempt: str, folder: Path, offset: int, limit: int) -> bytes:
        return await asyncio.to_thread(_read, folder / "log", offset, limit)

    def _start(self, attempt: str, folder: Path) -> Handle:
        self._reap()
        if read_handle(folder) is None and read_exit(folder) is None:
            self._run_stub(attempt, folder)
        return read_handle(folder) or Handle(attempt=attempt, launcher=self.name)

    def _run_stub(self, attempt: str, folder: Path) -> None:
        """Start a stub and wait for its answer. Raises UnavailableError, DiskFullError: nothing runs."""
        taken = self._take(folder)
        pid, said = _heard(*(taken or spawn(folder)))
        if taken is not None and not said and read_handle(folder) is None:  # it was just about to end
            os.waitpid(pid, 0)
            pid, said = _heard(*spawn(folder))
        if said in {"running", "already"}:
            process = read_process(pid)
            self._stubs[pid] = process.start_time if process else None
            return
        os.waitpid(pid, 0)
        if not said and read_handle(folder) is not None:  # it was killed after it began: lost, not refused
            return
        reason = said.removeprefix("failed: ") or "its stub ended before it ran anything"
        error = DiskFullError if "No space left on device" in reason else UnavailableError
        hint = None if error is DiskFullError else f"The program and its folder are named in {folder / 'spec.json'}."
        raise error(f"The attempt {attempt} could not be started: {reason}.", hint=hint)

    def _prepare(self, like: AttemptSpec | None, role: str) -> None:
        with self._changing:
            kept = self._kept.get(role)
            if kept is not None and like is not None and kept.still(like):
                return
            if kept is not None:
                del self._kept[role]
                kept.end()
            if like is None:
                return
            try:
                begun = Spare.begin(self._spares, like, [spare.folder for spare in self._kept.values()])
            except (OSError, UnavailableError) as error:
                log.warning("No process is kept ready: %s", error)
                return
            if begun is not None:
                self._kept[role] = begun

    def _take(self, folder: Path) -> tuple[int, int] | None:
        """Let a spare run what lies in `folder`: its stub and the descriptor it answers on; None: none can."""
        with self._changing:
            if not self._kept:
                return None
            spec = AttemptSpec.model_validate_json((folder / "spec.json").read_bytes())
            role = next((role for role, spare in self._kept.items() if spare.fits(spec)), None)
            if role is None:
                return None
            spare = self._kept.pop(role)
        answer = spare.give(folder)
        return None if answer is None else (spare.pid, answer)

    def _listen(self, handle: Handle) -> None:
        """Ring when its stub, which goes last, has ended. Where the system cannot tell, nothing rings."""
        if self.bell is None or handle.pid is None or handle.attempt in self._heard:
            return
        try:
            descriptor = os.pidfd_open(handle.pid)
        except OSError:
            return
        if same_process(handle) is None:  # the number is another's by now
            os.close(descriptor)
            return
        self._heard[handle.attempt] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._ring, handle.attempt)

    def _ring(self, attempt: str) -> None:
        descriptor = self._heard.pop(attempt)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        if self.bell is not None:
            self.bell(attempt)

    def _reap(self) -> None:
        for pid, start_time in tuple(self._stubs.items()):
            if reap(pid, start_time):
                self._stubs.pop(pid, None)

    def _inspect(self, attempt: str, folder: Path) -> ProcessStatus:
        handle = read_handle(folder)
        alive = handle is not None and alive_or_reap(handle)
        ended = read_exit(folder)  # after the look at the stub, which writes it just before it ends
        if ended is not None:
            return ProcessStatus(
                attempt=attempt,
                phase=ProcessPhase.EXITED,
                exit_code=ended.code,
                signal=ended.signal,
                message=ended.message,
            )
        if handle is None:
            return _status(attempt, ProcessPhase.STARTING if is_locked(folder) else ProcessPhase.ABSENT)
        if alive:
            if time.monotonic() - self._table_at > MEMORY_AGE:
                self._table, self._table_at = snapshot(), time.monotonic()
            resident = resident_memory(handle, self._table) or None
            return ProcessStatus(attempt=attempt, phase=ProcessPhase.RUNNING, resident_memory=resident)
        # Nobody will write its end any more, and what the stub left behind would hold memory that nobody counts.
        if left := end_all(folder, handle):
            return _status(attempt, ProcessPhase.RUNNING, f"Its stub is gone, and {left} of its processes do not end.")
        return _status(attempt, ProcessPhase.LOST, "It runs no more and left no exit record (killed, or a restart).")

    def _list(self) -> tuple[ProcessStatus, ...]:
        self._reap()
        found: dict[str, ProcessStatus] = {}
        for name in self._unended():
            folder = self._attempts / name
            handle = read_handle(folder)
            if handle is not None and same_process(handle) is not None:
                found[name] = _status(name, ProcessPhase.RUNNING)
            elif handle is None and is_locked(folder):
                found[name] = _status(name, ProcessPhase.STARTING)
        for process, folder in marked():
            if folder.parent != self._attempts or folder.name in found:
                continue
            handle = read_handle(folder)
            if handle is None and read_exit(folder) is None:
                found[folder.name] = _status(folder.name, ProcessPhase.STARTING)
            elif handle is None or process.pid != handle.pid:  # a stub that just wrote its exit.json is no orphan
                found[folder.name] = _status(folder.name, ProcessPhase.LOST, "Its stub is gone, processes of it run.")
        return tuple(found[name] for name in sorted(found))

    def _unended(self) -> tuple[str, ...]:
        try:
            names = set(os.listdir(self._attempts))
        except FileNotFoundError:
            return ()
        self._ended &= names
        self._ended |= {name for name in names - self._ended if (self._attempts / name / "exit.json").exists()}
        return tuple(sorted(names - self._ended))


async def _handle_to_stop(folder: Path, reason: str) -> Handle | None:
    """The stub to end; None once the attempt is sealed. A stub that is just starting is waited for."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_PATIENCE
    while True:
        handle = read_handle(folder)
        if handle is not None or read_exit(folder) is not None:
            return handle
        if await asyncio.to_thread(seal, folder, f"Never started: {reason}"):
            return None
        if loop.time() > deadline:  # a stub that hangs between its lock and its first record
            await asyncio.to_thread(end_all, folder, None)
        await asyncio.sleep(0.01)


async def _gone(handle: Handle, deadline: float) -> None:
    """Wait until the stub has ended, or until the deadline of the loop's clock."""
    loop = asyncio.get_running_loop()
    pause = 0.005
    while alive_or_reap(handle) and loop.time() < deadline:
        await asyncio.sleep(min(pause, max(deadline - loop.time(), 0)))
        pause = min(pause * 1.5, 0.1)


def _finish(folder: Path, handle: Handle | None, reason: str) -> None:
    """Force what is still there, and write the end that a killed stub could not write."""
    stub_was_there = handle is not None and same_process(handle) is not None
    left = end_all(folder, handle)
    if stub_was_there and not left and read_exit(folder) is None:
        message = f"Ended by force: {reason}"
        write_exit(folder, Exit(code=None, signal=int(signal.SIGKILL), at=time.time(), message=message))


def _read(path: Path, offset: int, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)
    except FileNotFoundError:
        return b""


def _status(attempt: str, phase: ProcessPhase, message: str = "") -> ProcessStatus:
    return ProcessStatus(attempt=attempt, phase=phase, message=message)


def _heard(pid: int, answer: int) -> tuple[int, str]:
    """A stub's process id, and what it says on this descriptor; empty: it ended without a word."""
    with open(answer, "rb", buffering=0) as pipe:
        if select.select([pipe], [], [], START_PATIENCE)[0]:
            return pid, pipe.read(4096).decode(errors="replace").strip()
        os.kill(pid, signal.SIGKILL)
        return pid, f"failed: no sign of life from its stub for {START_PATIENCE:.0f} s"


PLUGIN = LocalLauncher
