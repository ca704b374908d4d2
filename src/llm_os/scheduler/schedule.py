"""Decides who runs where and when, and for everything else says why not. Pure: no I/O, no clock, no SQL."""

from __future__ import annotations

import math

from llm_os.memory.ledger import Ledger
from llm_os.scheduler.filters import first_obstacle
from llm_os.scheduler.queueing import in_turn
from llm_os.scheduler.snapshot import Snapshot, Waiting
from llm_os.scheduler.why import why_here, why_not
from llm_os.spec.placement import Placement, Plan, Refusal, Step
from llm_os.spec.resources import Holding


def schedule(snapshot: Snapshot) -> Plan:
    """A step for each waiting subject that fits, a refusal for each that does not.

    `queueing.in_turn` says who goes first. Whatever fits is placed, also past a larger subject that does not (see
    DESIGN.md for the price). Equal snapshots give equal plans, in whatever order their parts come. Steps are in the
    order in which they were decided; each fits beside the holdings and all steps before it.
    """
    ledger = Ledger(snapshot.granted, snapshot.holdings, snapshot.caps)
    steps: list[Step] = []
    refusals: list[Refusal] = []
    for waiting in in_turn(snapshot.waiting):
        obstacle = first_obstacle(waiting, ledger, snapshot.now)
        if obstacle is None:
            steps.append(_place(waiting, ledger, snapshot))
            continue
        refusals.append(
            Refusal(
                subject=waiting.subject,
                kind=waiting.kind,
                reason=obstacle.reason,
                message=why_not(waiting, obstacle, ledger),
                details=obstacle.details,
            )
        )
    return Plan(steps=tuple(steps), refusals=tuple(refusals))


def _place(waiting: Waiting, ledger: Ledger, snapshot: Snapshot) -> Step:
    held = ledger.reserve(f"plan/{waiting.subject}", waiting.subject, waiting.kind, waiting.session, waiting.resources)
    placement = _placement(waiting, held, ledger, snapshot.node)
    because = why_here(ledger.free(waiting.session))
    return Step(subject=waiting.subject, kind=waiting.kind, placement=placement, because=because)


def _placement(waiting: Waiting, held: Holding, ledger: Ledger, node: str) -> Placement:
    most = max(1, math.floor(ledger.granted(waiting.session).cpus))
    threads = most if waiting.wants_threads is None else max(1, min(most, waiting.wants_threads))
    return Placement(node=node, cpus=held.cpus, memory=held.memory, devices=held.devices, threads=threads)
