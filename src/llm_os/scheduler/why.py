"""Why not, in one sentence: the obstacle with its numbers, who stands in the way, and what would clear it."""

from __future__ import annotations

from llm_os.memory.ledger import Ledger, Shortage, cores
from llm_os.scheduler.snapshot import Waiting
from llm_os.spec.conditions import Reason
from llm_os.spec.placement import Placement
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
    """One sentence, such as "needs 5.1 GiB of memory, 3.0 GiB free; job-a holds the most; batch_size 8 would fit"."""
    resource = str(obstacle.details.get("resource", ""))
    parts = [obstacle.message]
    if obstacle.reason in _SHORTAGES and (names := _holders(waiting, obstacle, ledger, resource)):
        parts.append(f"held by {names}")
    if resource == "memory" and waiting.alternatives is not None:
        free = obstacle.details["free"]
        if isinstance(free, int | float) and (phrase := waiting.alternatives(int(free))):
            parts.append(phrase)
    if obstacle.reason is Reason.NEVER_FITS:
        parts.append("it can never run on this machine as it is")
    return f"{waiting.subject} " + "; ".join(parts) + "."


def why_here(waiting: Waiting, placement: Placement, before: Capacity) -> str:
    """Why it was placed: what it takes of what was free."""
    devices = f" and accelerators {list(placement.devices)}" if placement.devices else ""
    return (
        f"{waiting.subject} takes {cores(placement.cpus)}, {format_bytes(placement.memory)}{devices} of "
        f"{cores(before.cpus)}, {format_bytes(before.memory)} free on {placement.node}."
    )


def _holders(waiting: Waiting, obstacle: Shortage, ledger: Ledger, resource: str) -> str:
    of = "accelerators" if resource.startswith("accelerator") else resource
    session = waiting.session if obstacle.reason is Reason.SESSION_CAP else None
    owners = list(dict.fromkeys(holding.owner for holding in ledger.holders(of, session)))
    more = f" and {len(owners) - _NAMED} more" if len(owners) > _NAMED else ""
    return ", ".join(owners[:_NAMED]) + more
