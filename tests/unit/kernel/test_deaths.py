"""What a dead replica means for its deployment: as little as possible while anything serves, or may."""

from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from llm_os.kernel.deployments import Deployments
from llm_os.kernel.outcomes import End, Outcome
from llm_os.kernel.rollouts import Rollouts
from llm_os.spec.deployments import (
    Deployment,
    DeploymentSpec,
    DeploymentState,
    Phase,
    Revision,
    Rollout,
    UpdatePolicy,
)
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.placement import Placement
from llm_os.spec.resources import ResourceSpec
from llm_os.spec.routing import DeploymentUsage, GatewayUsage, RevisionUsage
from llm_os.store import rows
from llm_os.store.database import Database

HOPELESS = Outcome(End.USER_ERROR, "it says something else than the reference")


def revision(number: int) -> Revision:
    return Revision(number=number, version=f"m@{number}", task="t", engine="e", resources=ResourceSpec(memory=1))


def attempt(number: int, state: AttemptState, of: int = 1) -> Attempt:
    return Attempt(
        id=f"a{number}", owner_kind="replica", owner="dep", number=number, token=number, state=state, revision=of,
        placement=Placement(node="local", cpus=1, memory=1), created_at=0,
    )  # fmt: skip


def after_a_death(folder: Path, alive: list[Attempt], dead: Attempt, **more: Any) -> Deployment:
    """The deployment after this replica ended hopelessly, as the observer tells it."""
    state: Any = SimpleNamespace(
        database=Database(f"sqlite:///{folder / 'state.db'}"),
        clock=SimpleNamespace(now=lambda: 100.0),
        random=Random(1),
        pulse=SimpleNamespace(beat=lambda: None),
    )
    deployments = Deployments(state)
    rollouts = Rollouts(state, deployments)
    known: dict[str, Any] = {"version": "m@1", "history": (revision(1),), **more}
    spec = DeploymentSpec(name="chat", model="m@1", replicas=2)
    record = Deployment(
        id="dep", spec=spec, task="t", engine="e", session=None, state=DeploymentState.READY, created_at=0, **known
    )
    with state.database.transaction() as tx:
        rows.add_deployment(tx, record, ResourceSpec(memory=1), private=False)
        for one in alive:
            rows.add_attempt(tx, one, None)
        if not rollouts.attempt_ended(tx, dead, HOPELESS, []):
            deployments.attempt_ended(tx, dead, HOPELESS, [])
        return deployments.get(tx, "dep").deployment


def an_update(phase: Phase) -> Rollout:
    return Rollout(target=revision(2), policy=UpdatePolicy(), asked="m@2", phase=phase, started_at=99, since=99)


DEAD = attempt(9, AttemptState.ENDED)


@pytest.mark.parametrize(("other", "ends"), [(AttemptState.READY, False), (AttemptState.RUNNING, True)])
def test_a_deployment_ends_by_a_hopeless_replica_only_where_no_other_serves(
    tmp_path: Path, other: AttemptState, ends: bool
) -> None:
    found = after_a_death(tmp_path, [attempt(1, other)], DEAD)
    assert (found.state is DeploymentState.STOPPING) is ends


def test_a_version_that_dies_while_the_next_one_is_on_its_way_does_not_end_it(tmp_path: Path) -> None:
    found = after_a_death(tmp_path, [], DEAD, rollout=an_update(Phase.STARTING))
    assert found.state is not DeploymentState.STOPPING
    assert found.updating


def test_a_version_that_dies_soon_after_it_took_over_is_left_for_the_one_before(tmp_path: Path) -> None:
    fresh = {"version": "m@2", "revision": 2, "history": (revision(1), revision(2)), "rollout": an_update(Phase.DONE)}
    found = after_a_death(tmp_path, [], attempt(9, AttemptState.ENDED, of=2), **fresh)
    assert found.rollout is not None
    assert (found.rollout.returns, found.rollout.target.version, found.refused) == (True, "m@1", "m@2")


def test_the_next_version_that_cannot_start_is_taken_back(tmp_path: Path) -> None:
    dead = attempt(9, AttemptState.ENDED, of=2)
    found = after_a_death(tmp_path, [attempt(1, AttemptState.READY)], dead, rollout=an_update(Phase.STARTING))
    assert found.rollout is not None
    assert (found.rollout.phase, found.version) == (Phase.ROLLED_BACK, "m@1")
    assert "something else than the reference" in found.rollout.message


@pytest.mark.parametrize(
    ("asked", "waited", "phase"), [(5, 99, Phase.ROLLED_BACK), (5, 20, Phase.CANARY), (0, 20, Phase.ROLLING)]
)
def test_a_version_that_is_asked_and_never_answers_does_not_take_over(
    tmp_path: Path, asked: int, waited: float, phase: Phase
) -> None:
    counted = DeploymentUsage(
        last_request_at=1, in_flight=asked, requests=asked, revisions={2: RevisionUsage(asked=asked)}
    )
    usage = GatewayUsage(written_at=1, deployments={"chat": counted})
    state: Any = SimpleNamespace(
        database=Database(f"sqlite:///{tmp_path / 'state.db'}"),
        clock=SimpleNamespace(now=lambda: 99 + waited),
        files=SimpleNamespace(read_usage=lambda: usage),
        refusals={},
        watches={},
    )
    deployments = Deployments(state)
    spec = DeploymentSpec(name="chat", model="m@1")
    record = Deployment(
        id="dep", spec=spec, version="m@1", task="t", engine="e", session=None, state=DeploymentState.READY,
        history=(revision(1),), rollout=an_update(Phase.CANARY), created_at=0,
    )  # fmt: skip
    with state.database.transaction() as tx:
        rows.add_deployment(tx, record, ResourceSpec(memory=1), private=False)
        for one in (attempt(1, AttemptState.READY), attempt(2, AttemptState.READY, of=2)):
            rows.add_attempt(tx, one, None)
        state.files.write_control = lambda *_: None
        Rollouts(state, deployments).tick(tx, rows.all_deployments(tx, include_ended=False))
        found = deployments.get(tx, "dep").deployment.rollout
    assert found is not None
    assert found.phase is phase
