"""The fake launcher keeps the launcher contract, so what the simulator finds with it means something."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from llm_os.drivers.launcher import Launcher
from llm_os.drivers.launchers.fake import FakeHost, FakeLauncher, Script
from llm_os.spec.processes import Handle
from llm_os.testing.clock import virtual_time
from llm_os.testing.conformance.launcher import CHECKS, Bed, Program


class ScriptBed(Bed):
    """Programs become scripts; nothing is on any disk."""

    def __init__(self, starts_after: float) -> None:
        self._starts_after = starts_after
        self._scripts: dict[str, Script] = {}
        self._host = FakeHost(lambda attempt, folder: self._scripts[attempt], now=lambda: 0.0)
        self.launcher = FakeLauncher(self._host)

    def again(self) -> Launcher:
        return FakeLauncher(self._host)

    def attempt(self, name: str, program: Program | None) -> Path:
        if program is None:
            self._scripts[name] = Script(start_fails=True)
        else:
            self._scripts[name] = Script(
                starts_after=self._starts_after,
                says=program.says,
                lasts=program.lasts,
                code=program.code,
                dies_by=program.dies_by,
                stop_code=program.stop_code,
                children=program.children,
            )
        return Path("/nowhere") / name

    async def kill_stub(self, handle: Handle, folder: Path) -> None:
        self._host.kill_stub(handle.attempt)

    async def kill_worker(self, handle: Handle, folder: Path) -> None:
        self._host.kill(handle.attempt)

    def survivors(self, folder: Path) -> int:
        process = self._host.processes.get(folder.name)
        return 0 if process is None or not process.alive else 1


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("starts_after", [0.0, 2.0], ids=["at once", "slow"])
def test_the_fake_launcher(check: Callable[[Bed], Awaitable[None]], starts_after: float) -> None:
    with virtual_time() as loop:
        loop.run_until_complete(_run(check, ScriptBed(starts_after)))


async def _run(check: Callable[[Bed], Awaitable[None]], bed: Bed) -> None:
    await check(bed)
