"""Several answers to one request, side by side; must not know an engine or the network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from llm_os.workers.backend import Piece
from llm_os.workers.requests import ChatRequest

Item = TypeVar("Item")


def choices_of(asked: ChatRequest) -> list[ChatRequest]:
    """A request for each of its `n` answers; with a seed each has one of its own."""
    seeds = [None if asked.seed is None else asked.seed + number for number in range(asked.n)]
    return [replace(asked, n=1, seed=seed) for seed in seeds]


def primed(streams: Sequence[AsyncGenerator[Item, None]], each: int) -> list[AsyncGenerator[Item, None]]:
    """The same streams, in groups of `each`: the first of a group goes at once, the others when it says something.

    They go, too, when it ends or fails.
    """
    found: list[AsyncGenerator[Item, None]] = []
    for begin in range(0, len(streams), each):
        read = asyncio.Event()
        found.append(_leading(streams[begin], read))
        found += [_following(stream, read) for stream in streams[begin + 1 : begin + each]]
    return found


async def _leading(stream: AsyncGenerator[Item, None], read: asyncio.Event) -> AsyncGenerator[Item, None]:
    try:
        async for item in stream:
            read.set()
            yield item
    finally:
        read.set()
        await stream.aclose()


async def _following(stream: AsyncGenerator[Item, None], read: asyncio.Event) -> AsyncGenerator[Item, None]:
    try:
        await read.wait()
        async for item in stream:
            yield item
    finally:
        await stream.aclose()


async def paced(
    pieces: AsyncGenerator[Piece, None], pause: float, clock: Callable[[], float] = time.monotonic
) -> AsyncGenerator[Piece, None]:
    """The same with fewer pieces: those that come sooner after the last one that was passed on go with the next.

    The first and the last one never wait. (No timer wakes for the others: it would cost what is saved.)

    Args:
        pause: seconds.
    """
    held: Piece | None = None
    told = -pause
    try:
        async for piece in pieces:
            held = piece if held is None else held + piece
            now = clock()
            if piece.finish is not None or piece.calls or now - told >= pause:
                yield held
                held, told = None, now
        if held is not None:
            yield held
    except Exception:
        if held is not None:  # what was said before it broke was said
            yield held
        raise
    finally:
        await pieces.aclose()


async def merged(streams: Sequence[AsyncGenerator[Item, None]]) -> AsyncGenerator[tuple[int, Item], None]:
    """Items of all streams as they come, each with the number of its stream. Closing it closes them all.

    Raises what the first of them that fails raises.
    """
    if len(streams) == 1:
        try:
            async for item in streams[0]:
                yield 0, item
        finally:
            await streams[0].aclose()
        return
    ready: asyncio.Queue[tuple[int, Item] | None] = asyncio.Queue()

    async def read(number: int) -> None:
        try:
            async for item in streams[number]:
                ready.put_nowait((number, item))
        finally:
            await streams[number].aclose()
            ready.put_nowait(None)  # one has ended

    tasks = [asyncio.create_task(read(number)) for number in range(len(streams))]
    try:
        left = len(tasks)
        while left:
            come = await ready.get()
            if come is not None:
                yield come
                continue
            left -= 1
            for task in tasks:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
