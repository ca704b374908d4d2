"""Why not, in one sentence: the obstacle with its numbers, who stands in the way, and what would clear it."""

from __future__ import annotations

from llm_os.memory.ledger import Ledger, Shortage, cores
from llm_os.scheduler.snapshot import Waiting
from llm_os.spec.conditions import Reason
from llm_os.spec.resources import Capacity
from llm_os.spec.units import format_bytes

_SHORTAGES = {
    Reason.NOT_ENOUGH_CPU,
    Reason.NOT_ENOUGH_MEMORY,
    Reason.NOT_ENOUGH_ACCELERATORS,
    Reason.NOT_ENOUGH_ACCELERATOR_MEMORY,
    Reason.SESSION_CAP,
}
_NAMED = 3
"""Holders named in a sentence; more would bury the message."""


def why_not(waiting: Waiting, obstacle: Shortage, ledger: Ledger) -> str:
    """One sentence: "Needs 5.1 GiB of memory, 3.0 GiB free; held by job-a, chat; it starts when enough of it ends."."""
    parts = [obstacle.message[0].upper() + obstacle.message[1:]]
    if obstacle.reason is Reason.NEVER_FITS:
        parts.append("it can never run on this machine as it is")
    elif obstacle.reason in _SHORTAGES and (names := _holders(waiting, obstacle, ledger)):
        parts.append(f"held by {names}; it starts when enough of it ends")
    return "; ".join(parts) + "."


def why_here(after: Capacity) -> str:
    """Why it was placed, a phrase: what stays free."""
    return f"fits; {cores(after.cpus)} and {format_bytes(after.memory)} stay free"


def _holders(waiting: Waiting, obstacle: Shortage, ledger: Ledger) -> str:
    resource = str(obstacle.details.get("resource", ""))
    of = "accelerators" if resource.startswith("accelerator") else resource
    session = waiting.session if obstacle.reason is Reason.SESSION_CAP else None
    owners = list(dict.fromkeys(holding.owner for holding in ledger.holders(of, session)))
    more = f" and {len(owners) - _NAMED} more" if len(owners) > _NAMED else ""
    return ", ".join(owners[:_NAMED]) + more
