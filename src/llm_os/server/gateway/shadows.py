"""Copies of requests for a version that is tried in the shadow: nobody waits for its answers, or sees them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from llm_os.errors import LLMOSError
from llm_os.server.gateway.frames import Frames
from llm_os.server.gateway.openai import Call
from llm_os.server.gateway.upstream import Upstreams
from llm_os.server.gateway.wire import BrokenConnectionError, SilentError
from llm_os.spec.routing import Endpoint, Route

log = logging.getLogger("llm_os.gateway")

MOST = 16
"""Copies under way; more requests than these are not copied."""
WITHIN = 300.0
"""Seconds that a copy may take."""


class Fares(Protocol):
    """Counts how each revision does; see `metering`."""

    def asked(self, deployment: str, revision: int) -> None: ...

    def fared(self, deployment: str, revision: int, first_byte: float | None) -> None: ...

    def refused(self, deployment: str, revision: int) -> None: ...


class Shadows:
    """Args: upstreams: connections to replicas. clock: monotonic seconds. fares: is told how copies fare."""

    def __init__(self, upstreams: Upstreams, clock: Callable[[], float], fares: Fares) -> None:
        self._upstreams, self._clock, self._fares = upstreams, clock, fares
        self._running: set[asyncio.Task[None]] = set()

    def send(self, route: Route, path: str, call: Call, request_id: str) -> bool:
        """Send a copy to one of the route's endpoints, and return at once. False: too many are under way."""
        if len(self._running) >= MOST:
            return False
        task = asyncio.get_running_loop().create_task(self._copy(route, path, call, request_id))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return True

    async def end(self) -> None:
        """Break off what is under way."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _copy(self, route: Route, path: str, call: Call, request_id: str) -> None:
        """One copy, counted as a caller's own request would be: a refusal is no failure, nor is a stale connection."""
        endpoint, choice = self._upstreams.choose(route)
        self._fares.asked(route.deployment, endpoint.revision)
        first: float | None = None
        try:
            with self._upstreams.busy(route, endpoint, choice, lambda: 0.0):
                async with asyncio.timeout(WITHIN):
                    status, first, whole = await self._asked(endpoint, path, call, request_id)
            if 400 <= status < 500:
                return
            if status >= 500 or not whole:
                first = None
        except (BrokenConnectionError, SilentError, LLMOSError, TimeoutError) as error:
            log.warning("%s: a copy failed at replica %s: %s", request_id, endpoint.attempt, error)
            if isinstance(error, BrokenConnectionError) and not error.sent:
                return
        self._fares.fared(route.deployment, endpoint.revision, first)

    async def _asked(
        self, endpoint: Endpoint, path: str, call: Call, request_id: str
    ) -> tuple[int, float | None, bool]:
        """Status, seconds to the first byte, and whether it came to its end."""
        mark = f"x-request-id: {request_id}-copy\r\n".encode()
        for fresh in (False, True):
            asked, first = self._clock(), None
            try:
                answer = await self._upstreams.pool(endpoint).post(path, call.body, mark, fresh=fresh)
            except BrokenConnectionError as broken:
                if broken.stale and not fresh:
                    continue
                raise
            frames = Frames() if answer.content_type == "text/event-stream" else None
            try:
                while chunk := await answer.readany():
                    first = self._clock() - asked if first is None else first
                    if frames is not None:
                        frames.feed(chunk)
            finally:
                answer.close()
            return answer.status, first, frames is None or frames.done
        raise AssertionError("the second try answers or raises")
