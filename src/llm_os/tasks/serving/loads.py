"""Keeps so many requests under way at one replica for a short while, and says what it did. Must not know an engine."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from llm_os.errors import UnsupportedModelError
from llm_os.spec.calibration import Speed
from llm_os.tasks.serving.replica import Refused

SECONDS = 2.0
"""How long what it does is counted, at least: and until every caller had a whole answer, but not beyond LONGEST."""
LONGEST = 8.0
PATIENCE = 60.0
"""Seconds in which each caller must have begun to get an answer."""
APART = 10_000
"""Numbers of questions between two loads: what one has asked, caches know in the next."""
ANSWER = 32
"""Tokens of an answer."""
SUBJECTS = ("the sea", "an old bridge", "a lost letter", "the moon", "bread", "a clock", "winter", "a garden")
PLACES = ("in a harbour", "on a mountain", "in a large city", "at school", "in a small shop", "by a river")
SENTENCES = (
    "The room was clean and the people at the desk were friendly from the first minute to the last.",
    "It stopped working after two days.",
    "I have read this book three times and every time I found something in it that I had not seen before.",
    "Not bad, but the older one was better and cost half as much as this one does today.",
)


class Asked(Protocol):
    """The part of `replica.Replica` that is used."""

    def asked(self, path: str, body: Mapping[str, Any]) -> contextlib.AbstractAsyncContextManager[Any]: ...


@dataclass(slots=True)
class Caller:
    """Whether an answer has begun, and whether one has ended."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Count:
    """What came within the time that counts.

    Attributes:
        done: tokens or texts by the second, since the start, at which they came.
        firsts: seconds to the first token, or to the answer.
    """

    callers: list[Caller]
    since: float = field(default_factory=time.perf_counter)
    done: list[tuple[float, int]] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)

    def at(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.since

    def add(self, number: int) -> None:
        self.done.append((self.at(), number))

    def per_second(self, until: float) -> float:
        """Of those that came before `until`, in seconds since the start."""
        return sum(number for at, number in self.done if at <= until) / until


class Load(ABC):
    """Closed-loop callers: each asks again as soon as its answer is there."""

    async def measured(self, replica: Asked, streams: int) -> Speed:
        """What a replica does while `streams` requests are under way.

        At first all of them are read at once, later some are read while others are answered: a whole answer of each
        has both.

        Raises:
            Refused: it died, refuses, or does not answer.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                await self.warm(replica)
        except TimeoutError as late:
            raise Refused(f"It leaves a single caller without an answer for {PATIENCE:g} s.") from late
        count = Count([Caller() for _ in range(streams)])
        callers = [asyncio.create_task(self._call(replica, count, number)) for number in range(streams)]
        begun = asyncio.create_task(_all([caller.begun for caller in count.callers]))
        ended = asyncio.create_task(_all([caller.ended for caller in count.callers]))
        try:
            if not await _before(begun, callers, PATIENCE - count.at()):
                raise Refused(f"With {streams} at once it leaves callers without an answer for {PATIENCE:g} s.")
            await _before(ended, callers, LONGEST - count.at())
            until = max(SECONDS, count.at())
            await asyncio.wait(callers, timeout=max(0.0, until - count.at()))
            _raise(callers)
        finally:
            for task in (begun, ended, *callers):
                task.cancel()
            await asyncio.gather(begun, ended, *callers, return_exceptions=True)
        first = statistics.median(count.firsts)
        return Speed(streams=streams, per_second=round(count.per_second(until), 2), first=round(first, 4))

    async def _call(self, replica: Asked, count: Count, number: int) -> None:
        caller = count.callers[number]
        for turn in itertools.count():
            since, first = time.perf_counter(), True
            asked = APART * len(count.callers) + number + turn * len(count.callers)
            async for done in self.answer(replica, asked):
                if first:
                    count.firsts.append(time.perf_counter() - since)
                    caller.begun.set()
                    first = False
                count.add(done)
            caller.ended.set()

    async def warm(self, replica: Asked) -> None:
        """One request that does not count."""
        async for _ in self.answer(replica, -1):
            pass

    @abstractmethod
    def answer(self, replica: Asked, number: int) -> AsyncIterator[int]:
        """Ask once; how much came, each time something comes. `number`: no two requests say the same."""


async def _before(event: asyncio.Task[None], callers: list[asyncio.Task[None]], seconds: float) -> bool:
    """Wait for it, not longer than so many seconds: whether it came. Raises what a caller met with."""
    await asyncio.wait({event, *callers}, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
    _raise(callers)
    return event.done()


async def _all(events: Sequence[asyncio.Event]) -> None:
    for event in events:
        await event.wait()


def _raise(callers: list[asyncio.Task[None]]) -> None:
    """What a caller met with; they never end otherwise."""
    for caller in callers:
        if caller.done():
            caller.result()


class Chats(Load):
    """Short questions that no cache knows, with answers of a fixed length; tokens are counted as they come."""

    async def answer(self, replica: Asked, number: int) -> AsyncIterator[int]:
        subject, place = SUBJECTS[number % len(SUBJECTS)], PLACES[number % len(PLACES)]
        question = f"{number}. Write a long story about {subject} {place}, with many people and what they say."
        body = {
            "messages": [{"role": "user", "content": question}],
            "max_tokens": ANSWER,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        told = 0
        async with replica.asked("/v1/chat/completions", body) as response:
            async for event in _events(response):
                if "error" in event:
                    raise Refused(f"It broke an answer off: {event['error'].get('message')}")
                if (usage := event.get("usage")) is not None and usage["completion_tokens"] > told:
                    yield usage["completion_tokens"] - told  # pieces that had no event of their own
                    told = usage["completion_tokens"]
                elif event.get("tokens", 0) > told:  # an event may hold several, and our workers count them
                    yield event["tokens"] - told
                    told = event["tokens"]
                elif "tokens" not in event and event["choices"] and _says(event["choices"][0]):
                    told += 1
                    yield 1


def _says(choice: Mapping[str, Any]) -> bool:
    return bool(choice["delta"].get("content"))


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """What events say; with `tokens`, where the worker counts them beside."""
    event: dict[str, Any] | None = None
    async for line in response.content:
        text = line.removeprefix(b"data: ").strip()
        if line.startswith(b"tokens: ") and event is not None:
            event["tokens"] = int(line[8:])
            continue
        if event is not None:
            yield event
        event = json.loads(text) if line.startswith(b"data: ") and text != b"[DONE]" else None


class Texts(Load):
    """Short texts, one a request.

    Args:
        path: of the endpoint.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    async def answer(self, replica: Asked, number: int) -> AsyncIterator[int]:
        text = f"{SENTENCES[number % len(SENTENCES)]} ({number})"
        async with replica.asked(self._path, {"input": text}) as response:
            await response.read()
        yield 1


def load_of(task: str) -> Load:
    """How a model of this task is loaded. Raises UnsupportedModelError."""
    if task in ("text-generation",):
        return Chats()
    if task.endswith("-classification"):
        return Texts("/classify")
    if task in ("sentence-similarity", "feature-extraction"):
        return Texts("/v1/embeddings")
    raise UnsupportedModelError(
        f"Engines are not measured on a {task} model.", hint="Deploy it: the preferred engine is taken."
    )


def unit_of(task: str) -> str:
    """What is counted."""
    return "tokens" if task == "text-generation" else "texts"
