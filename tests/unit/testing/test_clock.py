"""Virtual time: hours pass at once, in the right order, and a deadlock is told."""

from __future__ import annotations

import asyncio
import time

import pytest

from llm_os.testing.clock import EPOCH, DeadlockError, LoopClock, virtual_time


def test_hours_pass_at_once_and_in_order() -> None:
    clock, seen = LoopClock(), []

    async def later(seconds: float) -> None:
        await clock.sleep(seconds)
        seen.append((seconds, clock.now() - EPOCH))

    async def both() -> None:
        await asyncio.gather(later(7200.0), later(0.1), later(3600.0))

    before = time.perf_counter()
    with virtual_time() as loop:
        loop.run_until_complete(both())
    assert time.perf_counter() - before < 5
    assert seen == [(s, pytest.approx(s, abs=1e-6)) for s in (0.1, 3600.0, 7200.0)]


def test_a_timeout_counts_virtual_seconds() -> None:
    async def never() -> None:
        async with asyncio.timeout(100):
            await asyncio.Event().wait()

    with virtual_time() as loop:
        with pytest.raises(TimeoutError):
            loop.run_until_complete(never())
        assert loop.time() == pytest.approx(100)


def test_waiting_for_nothing_is_a_deadlock() -> None:
    async def stuck() -> None:
        await asyncio.Event().wait()

    with virtual_time() as loop, pytest.raises(DeadlockError):
        loop.run_until_complete(stuck())


def test_what_still_runs_at_the_end_is_cancelled() -> None:
    ended = []

    async def background() -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            ended.append(True)

    async def start() -> None:
        task = asyncio.create_task(background())
        await asyncio.sleep(1)
        assert not task.done()

    with virtual_time() as loop:
        loop.run_until_complete(start())
    assert ended == [True]
