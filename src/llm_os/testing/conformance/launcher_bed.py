"""What the launcher checks need around a launcher: programs to run, ways to kill them, a way to look for survivors."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from llm_os.drivers.identity import same_process
from llm_os.drivers.launcher import Launcher
from llm_os.drivers.members import members
from llm_os.spec.attempts import AttemptSpec
from llm_os.spec.processes import Handle, ProcessPhase, ProcessStatus

PATIENCE = 30.0
"""Seconds until something that must happen counts as not happening."""


@dataclass(frozen=True, slots=True)
class Program:
    """What an attempt does.

    Attributes:
        says: first line of its log, printed when it can be signalled.
        lasts: seconds; None: until it is ended.
        code: its exit code.
        dies_by: the signal it sends itself instead of exiting.
        stop_code: its exit code when it is asked to stop; None: it ignores being asked.
        children: children it leaves behind, every second one in a session of its own.
    """

    says: str = "up"
    lasts: float | None = None
    code: int = 0
    dies_by: int | None = None
    stop_code: int | None = 12
    children: int = 0


class Bed(ABC):
    """A launcher under test and what the checks need around it."""

    launcher: Launcher

    @abstractmethod
    def again(self) -> Launcher:
        """A new launcher object over the same attempts, as after a restart of the kernel."""

    @abstractmethod
    def attempt(self, name: str, program: Program | None) -> Path:
        """Lay out an attempt folder. None: a program that cannot be executed."""

    @abstractmethod
    async def kill_stub(self, handle: Handle, folder: Path) -> None:
        """End by force what supervises the attempt."""

    @abstractmethod
    async def kill_worker(self, handle: Handle, folder: Path) -> None:
        """End by force the program, not what supervises it."""

    @abstractmethod
    def survivors(self, folder: Path) -> int:
        """Processes of the attempt that are alive, its supervisor included."""

    async def pass_time(self, seconds: float) -> None:
        """Let time go by."""
        await asyncio.sleep(seconds)

    async def until(self, happened: Callable[[], Awaitable[bool]], what: str) -> None:
        """Raises AssertionError when it has not happened after `PATIENCE` seconds of the loop's clock."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not await happened():
            assert asyncio.get_running_loop().time() < deadline, f"it never happened: {what}"
            await self.pass_time(0.01)

    async def nothing_is_left(self, folder: Path) -> None:
        """A supervisor may live for some milliseconds after it wrote the end; its program may not."""

        async def none_left() -> bool:
            return self.survivors(folder) == 0

        await self.until(none_left, f"nothing is left of {folder.name}")

    async def running(self, name: str, program: Program) -> tuple[Path, Handle]:
        """An attempt that was started and has said its first line."""
        folder = self.attempt(name, program)
        handle = await self.launcher.start(name, folder)

        async def said() -> bool:
            return program.says.encode() in await self.launcher.logs(name, folder, 0, 1000)

        await self.until(said, f"{name} says {program.says!r}")
        return folder, handle

    async def ended(self, name: str, folder: Path) -> ProcessStatus:
        """Its status, once it runs no more."""
        status = await self.launcher.inspect(name, folder)

        async def over() -> bool:
            nonlocal status
            status = await self.launcher.inspect(name, folder)
            return status.phase in {ProcessPhase.EXITED, ProcessPhase.LOST}

        await self.until(over, f"{name} ends")
        return status


class ProcessBed(Bed):
    """For launchers that start real processes on this machine.

    Args:
        make: builds a launcher over `attempts`.
        attempts: folder of attempt folders.
    """

    def __init__(self, make: Callable[[], Launcher], attempts: Path) -> None:
        self._make = make
        self._attempts = attempts
        self.launcher = make()

    def again(self) -> Launcher:
        return self._make()

    def attempt(self, name: str, program: Program | None) -> Path:
        folder = self._attempts / name
        folder.mkdir(parents=True)
        script = [sys.executable, "-I", "-S", "-c", _SCRIPT, json.dumps(asdict(program))] if program else ["./no-such"]
        spec = AttemptSpec(
            attempt=name, owner="job-conformance", token=1, argv=tuple(script), env={}, threads=1, cwd=str(folder)
        )
        (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
        return folder

    async def kill_stub(self, handle: Handle, folder: Path) -> None:
        assert handle.pid is not None
        os.kill(handle.pid, signal.SIGKILL)

        async def dead() -> bool:
            return same_process(handle) is None

        await self.until(dead, "the stub is dead")

    async def kill_worker(self, handle: Handle, folder: Path) -> None:
        (worker,) = (p for p in members(folder.resolve(), None) if p.parent == handle.pid)
        os.kill(worker.pid, signal.SIGKILL)

    def survivors(self, folder: Path) -> int:
        return len(members(folder.resolve(), None))

    async def clear(self) -> None:
        """End whatever a failed check left running."""
        for status in await self.launcher.list():
            await self.launcher.stop(status.attempt, self._attempts / status.attempt, 0.0, "end of the test")


_SCRIPT = """
import json, os, signal, sys, time
program = json.loads(sys.argv[1])
code = program["stop_code"]
signal.signal(signal.SIGTERM, signal.SIG_IGN if code is None else lambda *_: os._exit(code))
for number in range(program["children"]):
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if number % 2:
            os.setsid()
        time.sleep(600)
        os._exit(0)
print(program["says"], flush=True)
time.sleep(600 if program["lasts"] is None else program["lasts"])
if program["dies_by"]:
    os.kill(os.getpid(), program["dies_by"])
os._exit(program["code"])
"""
