"""Puts texts of different callers into one batch; must not know a framework: it calls a function on a thread.

While a batch runs, new texts gather; the next batch takes what is there. So a lone request never waits, and under
load batches grow by themselves. There is no timer to tune.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llm_os.errors import OverloadedError

Answer = TypeVar("Answer")
"""What a text becomes: scores by label, a vector, spans."""
Other = TypeVar("Other")


@dataclass(slots=True)
class _Waiting(Generic[Answer]):
    text: str
    answer: asyncio.Future[Answer]


class Batcher(Generic[Answer]):
    """One thread, one batch at a time.

    Args:
        run: answers of texts; called on the thread of this batcher, never twice at once.
        most: texts in a batch.
        queue: texts that may wait; more are refused.
        weigh: most tokens that a text can have.
        budget: tokens of a batch with its padding, so that long texts do not exceed the memory; one text always runs.
    """

    def __init__(
        self,
        run: Callable[[list[str]], Sequence[Answer]],
        *,
        most: int = 32,
        queue: int = 8192,
        weigh: Callable[[str], int] = len,
        budget: int = 4096,
    ) -> None:
        self._run = run
        self._most = most
        self._queue = queue
        self._weigh = weigh
        self._budget = budget
        self._waiting: deque[_Waiting[Answer]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self._task: asyncio.Task[None] | None = None
        self.batches = 0
        """Batches run by now."""

    async def scores(self, texts: Sequence[str]) -> list[Answer]:
        """Answers of the texts in their order. A caller who leaves takes texts that still wait out of the queue.

        Raises:
            OverloadedError: the queue is full.
            Exception: what `run` raised for the batch one of the texts was in.
        """
        if len(self._waiting) + len(texts) > self._queue:
            raise OverloadedError(
                f"{len(self._waiting)} texts wait already, {self._queue} may.",
                hint="Try again in a moment, or deploy more replicas.",
                details={"retry_after": 1},
            )
        loop = asyncio.get_running_loop()
        mine: list[_Waiting[Answer]] = [_Waiting(text, loop.create_future()) for text in texts]
        # Texts of like length share a batch, so that little is padding.
        self._waiting.extend(sorted(mine, key=lambda waiting: len(waiting.text)))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        try:
            return list(await asyncio.gather(*(waiting.answer for waiting in mine)))
        except BaseException:
            for waiting in mine:
                waiting.answer.cancel()
            raise

    async def on_thread(self, function: Callable[..., Other], *given: Any) -> Other:
        """Call something else on the batcher's thread: math libraries keep a pool of threads for each caller."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *given)

    async def _work(self) -> None:
        while batch := self._take():
            self.batches += 1
            try:
                answers = await self.on_thread(self._run, [waiting.text for waiting in batch])
            except Exception as error:  # noqa: BLE001 - each caller of the batch is told
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                continue
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)

    def _take(self) -> list[_Waiting[Answer]]:
        batch: list[_Waiting[Answer]] = []
        longest = 0
        while self._waiting and len(batch) < self._most:
            if self._waiting[0].answer.done():  # its caller has left
                self._waiting.popleft()
                continue
            longest = max(longest, self._weigh(self._waiting[0].text))
            if batch and longest * (len(batch) + 1) > self._budget:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def end(self) -> None:
        """Wait for the running batch; what waits is not begun."""
        self._waiting.clear()
        if self._task is not None:
            await asyncio.wait({self._task})
        self._thread.shutdown(wait=True)
