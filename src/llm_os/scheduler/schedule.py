"""schedule(snapshot) -> Plan: who runs now, and for everything else why not. Pure: no clock, no I/O, no state."""

from __future__ import annotations

import math

from llm_os.memory.ledger import Ledger
from llm_os.scheduler.queueing import in_turn
from llm_os.scheduler.snapshot import Snapshot, Waiting
from llm_os.scheduler.why import because, refuse_backoff, refuse_shortage
from llm_os.spec.placement import Placement, Plan, Refusal, Step


def schedule(snapshot: Snapshot) -> Plan:
    """Place everything that fits, in turn; what does not fit does not hold up what does.

    The plan never needs more than is granted, for the node and for each session, whatever the order of `holdings`.
    """
    ledger = Ledger(snapshot.granted, snapshot.holdings, snapshot.caps)
    steps: list[Step] = []
    refusals: list[Refusal] = []
    for waiting in in_turn(snapshot.waiting):
        if waiting.not_before is not None and waiting.not_before > snapshot.now:
            refusals.append(refuse_backoff(waiting, snapshot.now))
            continue
        short = ledger.check(waiting.resources, waiting.session)
        if short is not None:
            refusals.append(refuse_shortage(waiting, short, ledger.holdings()))
            continue
        holding = ledger.reserve(
            f"plan:{waiting.subject}", waiting.subject, waiting.kind, waiting.session, waiting.resources
        )
        placement = Placement(
            node=snapshot.node,
            cpus=holding.cpus,
            memory=holding.memory,
            devices=holding.devices,
            threads=threads(waiting, ledger),
        )
        steps.append(
            Step(subject=waiting.subject, kind=waiting.kind, placement=placement, because=because(waiting, ledger))
        )
    return Plan(steps=tuple(steps), refusals=tuple(refusals))


def threads(waiting: Waiting, ledger: Ledger) -> int:
    """Threads a worker may run: the cores its session may use, or fewer if it wants fewer; at least one."""
    most = max(1, math.floor(ledger.granted(waiting.session).cpus))
    return most if waiting.wants_threads is None else max(1, min(most, waiting.wants_threads))
