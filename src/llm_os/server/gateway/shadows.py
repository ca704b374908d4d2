"""Copies of requests for a version that is tried in the shadow: nobody waits for its answers, or sees them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from llm_os.errors import LLMOSError
from llm_os.server.gateway.openai import Call
from llm_os.server.gateway.upstream import Upstreams
from llm_os.server.gateway.wire import BrokenConnectionError, SilentError
from llm_os.spec.routing import Route

log = logging.getLogger("llm_os.gateway")

MOST = 16
"""Copies under way; more requests than these are not copied."""
WITHIN = 300.0
"""Seconds that a copy may take."""

Fared = Callable[[str, int, float | None], None]
"""Is told deployment, revision and seconds to the first byte, or None for a failure (`metering.fared`)."""


class Shadows:
    """Args: upstreams: connections to replicas. clock: monotonic seconds. fared: see above."""

    def __init__(self, upstreams: Upstreams, clock: Callable[[], float], fared: Fared) -> None:
        self._upstreams, self._clock, self._fared = upstreams, clock, fared
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
        endpoint, choice = self._upstreams.choose(route)
        first: float | None = None
        try:
            with self._upstreams.busy(route, endpoint, choice, lambda: 0.0):
                async with asyncio.timeout(WITHIN):
                    asked = self._clock()
                    mark = f"x-request-id: {request_id}-copy\r\n".encode()
                    answer = await self._upstreams.pool(endpoint).post(path, call.body, mark, fresh=False)
                    try:
                        seconds: float | None = None
                        while await answer.readany():
                            seconds = self._clock() - asked if seconds is None else seconds
                    finally:
                        answer.close()
                    if answer.status < 500:
                        first = seconds
        except (BrokenConnectionError, SilentError, LLMOSError, TimeoutError) as error:
            log.warning("%s: a copy failed at replica %s: %s", request_id, endpoint.attempt, error)
        self._fared(route.deployment, endpoint.revision, first)
