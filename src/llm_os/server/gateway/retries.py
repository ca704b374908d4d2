"""When a request whose replica broke off is tried again, and where; knows no HTTP.

One whose replica broke off in answering it is tried once more, elsewhere if there is an elsewhere; one whose replica
cannot be reached waits for another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from llm_os.errors import DeadlineError, LLMOSError, UnavailableError
from llm_os.server.gateway.exchange import Exchange
from llm_os.server.gateway.routes import HOLD
from llm_os.server.gateway.wire import BrokenConnectionError
from llm_os.spec.routing import Endpoint, Route

TRIES = 2
"""Replicas that may break off in answering a request: it may be the request that kills them."""
AGAIN = 1.0
"""Seconds after which a replica that cannot be reached is tried again, while there is no other."""
LATE = "The answer was not complete at the request's deadline."


class Retries:
    """What one request has been through.

    Attributes:
        avoid: attempts of replicas that broke off.
        fresh: an idle connection proved stale; the next one is new.

    Args:
        clock: monotonic seconds. news: waits for the next routing table, at most so many seconds.
    """

    def __init__(
        self, exchange: Exchange, clock: Callable[[], float], news: Callable[[float], Awaitable[None]]
    ) -> None:
        self._exchange, self._clock, self._news = exchange, clock, news
        self._broke = 0
        self._gives_up: float | None = None
        self.avoid: set[str] = set()
        self.fresh = False

    async def after(self, route: Route, endpoint: Endpoint, broken: BrokenConnectionError) -> None:
        """Return when it may be tried again.

        Raises:
            UnavailableError: too many replicas broke off, or none can be reached for too long.
            DeadlineError: no replica could be reached before the request's deadline.
        """
        if broken.stale and not self.fresh:
            self.fresh = True
            return
        self._broke += broken.sent
        if self._broke == TRIES:
            raise gone(route) from broken
        self.avoid.add(endpoint.attempt)
        if not all(one.attempt in self.avoid for one in route.endpoints):
            return
        deadline = self._exchange.deadline  # there is no elsewhere yet
        if self._gives_up is None:
            self._gives_up = self._clock() + HOLD if deadline is None else deadline
        if (left := self._gives_up - self._clock()) <= 0:
            raise gone(route) if deadline is None else late() from broken
        await self._news(min(AGAIN, left))
        self.avoid.clear()


def gone(route: Route) -> LLMOSError:
    return UnavailableError(
        f"The replicas of '{route.deployment}' broke the connection before they answered.",
        hint=f"Try again in a moment; 'llm-os logs {route.deployment}' shows what they said.",
        details={"retry_after": 1},
    )


def late() -> LLMOSError:
    return DeadlineError(LATE, hint="Give it more time, or ask for a shorter answer.")
