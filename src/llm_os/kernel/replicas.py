"""How many replicas of which revision and engine there shall be, and which of those that are there go. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from llm_os.spec.deployments import Deployment, DeploymentSpec, Phase, Revision
from llm_os.spec.jobs import Attempt, AttemptState

Kind = tuple[int, int]
"""Of a replica: the number of its revision, and the place of its engine there."""


def count(deployment: Deployment) -> int:
    """Replicas that shall answer, of whatever revision; of the last engine where several stand side by side."""
    return deployment.spec.replicas if deployment.wanted is None else deployment.wanted


def at_first(spec: DeploymentSpec) -> int | None:
    """Replicas that a new deployment begins with; None: those of its spec. One is started to show that it can be."""
    return None if spec.scaling is None else max(1, spec.scaling.least)


def shares(deployment: Deployment, revision: Revision | None) -> tuple[int, ...]:
    """Replicas of each engine of a revision. None: of one that was written by a release that knew one engine only."""
    return deployment.shares(1 if revision is None else 1 + len(revision.beside))


def total(deployment: Deployment) -> int:
    """Replicas that shall answer, of all engines."""
    return sum(shares(deployment, deployment.history[-1] if deployment.history else None))


def in_force(deployment: Deployment) -> tuple[int, ...]:
    """Replicas of each engine of the revision in force; none of those that are out."""
    whole = shares(deployment, deployment.history[-1] if deployment.history else None)
    out = {member for member, trouble in deployment.troubles.items() if trouble.out}
    return tuple(0 if member in out else number for member, number in enumerate(whole))


def wanted(deployment: Deployment, live: Sequence[Attempt]) -> Mapping[Kind, int]:
    """Replicas that there shall be, by revision and engine.

    While replicas are replaced there is one more than shall answer: one goes when one of the new ones is ready. Where
    there is no room for one more (`tight`), one goes before the next one comes.
    """
    rollout, old = deployment.rollout, in_force(deployment)
    if rollout is None or rollout.phase.ended:
        return _by_kind(deployment.revision, old)
    new = rollout.target.number
    if rollout.phase is not Phase.ROLLING:  # what sleeps is woken for it: a version takes over that has served
        return {**_by_kind(deployment.revision, old), (new, 0): 1}
    shall = shares(deployment, rollout.target)
    ready = _ready(new, shall, live)
    old_turns, new_turns = _turns(old), _turns(shall)
    there = sum(ready)
    going = there + 1 if rollout.tight and len(old_turns) > 1 else there  # the only one is not given away
    kept = Counter(() if there >= len(new_turns) else old_turns[going:])
    coming = Counter(dict(enumerate(ready)))
    for member in new_turns:
        if coming[member] < new_turns.count(member):
            coming[member] += 1
            break
    return {
        **{(deployment.revision, member): kept[member] for member in range(len(old))},
        **{(new, member): coming[member] for member in range(len(shall))},
    }


def replaced(deployment: Deployment, live: Sequence[Attempt]) -> bool:
    """Whether a rolling update is through: all of the new ones answer, and none of the old ones is left."""
    rollout = deployment.rollout
    if rollout is None or any(attempt.revision == deployment.revision for attempt in live):
        return False
    shall = shares(deployment, rollout.target)
    return _ready(rollout.target.number, shall, live) == shall


def surplus(deployment: Deployment, live: Sequence[Attempt]) -> list[Attempt]:
    """Replicas that are too many: those that are not ready yet before those that are, the newest first."""
    shall = wanted(deployment, live)
    going = Counter(kind_of(attempt) for attempt in live if attempt.state is not AttemptState.STOPPING)
    found = []
    order = sorted(live, key=lambda attempt: (attempt.state is AttemptState.READY, -attempt.number))
    for attempt in order:
        kind = kind_of(attempt)
        if attempt.state is AttemptState.STOPPING or going[kind] <= shall.get(kind, 0):
            continue
        going[kind] -= 1
        found.append(attempt)
    return found


def kind_of(attempt: Attempt) -> Kind:
    return attempt.revision, attempt.member


def _by_kind(revision: int, numbers: Sequence[int]) -> dict[Kind, int]:
    return {(revision, member): number for member, number in enumerate(numbers)}


def _turns(numbers: Sequence[int]) -> list[int]:
    """In which order replicas are replaced: one of each engine, then the next one of each."""
    return [member for turn in range(max(numbers, default=0)) for member, number in enumerate(numbers) if number > turn]


def _ready(revision: int, shall: Sequence[int], live: Sequence[Attempt]) -> tuple[int, ...]:
    """Replicas of each engine that answer, those that are too many left out."""
    kinds = Counter(kind_of(attempt) for attempt in live if attempt.state is AttemptState.READY)
    return tuple(min(number, kinds[revision, member]) for member, number in enumerate(shall))
