"""Which of several engines answers a request soonest, from how fast each was measured; knows no HTTP.

Replicas of one machine share its processors, so what counts is how much is under way on all of them together: a request
is predicted to take what it would take on each engine if all that is under way were there. A choice by what is under
way on each engine alone would be stable where it is worst: seven requests on the slow engine make the quick one look
slow for the eighth. As requests end and others come, all of them meet on the engine that is best at this load.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_os.spec.calibration import Speed

HALF_LIFE = 2.0
"""Seconds after which a load that has become less counts half. The callers of a closed loop come back one after the
other: the first one shall not take the machine for idle."""
IDLE_HALF_LIFE = 0.1
"""The same while nothing at all is under way: who comes a second after a burst is alone."""
MARGIN = 0.1
"""Share of the time by which another engine must be quicker than the last one that was chosen."""
READ = 64.0
"""Tokens of the prompts that engines are measured with, about: the time to the first token is told for these."""
LEAST_READ = 0.25
"""Of the time to the first token, what a prompt takes of which everything is in the cache."""
TOGETHER_WITHIN = 0.005
"""Seconds that the first of a burst waits for the others: one that went ahead to the engine for few would take
processors from the one for many until it has ended."""
RISES = 0.5
"""Answers by which a load must be above what it was lately to be the begin of a burst."""
_SLOWEST = 1e-3
"""Tokens a second of an engine that was measured to do nothing."""


def at(speeds: Sequence[Speed], streams: float) -> tuple[float, float]:
    """Tokens a second of all requests together, and seconds to the first token, at so many requests under way.

    Between measured numbers a power law (a straight line between logarithms): exact for an engine that answers one
    request after the other and for one to which more requests cost nothing. Above the largest one it does no more, and
    the first token waits in proportion.

    Args:
        speeds: at least one, fewest streams first.
    """
    counts = [speed.streams for speed in speeds]
    place = bisect_left(counts, streams)
    if place == len(speeds):
        last = speeds[-1]
        return max(last.per_second, _SLOWEST), last.first * streams / last.streams
    above = speeds[place]
    if place == 0 or counts[place] == streams:
        return max(above.per_second, _SLOWEST), above.first
    below = speeds[place - 1]
    share = math.log(streams / below.streams) / math.log(above.streams / below.streams)
    return (
        _between(below.per_second, above.per_second, share),
        _between(below.first, above.first, share),
    )


def _between(low: float, high: float, share: float) -> float:
    low, high = max(low, _SLOWEST), max(high, _SLOWEST)
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


@dataclass(frozen=True, slots=True)
class Work:
    """What a request asks of an engine.

    Attributes:
        to_read: tokens of its prompt that are not in the cache; None: it reads no prompt (a text to classify).
        answer: tokens that are expected to be written, of all its answers together.
        answers: that are written at once.
    """

    to_read: float | None
    answer: float
    answers: int = 1


def seconds(speeds: Sequence[Speed], streams: float, work: Work) -> float:
    """How long it takes if so many answers are under way, its own among them."""
    per_second, first = at(speeds, streams)
    if work.to_read is None:
        return first
    return first * max(LEAST_READ, work.to_read / READ) + work.answer / work.answers * streams / per_second


class Load:
    """How many answers are under way, with a memory."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = 0.0
        self._at = 0.0

    def begin(self, now: float, answers: int = 1) -> None:
        self._age(now)
        self.count += answers

    def end(self, now: float, answers: int = 1) -> None:
        self._age(now)
        self.count -= answers

    def with_another(self, now: float, answers: int = 1) -> float:
        """What is under way with another request, or was on average lately, whichever is more."""
        self._age(now)
        return max(float(self.count + answers), self._mean)

    def rises(self, now: float, answers: int = 1) -> bool:
        """Whether another request may be the first of a burst: nothing is under way, or more than there was lately."""
        self._age(now)
        return not self.count or self.count + answers > self._mean + RISES

    def _age(self, now: float) -> None:
        kept = math.exp2(-max(0.0, now - self._at) / (HALF_LIFE if self.count else IDLE_HALF_LIFE))
        self._mean = self.count + (self._mean - self.count) * kept
        self._at = now


class Soonest:
    """The engines of one deployment, by their speeds."""

    def __init__(self) -> None:
        self.load = Load()
        self._last: Sequence[Speed] = ()
        self._gathering: asyncio.Future[None] | None = None

    async def gather(self, clock: Callable[[], float], answers: int = 1) -> None:
        """Wait a moment where the load rises, counted as under way, so that all of a burst are seen by each of them."""
        if self._gathering is None and not self.load.rises(clock(), answers):
            return
        self.load.begin(clock(), answers)
        try:
            if self._gathering is None:
                loop = asyncio.get_running_loop()
                self._gathering = loop.create_future()
                loop.call_later(TOGETHER_WITHIN, self._gathered)
            await asyncio.shield(self._gathering)
        finally:
            self.load.end(clock(), answers)

    def _gathered(self) -> None:
        if self._gathering is not None:
            self._gathering.set_result(None)
            self._gathering = None

    def choose(self, offers: Sequence[tuple[Sequence[Speed], Work]], now: float) -> int:
        """Index of the engine that answers soonest; the last one that was chosen, unless another is clearly better.

        Args:
            offers: speeds of each engine, and the work that it would have with this request.
        """
        streams = self.load.with_another(now, offers[0][1].answers)
        times = [seconds(speeds, streams, work) for speeds, work in offers]
        best = min(range(len(times)), key=times.__getitem__)
        kept = next((index for index, (speeds, _) in enumerate(offers) if speeds == self._last), best)
        if times[best] < (1 - MARGIN) * times[kept]:
            kept = best
        self._last = offers[kept][0]
        return kept
