"""Decides when a process is kept ready for the next training or evaluation; the launcher keeps it.

A spare is like a cache: nothing is charged for it, and it goes before anything is started that its memory may be
needed for. What it remembers is lost with a restart, and found again at the next start of such a task.
"""

from __future__ import annotations

from collections.abc import Callable

from llm_os.kernel.state import State
from llm_os.spec.attempts import AttemptSpec

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
