"""How many replicas of which revision there shall be, and which of those that are there go. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from llm_os.spec.deployments import Deployment, DeploymentSpec, Phase
from llm_os.spec.jobs import Attempt, AttemptState


def count(deployment: Deployment) -> int:
    """Replicas that shall answer, of whatever revision."""
    return deployment.spec.replicas if deployment.wanted is None else deployment.wanted


def at_first(spec: DeploymentSpec) -> int | None:
    """Replicas that a new deployment begins with; None: those of its spec. One is started to show that it can be."""
    return None if spec.scaling is None else max(1, spec.scaling.least)


def wanted(deployment: Deployment, live: Sequence[Attempt]) -> Mapping[int, int]:
    """Replicas that there shall be, by the number of their revision.

    While replicas are replaced there is one more than shall answer: one goes when one of the new ones is ready. Where
    there is no room for one more (`tight`), one goes before the next one comes.
    """
    number, rollout = count(deployment), deployment.rollout
    if rollout is None or rollout.phase.ended:
        return {deployment.revision: number}
    new = rollout.target.number
    if rollout.phase is not Phase.ROLLING:  # what sleeps is woken for it: a version takes over that has served
        return {deployment.revision: number, new: 1}
    there = min(number, sum(a.revision == new and a.state is AttemptState.READY for a in live))
    going = there + 1 if rollout.tight and number > 1 else there  # the only one is not given away
    return {deployment.revision: max(0, number - going), new: min(number, there + 1)}


def surplus(deployment: Deployment, live: Sequence[Attempt]) -> list[Attempt]:
    """Replicas that are too many: those that are not ready yet before those that are, the newest first."""
    shall = wanted(deployment, live)
    going = Counter(attempt.revision for attempt in live if attempt.state is not AttemptState.STOPPING)
    found = []
    order = sorted(live, key=lambda attempt: (attempt.state is AttemptState.READY, -attempt.number))
    for attempt in order:
        if attempt.state is AttemptState.STOPPING or going[attempt.revision] <= shall.get(attempt.revision, 0):
            continue
        going[attempt.revision] -= 1
        found.append(attempt)
    return found
