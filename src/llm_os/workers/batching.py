"""Puts texts of different callers into one batch; must not know a framework: it calls functions on threads of its own.

While a batch runs, new texts gather, and the thread itself takes what is there when it is free: no timer to tune, no
turn of the event loop in between. Each text is due when it has waited some times as long as it takes itself: short ones
wait for no long one, and long ones not for ever. A thread takes its share of the texts, those due first, and runs the
first of them with those of like length; the others go back. What texts and calls cost is learned while they run.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llm_os.errors import OverloadedError, UnavailableError

Answer = TypeVar("Answer")
"""What a text becomes: scores by label, a vector, spans."""
Other = TypeVar("Other")
ENOUGH = 1024
"""Tokens from which more of them in one piece are no faster on a CPU: then whoever is in it shall not wait for more."""
CALL = 64
"""Tokens that take about as long as a call of a model by itself, until that is known: as much padding is cheaper than a
further piece."""
CALLS = 4
"""Times what a call takes after which few texts are no longer made to wait for each other in one piece."""
LEAST_CALL, MOST_CALL = 8, 512
"""Between these that number is believed."""
KNOWN_AFTER = 16
"""Calls."""
FADES = 0.98
"""What a call counts when another one has come."""
PATIENCE = 3.0
"""Times what a text takes itself after which it is due; the texts of a request follow each other."""
MOST_PATIENCE = 10.0
"""Seconds after which any text is due."""
LONG = 2048
"""Characters after which a text takes no longer: models cut it."""
EACH = 256
"""Characters that take about as long as a text takes beside its own."""


@dataclass(slots=True)
class _Waiting(Generic[Answer]):
    text: str
    answer: asyncio.Future[Answer]
    loop: asyncio.AbstractEventLoop
    due: float
    number: int
    item: Any = None
    """What a model reads of it, once that is known."""
    weight: int = 0
    """Tokens of the item; none yet: 0."""

    def __lt__(self, other: _Waiting[Answer]) -> bool:
        return (self.due, self.number) < (other.due, other.number)


class Pace:
    """What calls take: a time for the call, and one for each token; least squares, in which newer calls count more."""

    def __init__(self) -> None:
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        self._calls = 0

    def note(self, tokens: int, seconds: float, texts: Sequence[str]) -> None:
        """A call took so long for these texts."""
        new = (1.0, tokens, seconds, tokens * tokens, tokens * seconds, sum(map(_size, texts)))
        self._sums = tuple(FADES * one + other for one, other in zip(self._sums, new, strict=True))  # type: ignore[assignment]
        self._calls += 1

    def dues(self, now: float, texts: Sequence[str]) -> Iterable[float]:
        """When the texts of a request are due; at once, until calls are known."""
        each = PATIENCE * self._sums[2] / self._sums[5] if self._calls >= KNOWN_AFTER else 0.0
        return (now + min(each * size, MOST_PATIENCE) for size in itertools.accumulate(map(_size, texts)))

    @property
    def call(self) -> float:
        """Tokens that take as long as a call by itself."""
        n, x, y, xx, xy, _ = self._sums
        spread = n * xx - x * x
        if self._calls < KNOWN_AFTER or spread <= x * x / 1000 or (slope := (n * xy - x * y) / spread) <= 0:
            return CALL
        return min(MOST_CALL, max(LEAST_CALL, (y - slope * x) / n / slope))


def _size(text: str) -> int:
    return EACH + min(len(text), LONG)


class Batcher(Generic[Answer]):
    """Some threads, each with one batch at a time.

    Args:
        run: answers of what `read` made of texts; called on the threads of this batcher, by each at its own time.
        read: what a model reads of texts, such as their tokens; once for each text, never twice at once.
        lanes: threads.
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
        lanes: int = 1,
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
        self._waiting: list[_Waiting[Answer]] = []
        """A heap; what is due first is in front."""
        self._numbers = itertools.count()
        self._ended = False
        self._lock, self._reads = threading.Lock(), threading.Lock()
        self._lanes, self._busy = lanes, 0
        """Threads, and how many of them work; that changes with `_waiting`, under the lock."""
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="batch")
        self._pace = Pace()

    async def scores(self, texts: Sequence[str]) -> list[Answer]:
        """Answers of the texts in their order. A caller who leaves takes texts that still wait out of the queue.

        Raises:
            OverloadedError: the queue is full.
            UnavailableError: it has ended, or did before a text was begun.
            Exception: what `read` or `run` raised for one of the texts.
        """
        if (there := self._there(len(texts))) + len(texts) > self._queue:
            raise OverloadedError(
                f"{there} texts wait already, {self._queue} may.",
                hint="Try again in a moment, or deploy more replicas.",
                details={"retry_after": 1},
            )
        if self._ended:
            raise _gone()
        loop, dues = asyncio.get_running_loop(), self._pace.dues(time.monotonic(), texts)
        mine: list[_Waiting[Answer]] = [
            _Waiting(text, loop.create_future(), loop, due, next(self._numbers))
            for text, due in zip(texts, dues, strict=True)
        ]
        self._wait(mine)
        try:
            if len(mine) == 1:
                return [await mine[0].answer]
            return list(await asyncio.gather(*(waiting.answer for waiting in mine)))
        except BaseException:
            for waiting in mine:
                waiting.answer.cancel()
            raise

    def _wait(self, texts: Sequence[_Waiting[Answer]]) -> None:
        """Put them into the queue, and threads that are free to work."""
        with self._lock:
            for waiting in texts:
                heapq.heappush(self._waiting, waiting)
            more = 0 if self._ended else min(len(texts), self._lanes - self._busy)
            self._busy += more
            for _ in range(more):
                self._threads.submit(self._work)

    async def warm(self, text: str) -> None:
        """Let each thread have a first text behind it, as far as that can be had."""
        await asyncio.gather(*(self.scores([text]) for _ in range(2 * self._lanes)))
        self._pace = Pace()  # first calls take longer

    def _there(self, more: int) -> int:
        """Texts that wait. Where they and more are too many, those of callers who have left are taken out first."""
        if len(self._waiting) + more > self._queue:
            with self._lock:
                self._waiting = [waiting for waiting in self._waiting if not waiting.answer.done()]
                heapq.heapify(self._waiting)
        return len(self._waiting)

    async def on_thread(self, function: Callable[..., Other], *given: Any) -> Other:
        """Call something else on a thread of the batcher: math libraries keep a pool of threads for each caller.

        Call it before texts come.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *given)

    def _work(self) -> None:
        try:
            while batch := self._take():
                self._begin(batch)
        except BaseException:  # a defect: the thread is free all the same
            with self._lock:
                self._busy -= 1
            raise

    def _begin(self, batch: list[_Waiting[Answer]]) -> None:
        """Read the texts, and run the first one with those of like length."""
        if not (there := self._read_all(batch)):
            return
        sizes, call = [waiting.weight for waiting in there], self._pace.call
        enough = min(ENOUGH, max(CALLS * call, sum(sizes) / 2))  # the more wait, the larger are pieces
        chosen = next(part for part in pieces(sizes, self._budget, enough, call) if 0 in part)
        self._wait([waiting for at, waiting in enumerate(there) if at not in chosen])
        self._answer([there[at] for at in chosen])

    def _read_all(self, batch: list[_Waiting[Answer]]) -> list[_Waiting[Answer]]:
        """Those that could be read; the others' callers are told."""
        if not (unread := [waiting for waiting in batch if not waiting.weight]):
            return batch
        try:
            with self._reads:  # tokenizers are not made to be used twice at once
                items = self._read([waiting.text for waiting in unread])
            read = [(waiting, item, self._weigh(item)) for waiting, item in zip(unread, items, strict=True)]
        except Exception as error:  # noqa: BLE001 - whose text it was is told
            if len(unread) == 1:
                _tell(unread, error)
                return [waiting for waiting in batch if waiting is not unread[0]]
            return [waiting for one in batch for waiting in self._read_all([one])]
        for waiting, item, weight in read:
            waiting.item, waiting.weight = item, max(1, weight)
        return batch

    def _answer(self, piece: Sequence[_Waiting[Answer]]) -> None:
        there = [waiting for waiting in piece if not waiting.answer.done()]  # the others' callers have left
        if not there:
            return
        begun = time.perf_counter()
        try:
            answers = self._run([waiting.item for waiting in there])
        except Exception as error:  # noqa: BLE001 - whose text it was is told
            if len(there) == 1:
                _tell(there, error)
            for one in there if len(there) > 1 else ():  # each alone: callers do not pay for each other's texts
                self._answer([one])
            return
        padded = len(there) * max(one.weight for one in there)
        self._pace.note(padded, time.perf_counter() - begun, [one.text for one in there])
        wrong = f"{len(answers)} answers to {len(there)} texts" if len(answers) != len(there) else ""
        _tell(there, RuntimeError(wrong) if wrong else answers)

    def _take(self) -> list[_Waiting[Answer]]:
        """A thread's share of the texts, those due first; none: the thread is free from now on."""
        batch: list[_Waiting[Answer]] = []
        with self._lock:
            most = min(self._most, -(-len(self._waiting) // self._lanes))
            while self._waiting and len(batch) < most:
                waiting = heapq.heappop(self._waiting)
                if not waiting.answer.done():  # else its caller has left
                    batch.append(waiting)
            self._busy -= not batch
        return batch

    async def end(self) -> None:
        """Wait for what threads have taken; what waits is not begun, and its callers are told."""
        with self._lock:
            self._ended = True
            left, self._waiting = self._waiting, []
        for waiting in left:
            _tell([waiting], _gone())
        await asyncio.to_thread(self._threads.shutdown)


def pieces(sizes: Sequence[int], budget: int, enough: float = ENOUGH, call: float = CALL) -> list[list[int]]:
    """Indices of texts that shall run together, short ones first: they wait for no long one.

    Args:
        sizes: tokens of each text. budget: tokens of a piece with its padding.
        enough: tokens without padding after which a piece is closed.
        call: tokens that cost as much as a further piece; no more of a piece is padding.
    """
    found: list[list[int]] = []
    tokens = 0
    for at in sorted(range(len(sizes)), key=sizes.__getitem__):
        size = sizes[at]
        padded = size * (len(found[-1]) + 1) if found else size
        padding = padded - tokens - size
        if not found or tokens >= enough or padded > budget or padding > call:
            found.append([])
            tokens = 0
        found[-1].append(at)
        tokens += size
    return found


def _gone() -> UnavailableError:
    return UnavailableError("This replica ends and takes no more texts.", hint="Try again in a moment.")


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
