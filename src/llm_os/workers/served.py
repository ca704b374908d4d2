"""A backend whose server is a child of this worker: started, probed by a token, watched, ended; knows no program."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from llm_os.errors import LLMOSError
from llm_os.workers.bridge import TokenBridge
from llm_os.workers.upstream import Upstream

HEALTH = "/health"
QUEUE = 8
"""So many times what it answers together a worker takes requests in; more are refused."""


class Process(Protocol):
    """The part of `child.Child` that is used; see there."""

    who: str
    socket: str

    async def start(self) -> None: ...
    async def until(self, answers: Callable[[], Awaitable[bool]]) -> None: ...
    async def death(self) -> LLMOSError: ...
    async def end(self) -> None: ...


class ChildBridge(TokenBridge):
    """See the module."""

    def __init__(self, child: Process, *, model: str, most: int, context: int, vocabulary: int) -> None:
        upstream = Upstream(child.who, "http://engine", socket=child.socket)
        super().__init__(upstream, model=model, most=most, context=context, vocabulary=vocabulary, version="/v1")
        self._child = child
        self._watching: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        self.upstream.begin()
        try:
            await self._child.start()
            await self._child.until(lambda: self.upstream.healthy(HEALTH))
            self._watching = asyncio.create_task(self._watch())
            await self._probe()
        except BaseException:
            await self.end()
            raise

    async def _probe(self) -> None:
        """A first token, or the reason why the server died over it."""
        probe, lost = asyncio.create_task(self.first_token()), asyncio.create_task(self.lost())
        await asyncio.wait({probe, lost}, return_when=asyncio.FIRST_COMPLETED)
        try:
            if probe.done() and probe.exception() is not None:
                await asyncio.wait({lost}, timeout=1.0)  # a broken connection is seen before the death behind it
            if lost.done():
                raise lost.result()
            await probe
        finally:
            probe.cancel()
            lost.cancel()

    async def _watch(self) -> None:
        self.lose(await self._child.death())

    async def end(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        await self.upstream.end()
        await self._child.end()
