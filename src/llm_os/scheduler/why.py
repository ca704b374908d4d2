"""Why not, one sentence per obstacle, with what would clear it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llm_os.memory.ledger import Ledger, Shortage, held_memory
from llm_os.scheduler.snapshot import Waiting
from llm_os.spec.conditions import Reason
from llm_os.spec.placement import Refusal
from llm_os.spec.resources import Holding
from llm_os.spec.units import format_bytes, format_duration


def refuse_backoff(waiting: Waiting, now: float) -> Refusal:
    rest = max(0.0, (waiting.not_before or now) - now)
    return Refusal(
        subject=waiting.subject,
        kind=waiting.kind,
        reason=Reason.RETRY_BACKOFF,
        message=f"Waits {format_duration(rest)} before it is tried again.",
        details={"seconds": rest},
    )


def refuse_shortage(waiting: Waiting, short: Shortage, holdings: Sequence[Holding]) -> Refusal:
    """Names the largest holder of what is short, because its end would clear the obstacle."""
    text = short.message[0].upper() + short.message[1:]
    if short.reason is Reason.NEVER_FITS:
        text += "; it can never run here as it is."
    else:
        text += _held_by(short.reason, holdings)
    return Refusal(
        subject=waiting.subject, kind=waiting.kind, reason=short.reason, message=text, details=dict(short.details)
    )


def because(waiting: Waiting, ledger: Ledger) -> str:
    """Why a step was taken: what it got and what is left."""
    free = ledger.free(waiting.session)
    return f"fits; {format_bytes(free.memory)} and {free.cpus:g} CPUs stay free"


def _held_by(reason: Reason, holdings: Sequence[Holding]) -> str:
    def size(holding: Holding) -> float:
        if reason is Reason.NOT_ENOUGH_MEMORY:
            return held_memory(holding)
        return holding.cpus if reason is Reason.NOT_ENOUGH_CPU else len(holding.devices)

    most = max(holdings, key=lambda holding: (size(holding), holding.attempt), default=None)
    if most is None or not size(most):
        return "."
    shown = {
        Reason.NOT_ENOUGH_MEMORY: format_bytes(held_memory(most)),
        Reason.NOT_ENOUGH_CPU: f"{most.cpus:g} CPUs",
    }.get(reason, f"{len(most.devices)} accelerators")
    return f"; {most.owner} holds {shown}, and this starts when enough of it ends."
