"""A start that goes on is no start that hangs: progress of replicas is shown, and extends the limit of an update."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_os.kernel.deployments import Deployments
from llm_os.kernel.rollouts import Rollouts
from llm_os.kernel.starts import last_sign, shown
from llm_os.kernel.state import Watch
from llm_os.kernel.why import _starts
from llm_os.spec.attempts import Report
from llm_os.spec.deployments import (
    Deployment,
    DeploymentSpec,
    DeploymentState,
    Phase,
    Replica,
    Revision,
    Rollout,
    UpdatePolicy,
)
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.parity import COMPARING
from llm_os.spec.placement import Placement
from llm_os.spec.resources import ResourceSpec
from llm_os.store import rows
from llm_os.store.database import Database

WITHIN = 60.0


def watch(*reports: tuple[float, int]) -> Watch:
    """(when, step) of what a worker reported."""
    values = [{"stage": COMPARING, "step": step, "total": 1040} for _, step in reports]
    told = [Report(seq=i + 1, at=at, kind="progress", values=values[i]) for i, (at, _) in enumerate(reports)]
    return Watch(reports=told)


def state(now: float, **watches: Watch) -> Any:
    return SimpleNamespace(watches=watches, clock=SimpleNamespace(now=lambda: now))


def attempt(id: str, of: int = 1) -> Attempt:
    return Attempt(
        id=id, owner_kind="replica", owner="dep", number=of, token=of, state=AttemptState.RUNNING, revision=of,
        placement=Placement(node="local", cpus=1, memory=1), created_at=0,
    )  # fmt: skip


def deployment(**more: Any) -> Deployment:
    known: dict[str, Any] = {
        "replicas": (Replica(attempt="old", state="ready", endpoint="unix:a", engine="e"),
                     Replica(attempt="new", state="placed", endpoint=None, engine="e")),
        **more,
    }  # fmt: skip
    return Deployment(
        id="dep", spec=DeploymentSpec(name="chat", model="m@1"), version="m@1", task="t", engine="e", session=None,
        state=DeploymentState.READY, created_at=0, **known,
    )  # fmt: skip


def test_only_a_replica_that_starts_shows_how_far_it_is() -> None:
    told = state(50.0, old=watch((5.0, 1040)), new=watch((10.0, 1), (20.0, 300)))
    found = shown(told, deployment())
    assert [replica.doing for replica in found.replicas] == ["", "compared 300 of 1,040 places with PyTorch"]
    assert _starts(told, deployment()) == " A replica starts: it has compared 300 of 1,040 places with PyTorch."
    assert shown(state(50.0), deployment()) == deployment()


def test_the_newest_report_is_the_last_sign_of_life_and_none_lies_in_the_future() -> None:
    told = state(50.0, new=watch((10.0, 1), (20.0, 300)), wrong=watch((500.0, 2)))
    assert last_sign(told, [attempt("new")], 5.0) == 20.0
    assert last_sign(told, [attempt("new")], 30.0) == 30.0
    assert last_sign(told, [attempt("silent")], 5.0) == 5.0
    assert last_sign(told, [attempt("wrong")], 5.0) == 50.0, "a clock that is wrong extends nothing for ever"


@pytest.mark.parametrize(
    ("phase", "reports", "now", "kept"),
    [
        (Phase.STARTING, (), WITHIN - 1, True),
        (Phase.STARTING, (), WITHIN + 1, False),
        (Phase.STARTING, ((50.0, 1), (500.0, 900)), 500.0 + WITHIN - 1, True),
        (Phase.STARTING, ((50.0, 1), (500.0, 900)), 500.0 + WITHIN + 1, False),
        (Phase.ROLLING, ((500.0, 900),), 500.0 + WITHIN - 1, True),
        (Phase.ROLLING, ((500.0, 900),), 500.0 + WITHIN + 1, False),
    ],
)
def test_an_update_waits_for_a_version_that_is_still_compared(
    tmp_path: Path, phase: Phase, reports: tuple[tuple[float, int], ...], now: float, kept: bool
) -> None:
    revisions = [
        Revision(number=number, version=f"m@{number}", task="t", engine="e", resources=ResourceSpec(memory=1))
        for number in (1, 2)
    ]
    rollout = Rollout(
        target=revisions[1], policy=UpdatePolicy(ready_within=WITHIN), asked="m@2", phase=phase, started_at=0, since=0
    )
    database = Database(f"sqlite:///{tmp_path / 'state.db'}")
    told = SimpleNamespace(
        watches={"new": watch(*reports)}, clock=SimpleNamespace(now=lambda: now), refusals={}, database=database,
        files=SimpleNamespace(read_usage=lambda: None), pulse=SimpleNamespace(beat=lambda: None),
    )  # fmt: skip
    rollouts = Rollouts(told, Deployments(told))  # type: ignore[arg-type]
    with database.transaction() as tx:
        record = deployment(history=(revisions[0],), rollout=rollout)
        rows.add_deployment(tx, record, ResourceSpec(memory=1), private=False)
        rows.add_attempt(tx, attempt("new", of=2), None)
        rollouts.tick(tx, rows.all_deployments(tx, include_ended=False))
        found = rows.find_deployment(tx, "dep")
        assert found is not None
        assert found.deployment.rollout is not None
        assert (found.deployment.rollout.phase is Phase.ROLLED_BACK) is not kept
