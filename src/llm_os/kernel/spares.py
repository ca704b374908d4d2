"""Decides when a process is kept ready for the next training or evaluation, or gateway; the launcher keeps it.

A spare is like a cache: nothing is charged for it, and it goes before anything is started that its memory may be
needed for. What it remembers is lost with a restart, and found again at the next start of such a task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llm_os.kernel.attempts import GATEWAY, GATEWAY_PLACEMENT
from llm_os.kernel.state import State
from llm_os.spec.attempts import AttemptSpec
from llm_os.spec.jobs import Attempt, AttemptState

MEMORY = 2**30
"""Bytes that must be free beside everything placed; torch and transformers take about half of it."""
AFTER = 10.0
"""Seconds after the start of an attempt: its own loading is over then, and is not slowed down."""


class Spares:
    def __init__(self, state: State) -> None:
        self._state = state
        self._like: AttemptSpec | None = None
        """What the newest attempt was that a spare could have served."""
        self._seen_at = 0.0
        self._kept = False

    def started(self, spec: AttemptSpec) -> None:
        """An attempt is about to start; the spare that fits it is used up."""
        if spec.preload:
            self._like, self._seen_at, self._kept = spec, self._state.clock.now(), False

    async def tick(self, live: set[str], free: Callable[[], int]) -> None:
        """Keep one, or let go of it.

        Args:
            live: attempts that are not known to be dead.
            free: bytes that are granted and held by nobody; asked for only when it matters.
        """
        like, now, stays = self._like, self._state.clock.now(), self._state.settings.spare_for
        if like is None or not stays:
            return
        if like.attempt in live:
            if not self._kept and now - self._seen_at < AFTER:
                return
            self._seen_at = max(self._seen_at, now - AFTER)
        recent = now - self._seen_at < stays + AFTER and not self._state.stopping
        wanted = recent and free() >= MEMORY
        if wanted != self._kept:
            await self._state.launcher.prepare(like if wanted else None)
            self._kept = wanted


STEADY = 5.0
"""Seconds that a gateway has answered before one stands by for it: what starts with a kernel is started before."""
AGAIN = 60.0
"""Seconds between looks at the one that stands by: should it have died, another one takes its place."""


class Standby:
    """A gateway that has loaded all it needs, and knows no home, table or port until it takes over.

    The kernel hands it the place of a gateway that is dead and gone, as it would start a new one: there are never two.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._ready_at: dict[str, float] = {}
        self._kept_for: str | None = None
        """The gateway that one was kept for when this was looked at last."""
        self._looked_at = float("-inf")

    async def tick(
        self, live: Sequence[Attempt], stays: bool, like: Callable[[Attempt], AttemptSpec], free: Callable[[], int]
    ) -> None:
        """Keep one, or let go of it.

        Args:
            stays: whether this home is to serve longer than a session lasts.
            like: what the next gateway would be given, but its name.
            free: bytes that are granted and held by nobody; asked for only when it matters.
        """
        now, state = self._state.clock.now(), self._state
        ready = next((one for one in live if one.owner == GATEWAY and one.state is AttemptState.READY), None)
        if ready is None and not state.stopping:
            return  # it has just been given away, or nobody knows yet whether a gateway can run here
        self._ready_at = {ready.id: self._ready_at.get(ready.id, now)} if ready is not None else {}
        wanted = ready is not None and stays and not state.stopping and state.settings.spare_for > 0
        if not wanted or ready is None or free() < GATEWAY_PLACEMENT.memory:
            if self._kept_for is not None:
                self._kept_for = None
                await state.launcher.prepare(None, GATEWAY)
            return
        if now - self._ready_at[ready.id] < STEADY:
            return
        if self._kept_for != ready.id or now - self._looked_at >= AGAIN:
            self._kept_for, self._looked_at = ready.id, now
            await state.launcher.prepare(like(ready), GATEWAY)
