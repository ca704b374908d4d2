"""Can it run there, now? Each filter answers None, or an obstacle with reason and numbers. Knows no other subjects."""

from __future__ import annotations

from llm_os.memory.ledger import Ledger, Shortage
from llm_os.scheduler.snapshot import Waiting
from llm_os.spec.conditions import Reason


def first_obstacle(waiting: Waiting, ledger: Ledger, now: float) -> Shortage | None:
    """The first filter's answer that is no yes, the one that people read; None: it can run now."""
    return is_due(waiting, now) or has_room(waiting, ledger)


def is_due(waiting: Waiting, now: float) -> Shortage | None:
    """A retry waits until its back-off has passed."""
    if waiting.not_before is None or waiting.not_before <= now:
        return None
    seconds = waiting.not_before - now
    return Shortage(
        Reason.RETRY_BACKOFF, f"waits {seconds:.1f} s before it is tried again", {"seconds": round(seconds, 3)}
    )


def has_room(waiting: Waiting, ledger: Ledger) -> Shortage | None:
    """Cores, memory and accelerators: inside the grant, the session's caps and what is free."""
    return ledger.check(waiting.resources, waiting.session)
