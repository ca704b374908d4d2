"""How many replicas of which revision there are, whether a new one does well, and how many are needed."""

from hypothesis import given
from hypothesis import strategies as st

from llm_os.kernel.need import needed
from llm_os.kernel.replicas import surplus, wanted
from llm_os.kernel.verdicts import complaint
from llm_os.spec.deployments import (
    Deployment,
    DeploymentSpec,
    DeploymentState,
    Phase,
    Revision,
    Rollout,
    Scaling,
    UpdatePolicy,
)
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.placement import Placement
from llm_os.spec.resources import ResourceSpec
from llm_os.spec.routing import DeploymentUsage, RevisionUsage


def revision(number: int) -> Revision:
    return Revision(number=number, version=f"m@{number}", task="t", engine="e", resources=ResourceSpec(memory=1))


def deployment(replicas: int, phase: Phase | None = None, *, tight: bool = False) -> Deployment:
    """One that serves revision 1, and may be on its way to revision 2."""
    rollout = None
    if phase is not None:
        target, policy = revision(2), UpdatePolicy()
        rollout = Rollout(target=target, policy=policy, asked="m", phase=phase, tight=tight, started_at=0, since=0)
    spec = DeploymentSpec(name="d", model="m", replicas=replicas)
    return Deployment(
        id="dep", spec=spec, version="m@1", task="t", engine="e", session=None, state=DeploymentState.READY,
        history=(revision(1),), rollout=rollout, created_at=0,
    )  # fmt: skip


def attempt(number: int, of: int, state: AttemptState, member: int = 0) -> Attempt:
    place = Placement(node="local", cpus=1, memory=1)
    return Attempt(
        id=f"a{number}", owner_kind="replica", owner="dep", number=number, token=number, state=state,
        placement=place, revision=of, member=member, created_at=0,
    )  # fmt: skip


def test_a_version_that_is_tried_stands_beside_all_of_the_old_ones() -> None:
    assert wanted(deployment(3), []) == {(1, 0): 3}
    assert wanted(deployment(3, Phase.STARTING), []) == {(1, 0): 3, (2, 0): 1}
    assert wanted(deployment(3, Phase.CANARY), []) == {(1, 0): 3, (2, 0): 1}
    assert wanted(deployment(3, Phase.ROLLED_BACK), []) == {(1, 0): 3}


@given(st.integers(1, 5), st.booleans(), st.lists(st.sampled_from(["place", "ready", "end"]), max_size=60), st.data())
def test_a_rolling_update_never_lets_fewer_answer_than_shall(
    number: int, tight: bool, steps: list[str], data: st.DataObject
) -> None:
    """Whatever comes first: placements, readiness, or ends of those that were asked to end."""
    record = deployment(number, Phase.ROLLING, tight=tight)
    live = [attempt(n, 1, AttemptState.READY) for n in range(1, number + 1)]
    made = number
    for step in [*steps, *["place", "ready", "end"] * (3 * number)]:
        if step == "place":
            for (of, member), shall in wanted(record, live).items():
                for _ in range(sum((a.revision, a.member) == (of, member) for a in live), shall):
                    made += 1
                    live.append(attempt(made, of, AttemptState.RUNNING, member))
        elif step == "ready":
            starting = [a for a in live if a.state is AttemptState.RUNNING]
            if starting:
                chosen = starting[0] if len(starting) == 1 else data.draw(st.sampled_from(starting))
                live[live.index(chosen)] = chosen.model_copy(update={"state": AttemptState.READY})
        else:
            live = [a for a in live if a.state is not AttemptState.STOPPING]
        for gone in surplus(record, live):
            live[live.index(gone)] = gone.model_copy(update={"state": AttemptState.STOPPING})
        answering = sum(a.state is AttemptState.READY for a in live)
        assert answering >= (max(1, number - 1) if tight else number)
        assert sum(a.state is not AttemptState.STOPPING for a in live) <= number + 1
    assert [a.revision for a in live] == [2] * number


def test_what_is_not_ready_goes_before_what_is_and_the_newest_first() -> None:
    live = [attempt(1, 1, AttemptState.READY), attempt(2, 1, AttemptState.READY), attempt(3, 1, AttemptState.RUNNING)]
    assert [a.id for a in surplus(deployment(1), live)] == ["a3", "a2"]
    assert [a.id for a in surplus(deployment(2), [*live, attempt(4, 2, AttemptState.READY)])] == ["a3", "a4"]


def used(requests: int, failed: int = 0, mean: float = 0.1) -> RevisionUsage:
    well = requests - failed
    return RevisionUsage(requests=requests, failed=failed, first_bytes=well, first_byte_seconds=well * mean)


def test_a_version_is_bad_when_it_fails_more_often_or_is_much_slower() -> None:
    policy = UpdatePolicy()
    assert complaint(used(10, failed=2), used(1000), policy) is None  # two may be chance
    assert complaint(used(3, failed=3), used(1000), policy) == "3 of 3 requests failed, of the old version's 0.0%"
    assert complaint(used(1000, failed=40), used(1000), policy) is None
    assert complaint(used(1000, failed=60), used(1000), policy) is not None
    assert complaint(used(1000, failed=60), used(1000, failed=50), policy) is None  # the old one is as bad
    assert complaint(used(20, mean=0.4), used(20), policy) is not None
    assert complaint(used(19, mean=0.4), used(20), policy) is None  # too few to compare
    assert complaint(used(20, mean=0.04), used(20, mean=0.001), policy) is None  # nobody feels that


def test_replicas_follow_what_is_under_way_within_their_bounds() -> None:
    def count(busy: int, last: float, now: float, **bounds: int) -> int:
        scaling = Scaling(in_flight=4, idle_after=300, **bounds)
        return needed(scaling, now, DeploymentUsage(last_request_at=last, in_flight=busy, requests=1), 0.0)

    assert [count(busy, 100, 100, least=1, most=4) for busy in (0, 4, 5, 16, 99)] == [1, 1, 2, 4, 4]
    assert count(0, 100, 399, least=0, most=4) == 1
    assert count(0, 100, 401, least=0, most=4) == 0
    assert count(1, 100, 9999, least=0, most=4) == 1
    assert needed(Scaling(least=0, most=1), 10.0, None, 0.0) == 1
