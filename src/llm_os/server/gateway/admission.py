"""How many requests a deployment takes at once: a bound, and an honest answer beyond it; knows no HTTP."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llm_os.errors import OverloadedError
from llm_os.spec.routing import Route

_SMOOTHING = 0.2
"""Weight of the newest duration in the running mean."""
_LONGEST_WAIT = 30
"""Seconds: nobody is sent away for longer."""


class Admission:
    """Bounded concurrency for each deployment.

    Args:
        per_replica: requests that one ready replica may have in flight; engines batch them inside.
        clock: monotonic seconds.
    """

    def __init__(self, per_replica: int, clock: Callable[[], float]) -> None:
        self._per_replica = per_replica
        self._clock = clock
        self._in_flight: Counter[str] = Counter()
        self._duration: dict[str, float] = {}

    @contextmanager
    def slot(self, route: Route) -> Iterator[None]:
        """Hold a slot of the deployment while a request runs.

        Raises:
            OverloadedError: all slots are taken; `retry_after` (seconds) is when one should be free.
        """
        name = route.deployment
        limit = self._per_replica * len(route.endpoints)
        if self._in_flight[name] >= limit:
            seconds = self._free_in(name, limit)
            raise OverloadedError(
                f"The deployment '{name}' has {limit} requests in flight, which is its limit.",
                hint=f"Try again in {seconds} s, or deploy more replicas.",
                details={"param": "model", "retry_after": seconds, "limit": limit},
            )
        self._in_flight[name] += 1
        begun = self._clock()
        try:
            yield
        finally:
            self._in_flight[name] -= 1
            self._learn(name, self._clock() - begun)

    def _learn(self, name: str, seconds: float) -> None:
        before = self._duration.get(name, seconds)
        self._duration[name] = before + _SMOOTHING * (seconds - before)
        if not self._in_flight[name]:
            del self._in_flight[name]

    def _free_in(self, name: str, limit: int) -> int:
        # With `limit` requests under way, one ends every mean duration / limit seconds.
        return min(_LONGEST_WAIT, max(1, math.ceil(self._duration.get(name, 1.0) / limit)))
