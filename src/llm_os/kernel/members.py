"""Engines of a deployment that stand side by side: one may be in trouble while the others serve. Pure; no engine here.

Where a deployment has one engine, its trouble is the deployment's own (`rows.DeploymentRow`). Where it has several,
each has its own in the record (`Deployment.troubles`), and only when none serves and none may yet, it is given up.
"""

from __future__ import annotations

from collections.abc import Mapping

from llm_os.kernel.outcomes import End, Outcome
from llm_os.kernel.replicas import in_force
from llm_os.kernel.revisions import member
from llm_os.spec.base import Json
from llm_os.spec.conditions import Reason
from llm_os.spec.deployments import Deployment, Trouble
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.placement import Refusal
from llm_os.store import rows

MOST_WAIT = 300.0
"""Seconds between two tries of an engine whose replicas die again and again."""


def several(deployment: Deployment) -> bool:
    """Whether the revision in force has more than one engine."""
    return bool(deployment.history and deployment.history[-1].beside)


def not_before(row: rows.DeploymentRow, place: int) -> float | None:
    """When a replica of this engine may be started, of the revision in force."""
    if not several(row.deployment):
        return row.not_before
    trouble = row.deployment.troubles.get(place)
    return trouble.not_before if trouble is not None else None


def failures(row: rows.DeploymentRow, place: int) -> int:
    """Replicas of this engine that ended unasked, one after the other."""
    if not several(row.deployment):
        return row.failures
    trouble = row.deployment.troubles.get(place)
    return trouble.failures if trouble is not None else 0


def trouble_of(known: Trouble | None, outcome: Outcome, now: float, jitter: float, *, steady: bool) -> Trouble:
    """What follows for an engine from the end of one of its replicas.

    Args:
        steady: it had served for a while. jitter: in [0, 1).
    """
    number = 1 if steady or known is None else known.failures + 1
    wait = min(MOST_WAIT, 0.5 * 2**number) * (1 + 0.2 * jitter)
    return Trouble(
        failures=number, not_before=now + wait, out=outcome.end is End.USER_ERROR, message=outcome.message.rstrip(".")
    )


def with_trouble(deployment: Deployment, place: int, trouble: Trouble) -> Deployment:
    return deployment.model_copy(update={"troubles": {**deployment.troubles, place: trouble}})


def hopeless(deployment: Deployment, most: int) -> bool:
    """Whether every engine is out, or has died so often."""
    troubles: Mapping[int, Trouble] = deployment.troubles
    numbers = range(len(deployment.history[-1].members))
    return all((known := troubles.get(n)) is not None and (known.out or known.failures >= most) for n in numbers)


def told_with_others(deployment: Deployment, place: int, error: Mapping[str, Json]) -> dict[str, Json]:
    """The error that ends a deployment, with what befell its other engines before."""
    members = deployment.history[-1].members
    others = [
        f"{members[number].engine}: {trouble.message}." for number, trouble in sorted(deployment.troubles.items())
        if number != place
    ]  # fmt: skip
    hint = " ".join(part for part in (str(error.get("hint") or ""), *others) if part)
    return {**error, "message": f"{members[place].engine}: {error.get('message')}", "hint": hint}


def engine_phrase(row: rows.DeploymentRow, attempt: Attempt) -> str:
    """` with llamacpp`, where others stand beside; else nothing."""
    rollout = row.deployment.rollout
    mixed = several(row.deployment) or (rollout is not None and bool(rollout.target.beside))
    return f" with {member(row, attempt).engine}" if mixed else ""


def shortfall(deployment: Deployment, live: Mapping[int, AttemptState], refusal: Refusal | None) -> str:
    """Which engines of several do not answer though they shall, and why, for people; empty: all do.

    Args:
        live: the best state of the replicas of each engine. refusal: why a replica is not placed.
    """
    if not several(deployment):
        return ""
    lacks = refusal if refusal is not None and refusal.reason is not Reason.RETRY_BACKOFF else None
    waits = _place_of(lacks) if lacks is not None else None
    parts = []
    for place, one in enumerate(deployment.history[-1].members):
        trouble = deployment.troubles.get(place)
        if live.get(place) is AttemptState.READY:
            continue
        if trouble is not None and trouble.out:
            parts.append(f"{one.engine} does not serve it: {trouble.message}")
        elif lacks is not None and place not in live and waits == (deployment.revision, place):
            parts.append(f"{one.engine} waits: {lacks.message[:1].lower()}{lacks.message[1:].rstrip('.')}")
        elif trouble is not None:
            parts.append(f"{one.engine} is started again, {trouble.failures} of its replicas ended: {trouble.message}")
        elif in_force(deployment)[place]:
            parts.append(f"{one.engine} is starting")
    return "; ".join(parts)


def _place_of(refusal: Refusal) -> tuple[int, int] | None:
    """Revision and engine of the replica that was not placed."""
    parts = refusal.subject.split("/")
    return (int(parts[1]), int(parts[3])) if len(parts) == 4 else None
