"""How far replicas that start have come, as their workers report it; judges nothing and touches no process.

A start that goes on is no start that hangs: whoever waits for a replica counts from the newest sign of life.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llm_os.kernel.state import State
from llm_os.spec.base import Json
from llm_os.spec.deployments import Deployment
from llm_os.spec.jobs import Attempt, AttemptState

_STARTING = frozenset({AttemptState.PLACED.value, AttemptState.RUNNING.value})
"""What a deployment's record says of a replica that is not ready: it is not written anew when a process begins."""


def progress(state: State, attempt: str) -> Mapping[str, Json]:
    """The newest report of how far an attempt has come, with `at` in seconds since the epoch; empty: it told none."""
    watch = state.watches.get(attempt)
    report = watch.newest("progress") if watch is not None else None
    return {} if report is None else {**report.values, "at": report.at}


def shown(state: State, deployment: Deployment) -> Deployment:
    """The deployment, with the progress of replicas that start. Records are not rewritten for it."""
    replicas = tuple(
        replica.model_copy(update={"progress": told})
        if replica.state in _STARTING and (told := progress(state, replica.attempt))
        else replica
        for replica in deployment.replicas
    )
    return deployment if replicas == deployment.replicas else deployment.model_copy(update={"replicas": replicas})


def last_sign(state: State, attempts: Iterable[Attempt], otherwise: float) -> float:
    """When one of these attempts came a step further, or `otherwise` if that is later; never in the future."""
    told = [progress(state, attempt.id).get("at") for attempt in attempts]
    newest = max((float(at) for at in told if isinstance(at, int | float)), default=otherwise)
    return max(otherwise, min(newest, state.clock.now()))
