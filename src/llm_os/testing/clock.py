"""Time that passes only when everybody waits: an event loop and a clock for tests that never sleep. Knows no kernel.

    with virtual_time() as loop:
        loop.run_until_complete(an_hour_of_work())      # returns at once

Under a `VirtualLoop`, `asyncio.sleep`, `wait_for` and `call_later` work as ever; whenever nothing is ready to run, the
clock jumps to the next timer. Sockets, files and threads of the outside world are never waited for.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EPOCH = 1_700_000_000.0
"""Seconds since the epoch at which virtual time begins: a plausible date, the same in each run."""


class DeadlockError(RuntimeError):
    """Everybody waits, and nothing is due: without the outside world this would last for ever."""


class _Jumps(selectors.SelectSelector):
    """A selector that moves the clock where a real one would let time pass."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise DeadlockError("Everybody waits, and nothing is due.")
        self.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` starts at 0 and jumps from timer to timer."""

    def __init__(self) -> None:
        self._jumps = _Jumps()
        super().__init__(self._jumps)
        # A timer is due up to one resolution early. After a jump the clock may miss it by the last bit of a float.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._jumps.now


class LoopClock:
    """Wall time and sleep of the loop that runs, virtual or real.

    Args:
        epoch: wall time at the loop's time 0.
    """

    def __init__(self, epoch: float = EPOCH) -> None:
        self._epoch = epoch

    def now(self) -> float:
        return self._epoch + asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0))


@contextmanager
def virtual_time() -> Iterator[VirtualLoop]:
    """A fresh loop; at the end what still runs in it is cancelled, and it is closed."""
    loop = VirtualLoop()
    try:
        yield loop
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(_gather(left))
        loop.close()


async def _gather(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
