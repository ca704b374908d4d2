"""The kernel under test: started again whenever it dies, asked until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from random import Random
from typing import Any

from sqlalchemy.exc import OperationalError

from llm_os.kernel.loop import Kernel
from llm_os.testing.faults import Crash, Incarnation
from llm_os.testing.oracle import Oracle


class SimulatedKernel:
    """All lives of the kernel of a run.

    Args:
        build: makes the kernel of a life.
        crash_at: points at which the first ones die.
        broken: called with the rule that was broken. tell: called with what happens.

    Attributes:
        lives: those that were and the one that is, last.
        up: set while one answers.
        finished: it may end now.
    """

    def __init__(
        self,
        build: Callable[[Incarnation], Kernel],
        crash_at: Iterable[int],
        oracle: Oracle,
        random: Random,
        tell: Callable[[str], None],
        broken: Callable[[str], None],
    ) -> None:
        self._build, self._oracle, self._random = build, oracle, random
        self._tell, self._broken = tell, broken
        self._crashes_left = list(crash_at)
        self._kernels: dict[int, Kernel] = {}
        self.lives: list[Incarnation] = []
        self.up = asyncio.Event()
        self.finished = False

    def bury(self) -> None:
        """Nothing of any life goes on."""
        for life in self.lives:
            life.bury()

    def calm(self, *, points_stay: bool) -> None:
        """It dies of nothing any more, except at points of lives that have begun where these stay."""
        self._crashes_left.clear()
        if not points_stay:
            for life in self.lives:
                life.crash_at = None

    async def keep_alive(self) -> None:
        """Start a kernel again whenever it died, as whoever needs one does."""
        while True:
            crash_at = self._crashes_left.pop(0) if self._crashes_left else None
            life = Incarnation(len(self.lives) + 1, crash_at, self._broken)
            self.lives.append(life)
            self._tell(f"kernel {life.number} starts")
            run = asyncio.get_running_loop().create_task(self._live(life), context=life.context)
            died = asyncio.ensure_future(life.died.wait())
            await asyncio.wait({run, died}, return_when=asyncio.FIRST_COMPLETED)
            died.cancel()
            self.up.clear()
            self._oracle.interrupted()
            if not life.died.is_set():
                problem = run.exception()
                life.bury()
                if problem is None and self.finished:
                    return
                self._broken(f"The kernel ended by itself: {problem!r}")
                return
            self._tell(f"kernel {life.number} died at {life.died_at}")
            life.bury()
            await asyncio.sleep(self._random.choice([0.05, 0.5, 3.0]))

    async def _live(self, life: Incarnation) -> None:
        kernel = self._build(life)
        self._kernels[life.number] = kernel
        try:
            await kernel.recover()
        except OperationalError:  # it could not start; whoever needs it starts it again
            life.crash_at = life.points + 1
            life.point("recovery failed")
        self.up.set()
        await kernel.run()

    async def ask(self, verb: str, *arguments: Any) -> Any:
        """A syscall, again and again until a kernel answers it. Raises LLMOSError."""
        while True:
            answered, answer = await self.ask_once(verb, *arguments)
            if answered:
                return answer
            await asyncio.sleep(0.1)

    async def ask_once(self, verb: str, *arguments: Any) -> tuple[bool, Any]:
        """(False, None) when the kernel died of it or the database failed: nobody knows whether it was done."""
        await self.up.wait()
        life = self.lives[-1]
        call = getattr(self._kernels[life.number], verb)
        try:
            answer = life.call(call, *arguments)
            if isinstance(answer, Coroutine):
                answer = await self._wait_for(life, answer)
        except (Crash, OperationalError):
            return False, None
        return True, answer

    async def _wait_for(self, life: Incarnation, answer: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.get_running_loop().create_task(answer, context=life.context.copy())
        died = asyncio.ensure_future(life.died.wait())
        await asyncio.wait({task, died}, return_when=asyncio.FIRST_COMPLETED)
        died.cancel()
        if not task.done():
            raise Crash(life.died_at)
        return task.result()
