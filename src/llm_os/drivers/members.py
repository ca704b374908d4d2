"""Finds and ends every process of an attempt, also when its stub is dead; knows attempt folders and /proc, no jobs."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from llm_os.drivers.identity import Process, boot_id, processes, read_environment, read_process, same_process
from llm_os.spec.processes import Handle

MARK = "LLM_OS_ATTEMPT_FOLDER"
"""The stub puts it into the environment of what it runs, so children that leave the session are found, too."""
ATTEMPT = ".attempt"
"""In the folder of a spare that was given an attempt: a link to it. Environments cannot be changed from within."""
_KILL_PATIENCE = 2.0
"""Seconds after SIGKILL; longer lives only what hangs in the system (a driver, a dead network disk)."""


def folder_of(pid: int) -> Path | None:
    """The attempt folder a process was started for; None when it is no process of an attempt."""
    prefix = MARK.encode() + b"="
    for entry in read_environment(pid).split(b"\0"):
        if entry.startswith(prefix):
            folder = Path(os.fsdecode(entry.removeprefix(prefix)))
            try:
                return Path(os.readlink(folder / ATTEMPT))
            except OSError:
                return folder
    return None


def marked() -> Iterator[tuple[Process, Path]]:
    """Every living process that carries an attempt's mark, with the attempt's folder."""
    for process in processes():
        folder = folder_of(process.pid)
        if folder is not None:
            yield process, folder


def snapshot() -> dict[int, Process]:
    """The process table by process id."""
    return {process.pid: process for process in processes()}


def resident_memory(handle: Handle, table: dict[int, Process]) -> int:
    """Bytes of the stub's session and descendants in `table`, the stub left out; shared pages count in each."""
    return sum(p.resident for p in _grow(_session(handle, table), table) if p.pid != handle.pid)


def members(folder: Path, handle: Handle | None) -> tuple[Process, ...]:
    """Every living process of the attempt but the caller: stub, session, descendants, and whoever carries its mark."""
    table = snapshot()
    ours = _session(handle, table) if handle is not None else set()
    ours |= {pid for pid in table if folder_of(pid) == folder}
    return tuple(p for p in _grow(ours, table) if p.pid != os.getpid())


def _session(handle: Handle, table: dict[int, Process]) -> set[int]:
    """The system gives a number to nobody else while a session of that number has members, so a dead leader is fine."""
    leader = table.get(handle.pid or 0)
    if handle.pid is None or handle.boot_id != boot_id() or (leader and leader.start_time != handle.start_time):
        return set()
    since = handle.start_time or 0
    return {p.pid for p in table.values() if p.session == handle.pid and p.start_time >= since}


def _grow(ours: set[int], table: dict[int, Process]) -> list[Process]:
    while children := {p.pid for p in table.values() if p.parent in ours} - ours:
        ours = ours | children
    return [table[pid] for pid in sorted(ours)]


def kill(who: Iterable[Process]) -> None:
    """SIGKILL to each that is still the process it was."""
    for process in who:
        now = read_process(process.pid)
        if now is not None and now.start_time == process.start_time:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def end_all(folder: Path, handle: Handle | None) -> int:
    """Kill all members, again until none is left. How many are left after two seconds. Blocks; for a thread."""
    deadline = time.monotonic() + _KILL_PATIENCE
    while who := members(folder, handle):
        kill(who)
        if time.monotonic() > deadline:
            return len(who)
        time.sleep(0.005)
    return 0


def alive_or_reap(handle: Handle) -> bool:
    """Whether its stub lives. A dead one that is a child of this process is reaped on the way."""
    if same_process(handle) is not None:
        return True
    if handle.pid is not None:
        reap(handle.pid, handle.start_time)
    return False


def reap(pid: int, start_time: int | None) -> bool:
    """Bury a dead child of this process. True: it is no longer there, or was never ours."""
    process = read_process(pid)
    if process is None or process.start_time != start_time or process.parent != os.getpid():
        return True
    if process.alive:
        return False
    with contextlib.suppress(ChildProcessError):  # another thread was quicker
        os.waitpid(pid, os.WNOHANG)
    return True
