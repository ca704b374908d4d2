"""A gateway that stands by takes over from one that was killed: same port, no count lost or doubled, none left over."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from llm_os.drivers.identity import processes, read_process
from llm_os.testing.home_bed import Home

PROGRAM = b"llm_os.workers.spare\0llm_os.server.gateway.main"


@pytest.fixture
async def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Home]:
    monkeypatch.setenv("LLM_OS_SPARE_FOR", "300")
    made = Home(tmp_path)
    await made.start()
    try:
        yield made
    finally:
        await made.down()


def standing_by(home: Home) -> list[int]:
    """Stubs of this home whose program is a gateway that waits."""
    found = []
    for process in processes():
        try:
            words, place = Path(f"/proc/{process.pid}/cmdline").read_bytes(), os.readlink(f"/proc/{process.pid}/cwd")
        except OSError:
            continue
        if PROGRAM in words and Path(place).is_relative_to(home.settings.run.resolve() / "spares"):
            found.append(process.parent)
    return found


def gateways(home: Home) -> list[tuple[int, int]]:
    """Stub and program of each gateway that runs."""
    found = []
    for folder in home.settings.attempts.iterdir():
        told = folder / "process.json"
        try:
            owner = (folder / "spec.json").read_text()
        except FileNotFoundError:  # it is just being made, or cleaned up
            continue
        if '"owner":"gateway"' in owner and told.exists():
            stub = int(told.read_text().partition('"pid": ')[2].partition(",")[0])
            found += [(stub, process.pid) for process in processes() if process.parent == stub and process.alive]
    return found


async def served(home: Home) -> int:
    """Requests in all accounts."""
    return sum(int(row["requests"]) for row in await home.get("/v1/usage"))


def gone(pid: int) -> bool:
    process = read_process(pid)
    return process is None or not process.alive


async def test_takes_over_and_goes_with_its_kernel(home: Home) -> None:
    await home.load("critic", "ToyForSequenceClassification")
    url, key = await home.deploy("mood", "critic@1")
    asking = {"model": "mood", "input": "a fine day"}

    async def stands_by() -> bool:
        return len(standing_by(home)) == 1

    async def answers() -> bool:
        try:
            return (await home.ask(url, key, "/classify", asking))[0] == 200
        except httpx2.TransportError:
            return False

    for _ in range(5):
        assert await answers()
    await home.until(stands_by)
    (spare,) = standing_by(home)
    ((_, program),) = gateways(home)
    os.kill(program, signal.SIGKILL)

    async def taken_over() -> bool:
        return [stub for stub, _ in gateways(home)] == [spare]

    await home.until(taken_over)
    await home.until(answers)

    async def counted() -> bool:
        return await served(home) >= 6

    await home.until(counted)
    assert await served(home) == 6

    await home.until(stands_by)
    (spare,) = standing_by(home)
    await home.kill_kernel()

    async def ended() -> bool:
        return gone(spare) and standing_by(home) == []

    await home.until(ended)
    assert await answers()
    await home.start()
    await home.until(stands_by)
