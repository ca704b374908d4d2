"""When a request goes to its replicas: at once, after a fair wait in a bounded queue, or not at all; knows no HTTP."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from llm_os.errors import DeadlineError, OverloadedError
from llm_os.server.gateway.fairness import FairQueue, Place, place_of
from llm_os.spec.quotas import Priority
from llm_os.spec.routing import Route, RoutingTable

_SMOOTHING = 0.2
"""Weight of the newest duration in the running mean."""
_LONGEST_WAIT = 30
"""Seconds: nobody is sent away for longer."""
TOGETHER = 16
"""Answers to one request that an engine works on at once (`workers.server`)."""
WAITING = 4
"""So many times what its replicas take at once may wait for a deployment."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and how.

    Attributes:
        share: weight of the tenant.
        estimate: tokens of prompt and answer, as far as they can be guessed.
        deadline: monotonic seconds by which the answer must have come; None: no deadline.
        answers: how many are asked for; an engine works on each, on TOGETHER of a request at once.
    """

    tenant: str = "default"
    share: float = 1.0
    priority: Priority = Priority.STANDARD
    estimate: float = 0.0
    deadline: float | None = None
    answers: int = 1

    @property
    def weight(self) -> int:
        """Slots that it takes."""
        return min(self.answers, TOGETHER)

    @property
    def place(self) -> Place:
        """Where it waits."""
        return place_of(self.tenant, self.priority)


@dataclass(slots=True)
class Slot:
    """A place at the replicas.

    Attributes:
        waited: seconds in the queue.
        tokens: of prompt and answer, once they are known; else the estimate counts.
    """

    waited: float = 0.0
    tokens: float | None = None


@dataclass(slots=True, eq=False)
class _Ticket:
    turn: asyncio.Future[None]
    asker: Asker


@dataclass(slots=True)
class _Line:
    """One deployment."""

    limit: int = 0
    running: int = 0
    duration: float | None = None
    queue: FairQueue[_Ticket] = field(default_factory=FairQueue)


class Admission:
    """Bounded concurrency and a bounded, fair queue for each deployment.

    Args:
        per_replica: requests that one ready replica gets at once; engines batch them inside.
        clock: monotonic seconds.
    """

    def __init__(self, per_replica: int, clock: Callable[[], float]) -> None:
        self._per_replica = per_replica
        self._clock = clock
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def slot(self, route: Route, asker: Asker) -> AsyncIterator[Slot]:
        """Hold a slot of the deployment while a request runs; waits for it where others are before.

        Raises:
            OverloadedError: as many wait as may; `retry_after` (seconds) is when one should have gone.
            DeadlineError: the deadline came first.
        """
        line = self._lines.setdefault(route.deployment, _Line())
        self._resize(line, route)
        slot, arrived = Slot(), self._clock()
        line.queue.enter(asker.place)
        try:
            if line.running < line.limit and not len(line.queue):
                self._start(line, asker)
            else:
                await self._wait(route, line, asker)
            begun = self._clock()
            slot.waited = begun - arrived
            try:
                yield slot
            finally:
                self._end(line, asker, slot, self._clock() - begun)
        finally:
            line.queue.leave(asker.place)

    def waiting(self, deployment: str) -> int:
        """Requests that wait for this deployment."""
        line = self._lines.get(deployment)
        return 0 if line is None else len(line.queue)

    def slots(self, route: Route) -> int:
        """Requests that the ready replicas of this deployment take at once."""
        canary = route.canary  # a version that is only tried takes few of those who wait
        proven = sum(canary is None or one.revision != canary.revision for one in route.endpoints)
        return self._per_replica * (proven or len(route.endpoints))

    def changed(self, table: RoutingTable) -> None:
        """There is a new routing table: new replicas take in those who wait."""
        for route in table.routes:
            if route.endpoints and (line := self._lines.get(route.deployment)) is not None:
                self._resize(line, route)

    def forget(self, served: set[str]) -> None:
        """Drop what is known of deployments that are gone and idle."""
        for name in [n for n, line in self._lines.items() if n not in served and not line.running]:
            if not len(self._lines[name].queue):
                del self._lines[name]

    def _resize(self, line: _Line, route: Route) -> None:
        line.limit = self.slots(route)
        self._pump(line)

    def _start(self, line: _Line, asker: Asker) -> None:
        line.running += asker.weight
        line.queue.begin(asker.place, asker.estimate / asker.share)

    def _end(self, line: _Line, asker: Asker, slot: Slot, seconds: float) -> None:
        line.running -= asker.weight
        before = seconds if line.duration is None else line.duration
        line.duration = before + _SMOOTHING * (seconds - before)
        if slot.tokens is not None:
            line.queue.settle(asker.place, (slot.tokens - asker.estimate) / asker.share)
        self._pump(line)

    def _pump(self, line: _Line) -> None:
        while line.running < line.limit and len(line.queue):
            ticket = line.queue.pop(self._clock())
            if ticket.turn.done():  # its caller has just left, and has not run since
                continue
            self._start(line, ticket.asker)
            ticket.turn.set_result(None)

    async def _wait(self, route: Route, line: _Line, asker: Asker) -> None:
        if len(line.queue) >= WAITING * line.limit:
            victim = line.queue.shed(asker.place)
            if victim is None:
                raise self._full(route.deployment, line)
            if not victim.turn.done():
                victim.turn.set_exception(self._full(route.deployment, line))
        ticket = _Ticket(asyncio.get_running_loop().create_future(), asker)
        line.queue.push(asker.place, ticket, self._clock())
        try:
            left = None if asker.deadline is None else max(0.0, asker.deadline - self._clock())
            async with asyncio.timeout(left):
                await ticket.turn
        except BaseException as error:
            waited = line.queue.discard(asker.place, ticket)
            turn = ticket.turn
            if not waited and turn.done() and not turn.cancelled() and turn.exception() is None:
                line.running -= asker.weight  # its turn came in the same moment: the next one has it
                line.queue.settle(asker.place, -asker.estimate / asker.share)
                self._pump(line)
            if isinstance(error, TimeoutError):
                raise DeadlineError(
                    f"The deadline came while the request waited for '{route.deployment}'.",
                    hint="Give it more time, a more urgent class, or deploy more replicas.",
                ) from error
            raise

    def _full(self, name: str, line: _Line) -> OverloadedError:
        # With `limit` requests under way, one ends every mean duration / limit seconds.
        seconds = min(_LONGEST_WAIT, max(1, math.ceil((line.duration or 1.0) / max(1, line.limit))))
        return OverloadedError(
            f"The deployment '{name}' has {line.running} requests in flight and {len(line.queue)} waiting, "
            "which is its limit.",
            hint=f"Try again in {seconds} s, or deploy more replicas.",
            details={"param": "model", "retry_after": seconds, "limit": line.limit + WAITING * line.limit},
        )
