"""Puts texts of different callers into one batch; must not know a framework: it calls functions on a thread of its own.

While a batch runs, new texts gather, and the thread itself takes what is there when it is free: no timer to tune, no
turn of the event loop in between. A batch is the texts that waited longest; it runs in pieces of like length, and each
piece is answered when it is done.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llm_os.errors import OverloadedError

Answer = TypeVar("Answer")
"""What a text becomes: scores by label, a vector, spans."""
Other = TypeVar("Other")
ENOUGH = 1024
"""Tokens from which more of them in one piece are no faster on a CPU: then whoever is in it shall not wait for more."""
CALL = 64
"""Tokens that take about as long as a call of a model by itself: as much padding is cheaper than a further piece."""
SHARE = 0.1
"""Of a piece may be padding, where that is more."""


@dataclass(slots=True)
class _Waiting(Generic[Answer]):
    text: str
    answer: asyncio.Future[Answer]
    loop: asyncio.AbstractEventLoop


class Batcher(Generic[Answer]):
    """One thread, one batch at a time.

    Args:
        run: answers of what `read` made of texts; called on the thread of this batcher, never twice at once.
        read: what a model reads of texts, such as their tokens; called on the same thread, once for a batch.
        most: texts in a batch.
        queue: texts that may wait; more are refused.
        weigh: tokens of what was read.
        budget: tokens of a piece with its padding, so that long texts do not exceed the memory; one text always runs.
    """

    def __init__(
        self,
        run: Callable[[list[Any]], Sequence[Answer]],
        *,
        read: Callable[[list[str]], Sequence[Any]] = list,
        most: int = 32,
        queue: int = 8192,
        weigh: Callable[[Any], int] = len,
        budget: int = 4096,
    ) -> None:
        self._run = run
        self._read = read
        self._most = most
        self._queue = queue
        self._weigh = weigh
        self._budget = budget
        self._waiting: deque[_Waiting[Answer]] = deque()
        self._lock = threading.Lock()
        self._busy = False
        """Whether the thread works; it changes with `_waiting`, under the lock."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self.batches = 0
        """Batches begun by now."""

    async def scores(self, texts: Sequence[str]) -> list[Answer]:
        """Answers of the texts in their order. A caller who leaves takes texts that still wait out of the queue.

        Raises:
            OverloadedError: the queue is full.
            Exception: what `read` or `run` raised for one of the texts.
        """
        if (there := self._there(len(texts))) + len(texts) > self._queue:
            raise OverloadedError(
                f"{there} texts wait already, {self._queue} may.",
                hint="Try again in a moment, or deploy more replicas.",
                details={"retry_after": 1},
            )
        loop = asyncio.get_running_loop()
        mine: list[_Waiting[Answer]] = [_Waiting(text, loop.create_future(), loop) for text in texts]
        with self._lock:
            self._waiting.extend(mine)
            idle, self._busy = not self._busy, True
        if idle:
            self._thread.submit(self._work)
        try:
            if len(mine) == 1:
                return [await mine[0].answer]
            return list(await asyncio.gather(*(waiting.answer for waiting in mine)))
        except BaseException:
            for waiting in mine:
                waiting.answer.cancel()
            raise

    def _there(self, more: int) -> int:
        """Texts that wait. Where they and more are too many, those of callers who have left are taken out first."""
        if len(self._waiting) + more > self._queue:
            with self._lock:
                self._waiting = deque(waiting for waiting in self._waiting if not waiting.answer.done())
        return len(self._waiting)

    async def on_thread(self, function: Callable[..., Other], *given: Any) -> Other:
        """Call something else on the batcher's thread: math libraries keep a pool of threads for each caller.

        It waits until no text waits: call it before texts come.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *given)

    def _work(self) -> None:
        while batch := self._take():
            self.batches += 1
            self._begin(batch)

    def _begin(self, batch: list[_Waiting[Answer]]) -> None:
        try:
            items = self._read([waiting.text for waiting in batch])
            sizes = [self._weigh(item) for item in items]
        except Exception as error:  # noqa: BLE001 - whose text it was is told
            if len(batch) == 1:
                _tell(batch, error)
            for waiting in batch if len(batch) > 1 else ():
                self._begin([waiting])
            return
        for part in pieces(sizes, self._budget):
            self._answer([(batch[at], items[at]) for at in part])

    def _answer(self, piece: Sequence[tuple[_Waiting[Answer], Any]]) -> None:
        there = [one for one in piece if not one[0].answer.done()]  # the others' callers have left
        if not there:
            return
        callers = [waiting for waiting, _ in there]
        try:
            answers = self._run([item for _, item in there])
        except Exception as error:  # noqa: BLE001 - whose text it was is told
            if len(there) == 1:
                _tell(callers, error)
            for one in there if len(there) > 1 else ():  # each alone: callers do not pay for each other's texts
                self._answer([one])
            return
        wrong = f"{len(answers)} answers to {len(there)} texts" if len(answers) != len(there) else ""
        _tell(callers, RuntimeError(wrong) if wrong else answers)

    def _take(self) -> list[_Waiting[Answer]]:
        """The texts that waited longest; none: the thread is free from now on."""
        batch: list[_Waiting[Answer]] = []
        with self._lock:
            while self._waiting and len(batch) < self._most:
                waiting = self._waiting.popleft()
                if not waiting.answer.done():  # else its caller has left
                    batch.append(waiting)
            self._busy = bool(batch)
        return batch

    async def end(self) -> None:
        """Wait for the running batch; what waits is not begun."""
        with self._lock:
            self._waiting.clear()
        await asyncio.to_thread(self._thread.shutdown)


def pieces(sizes: Sequence[int], budget: int, enough: int = ENOUGH) -> list[list[int]]:
    """Indices of texts that shall run together, short ones first: they wait for no long one.

    Args:
        sizes: tokens of each text. budget: tokens of a piece with its padding.
        enough: tokens without padding after which a piece is closed.
    """
    found: list[list[int]] = []
    tokens = 0
    for at in sorted(range(len(sizes)), key=sizes.__getitem__):
        size = sizes[at]
        padded = size * (len(found[-1]) + 1) if found else size
        padding = padded - tokens - size
        if not found or tokens >= enough or padded > budget or padding > max(CALL, SHARE * tokens):
            found.append([])
            tokens = 0
        found[-1].append(at)
        tokens += size
    return found


def _tell(callers: Sequence[_Waiting[Answer]], answers: Sequence[Answer] | Exception) -> None:
    """Hand over from the thread: one wake-up of the loop for all of a piece."""
    loop = callers[0].loop

    def deliver() -> None:
        for at, waiting in enumerate(callers):
            if waiting.answer.done():
                continue
            if isinstance(answers, Exception):
                waiting.answer.set_exception(answers)
            else:
                waiting.answer.set_result(answers[at])

    if not loop.is_closed():
        loop.call_soon_threadsafe(deliver)
