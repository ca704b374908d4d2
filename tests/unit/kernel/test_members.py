"""Engines of a deployment side by side: how many replicas of each, what their deaths mean, and what is told of them."""

from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_os.errors import CapacityError, InvalidOptionError, NotFoundError
from llm_os.kernel.deployments import MOST_FAILURES, Deployments
from llm_os.kernel.members import MOST_WAIT, hopeless, not_before, shortfall, trouble_of
from llm_os.kernel.outcomes import End, Outcome
from llm_os.kernel.planner import _one_of_each
from llm_os.kernel.replicas import in_force, replaced, shares, surplus, total, wanted
from llm_os.kernel.revisions import fitted, planned, settled, without_foreign_key
from llm_os.kernel.rollouts import Rollouts
from llm_os.kernel.routing import routing_table
from llm_os.kernel.scaling import Scales, _ready
from llm_os.kernel.updates import _asked
from llm_os.memory.ledger import Ledger
from llm_os.spec.api import ScaleDeployment, UpdateDeployment
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.calibration import Member, Speed
from llm_os.spec.conditions import Reason
from llm_os.spec.deployments import (
    Deployment,
    DeploymentSpec,
    DeploymentState,
    Phase,
    Revision,
    RevisionMember,
    Rollout,
    Scaling,
    Trouble,
    UpdatePolicy,
)
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.models import ModelVersion
from llm_os.spec.parity import Parity, Share
from llm_os.spec.placement import Placement, Refusal
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.store import rows
from llm_os.store.database import Database
from llm_os.testing.simulated import OtherEngine, SimulatedEngine

GIB = 2**30


def revision(number: int, engines: int = 2) -> Revision:
    names = "abcd"[:engines]
    members = [RevisionMember(engine=name, resources=ResourceSpec(memory=1)) for name in names]
    return Revision(
        number=number, version=f"m@{number}", task="t", engine=names[0], resources=members[0].resources,
        beside=tuple(members[1:]),
    )  # fmt: skip


def deployment(engines: int = 2, *, rollout: Rollout | None = None, **more: Any) -> Deployment:
    names = ("replicas", "scaling")
    given = {name: more.pop(name) for name in names if name in more}
    members = tuple(Member(engine=name) for name in "abcd"[:engines]) if engines > 1 else ()
    spec = DeploymentSpec(name="chat", model="m@1", engine="a", members=members, **given)
    known: dict[str, Any] = {"state": DeploymentState.READY, "history": (revision(1, engines),), **more}
    return Deployment(
        id="dep", spec=spec, version="m@1", task="t", engine="a", session=None, rollout=rollout, created_at=0, **known
    )


def an_update(phase: Phase, engines: int, *, tight: bool = False) -> Rollout:
    return Rollout(
        target=revision(2, engines), policy=UpdatePolicy(), asked="m@2", phase=phase, tight=tight, started_at=99,
        since=99,
    )  # fmt: skip


def attempt(number: int, state: AttemptState, member: int = 0, of: int = 1) -> Attempt:
    return Attempt(
        id=f"a{number}", owner_kind="replica", owner="dep", number=number, token=number, state=state, revision=of,
        member=member, placement=Placement(node="local", cpus=1, memory=1), endpoint=f"unix:/a{number}", created_at=0,
    )  # fmt: skip


# -- how many ----------------------------------------------------------------------------------------------------------


def test_there_are_as_many_of_each_engine_and_scaling_adds_of_the_last_one() -> None:
    record = deployment(replicas=2)
    assert shares(record, record.history[-1]) == (2, 2)
    assert total(record) == 4
    assert wanted(record, []) == {(1, 0): 2, (1, 1): 2}
    scaling = Scaling(least=0, most=5)
    assert [in_force(deployment(3, scaling=scaling, wanted=n)) for n in (0, 1, 4)] == [(0, 0, 0), (1, 1, 1), (1, 1, 4)]


def test_none_is_wanted_of_an_engine_that_is_out() -> None:
    record = deployment(troubles={1: Trouble(out=True, message="no")})
    assert wanted(record, []) == {(1, 0): 1, (1, 1): 0}
    assert total(record) == 2


def test_a_version_is_tried_with_its_first_engine() -> None:
    for phase in (Phase.STARTING, Phase.CANARY):
        assert wanted(deployment(rollout=an_update(phase, 2)), []) == {(1, 0): 1, (1, 1): 1, (2, 0): 1}


@settings(deadline=None)  # a busy machine is no defect
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans(),
    st.lists(st.sampled_from(["place", "ready", "end"]), max_size=60), st.data(),
)  # fmt: skip
def test_a_rolling_update_between_any_engines_never_lets_fewer_answer_than_shall(
    old: int, new: int, replicas: int, tight: bool, steps: list[str], data: st.DataObject
) -> None:
    """Whatever comes first: placements, readiness, or ends of those that were asked to end."""
    record = deployment(old, replicas=replicas, rollout=an_update(Phase.ROLLING, new, tight=tight))
    live = [attempt(n + 1, AttemptState.READY, n % old) for n in range(old * replicas)]
    made, few, many = len(live), min(old, new) * replicas, max(old, new) * replicas
    for step in [*steps, *["place", "ready", "end"] * (3 * many)]:
        if step == "place":
            for (of, member), shall in wanted(record, live).items():
                for _ in range(sum((a.revision, a.member) == (of, member) for a in live), shall):
                    made += 1
                    live.append(attempt(made, AttemptState.RUNNING, member, of))
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
        assert answering >= (max(1, few - 1) if tight else few)
        assert sum(a.state is not AttemptState.STOPPING for a in live) <= many + 1
    assert replaced(record, live)
    assert sorted((a.revision, a.member) for a in live) == sorted((2, n) for n in range(new) for _ in range(replicas))


def test_too_many_of_one_engine_are_no_excuse_for_too_few_of_the_other() -> None:
    live = [attempt(1, AttemptState.READY), attempt(2, AttemptState.READY), attempt(3, AttemptState.RUNNING)]
    assert [a.id for a in surplus(deployment(), live)] == ["a3", "a2"]


def test_of_several_engines_the_replicas_of_the_one_that_scales_are_counted(tmp_path: Path) -> None:
    live = [attempt(1, AttemptState.READY), attempt(2, AttemptState.READY, 1), attempt(3, AttemptState.RUNNING, 1)]
    harness = Harness(tmp_path, deployment(scaling=Scaling(most=4), wanted=2), *live)
    with harness.state.database.reading() as tx:
        assert _ready(tx, harness.row()) == 1


@pytest.mark.parametrize(("engines", "said"), [(1, "chat shall have 3 replicas."), (2, "3 replicas of each engine.")])
def test_a_fixed_number_is_said_to_be_of_each_engine(tmp_path: Path, engines: int, said: str) -> None:
    harness = Harness(tmp_path, deployment(engines))
    assert total(Scales(harness.state, harness.deployments).scale("chat", ScaleDeployment(replicas=3))) == 3 * engines
    with harness.state.database.reading() as tx:
        assert rows.events_of(tx, "chat", 9)[-1].message.endswith(said)


# -- deaths ------------------------------------------------------------------------------------------------------------

HOPELESS = Outcome(End.USER_ERROR, "it says something else than the reference")
KILLED = Outcome(End.LOST, "ended by signal 9", retryable=True)


class Harness:
    """Deployments and rollouts on a database of their own; nothing runs."""

    def __init__(self, folder: Path, record: Deployment, *live: Attempt) -> None:
        self.now = 100.0
        self.state: Any = SimpleNamespace(
            database=Database(f"sqlite:///{folder / 'state.db'}"),
            clock=SimpleNamespace(now=lambda: self.now),
            random=Random(1),
            pulse=SimpleNamespace(beat=lambda: None),
            files=SimpleNamespace(read_usage=lambda: None, write_control=lambda *_: None),
            refusals={},
            watches={},
        )
        self.deployments = Deployments(self.state)
        self.rollouts = Rollouts(self.state, self.deployments)
        with self.state.database.transaction() as tx:
            rows.add_deployment(tx, record, ResourceSpec(memory=1), private=False)
            for one in live:
                rows.add_attempt(tx, one, None)

    def dies(self, dead: Attempt, outcome: Outcome) -> Deployment:
        with self.state.database.transaction() as tx:
            if not self.rollouts.attempt_ended(tx, dead, outcome, []):
                self.deployments.attempt_ended(tx, dead, outcome, [])
        return self.row().deployment

    def row(self) -> rows.DeploymentRow:
        with self.state.database.reading() as tx:
            return self.deployments.get(tx, "dep")

    def tick(self) -> Deployment:
        with self.state.database.transaction() as tx:
            self.rollouts.tick(tx, rows.all_deployments(tx, include_ended=False))
        return self.row().deployment


@pytest.mark.parametrize("other", [AttemptState.READY, AttemptState.RUNNING])
def test_an_engine_that_cannot_serve_leaves_the_deployment_to_the_other_one(
    tmp_path: Path, other: AttemptState
) -> None:
    harness = Harness(tmp_path, deployment(), attempt(1, other, 0))
    found = harness.dies(attempt(9, AttemptState.ENDED, 1), HOPELESS)
    assert found.state is not DeploymentState.STOPPING
    assert found.troubles[1].out
    assert wanted(found, []) == {(1, 0): 1, (1, 1): 0}


def test_a_deployment_ends_when_none_of_its_engines_can_serve_and_says_why_of_each(tmp_path: Path) -> None:
    harness = Harness(tmp_path, deployment(), attempt(1, AttemptState.RUNNING, 0))
    harness.dies(attempt(9, AttemptState.ENDED, 1), HOPELESS)
    found = harness.dies(attempt(10, AttemptState.ENDED, 0), Outcome(End.USER_ERROR, "no template", {"message": "No."}))
    assert found.state is DeploymentState.STOPPING
    assert found.error is not None
    assert found.error["message"] == "a: No."
    assert "b: it says something else than the reference." in str(found.error["hint"])


def test_deaths_of_one_engine_do_not_count_for_the_other_and_are_tried_again_ever_later(tmp_path: Path) -> None:
    harness, waits = Harness(tmp_path, deployment()), []
    for number in range(MOST_FAILURES + 8):
        harness.dies(attempt(10 + number, AttemptState.ENDED, 1), KILLED)
        waits.append((not_before(harness.row(), 1) or 0.0) - harness.now)
        assert not_before(harness.row(), 0) is None
    assert waits[:9] == sorted(waits[:9])
    assert MOST_WAIT <= waits[-1] <= 1.2 * MOST_WAIT
    assert not hopeless(harness.row().deployment, MOST_FAILURES)
    for number in range(MOST_FAILURES):
        assert not harness.row().deployment.state.ended
        harness.dies(attempt(30 + number, AttemptState.ENDED, 0), KILLED)
    assert harness.row().deployment.state is DeploymentState.FAILED


def test_a_replica_that_had_served_for_long_begins_the_count_anew() -> None:
    known = Trouble(failures=3, message="x")
    assert trouble_of(known, KILLED, 0.0, 0.0, steady=False).failures == 4
    assert trouble_of(known, KILLED, 0.0, 0.0, steady=True).failures == 1
    assert not trouble_of(known, KILLED, 0.0, 0.0, steady=True).out


def test_an_engine_of_the_next_version_that_cannot_serve_takes_the_update_back(tmp_path: Path) -> None:
    live = [attempt(1, AttemptState.READY, 0, of=2), attempt(2, AttemptState.READY, 1)]
    harness = Harness(tmp_path, deployment(rollout=an_update(Phase.ROLLING, 2)), *live)
    found = harness.dies(attempt(9, AttemptState.ENDED, 1, of=2), HOPELESS)
    assert found.rollout is not None
    assert (found.rollout.phase, found.troubles) == (Phase.ROLLED_BACK, {})
    assert found.rollout.message == "its replica with b ended: it says something else than the reference"


@pytest.mark.parametrize(("waited", "done"), [(3.0, False), (10.0, True)])
def test_an_update_is_done_with_the_engine_that_there_is_room_for(tmp_path: Path, waited: float, done: bool) -> None:
    harness = Harness(
        tmp_path, deployment(1, rollout=an_update(Phase.ROLLING, 2)), attempt(1, AttemptState.READY, 0, of=2)
    )
    harness.now = 99 + waited
    harness.state.refusals["dep"] = refusal("dep/2/0/1", Reason.NOT_ENOUGH_MEMORY)
    found = harness.tick()
    if done:
        assert (found.revision, found.engines) == (2, ("a", "b"))
        assert [member.engine for member in found.spec.members] == ["a", "b"]
    else:
        assert found.updating


def test_going_back_brings_the_precision_back_that_was_asked_for(tmp_path: Path) -> None:
    chosen = revision(1, 1).model_copy(update={"because": "figures", "precision": "int8"})
    named = revision(2, 1)
    back = an_update(Phase.ROLLING, 1).model_copy(
        update={"target": chosen.model_copy(update={"number": 3}), "returns": True}
    )
    record = deployment(1, history=(chosen, named), revision=2, rollout=back)
    found = Harness(tmp_path, record, attempt(1, AttemptState.READY, of=3)).tick()
    assert (found.revision, found.spec.precision, found.because) == (3, "int8", "figures")


# -- what is told ------------------------------------------------------------------------------------------------------


def refusal(subject: str, reason: Reason, message: str = "Needs 5 GiB of memory, 1 GiB free.") -> Refusal:
    return Refusal(subject=subject, kind="replica", reason=reason, message=message)


def test_why_names_the_engine_that_does_not_answer() -> None:
    ready, starting = AttemptState.READY, AttemptState.RUNNING
    waits = refusal("dep/1/0/1", Reason.NOT_ENOUGH_MEMORY)
    out = {1: Trouble(out=True, message="it says something else")}
    dies = {1: Trouble(failures=3, message="ended by signal 9")}
    assert shortfall(deployment(1), {}, None) == ""
    assert shortfall(deployment(), {0: ready, 1: ready}, None) == ""
    assert shortfall(deployment(), {0: ready, 1: starting}, None) == "b is starting"
    assert shortfall(deployment(), {0: ready}, waits) == "b waits: needs 5 GiB of memory, 1 GiB free"
    assert shortfall(deployment(troubles=out), {0: ready}, None) == "b does not serve it: it says something else"
    later = refusal("dep/1/0/1", Reason.RETRY_BACKOFF, "waits 2 s before it is tried again")
    for live, why in (({0: ready, 1: starting}, None), ({0: ready}, later)):
        told = shortfall(deployment(troubles=dies), live, why)
        assert told == "b is started again, 3 of its replicas ended: ended by signal 9"


def test_of_several_replicas_that_wait_the_one_is_told_that_lacks_something() -> None:
    later, lacks = refusal("dep/1/0/0", Reason.RETRY_BACKOFF), refusal("dep/1/0/1", Reason.NOT_ENOUGH_MEMORY)
    assert _one_of_each((later, lacks)) == _one_of_each((lacks, later)) == {"dep": lacks}
    other = refusal("job-1", Reason.RETRY_BACKOFF)
    assert _one_of_each((later, other)) == {"dep": later, "job-1": other}


def test_the_comparison_is_kept_with_its_engine() -> None:
    whole = Share(count=1, agreed=1, low=1, high=1)
    parity = Parity(everywhere=whole, sure=whole)
    assert [m.parity for m in revision(1).judged(1, parity).members] == [None, parity]
    assert [m.parity for m in revision(1).judged(0, parity).members] == [parity, None]
    worse = parity.model_copy(update={"complaints": ("too few",)})
    both = revision(1).judged(0, parity).judged(1, worse)
    assert deployment(history=(both,)).parity == worse, "which an alert has to see"
    assert deployment(history=(revision(1).judged(1, parity),)).parity == parity
    assert deployment().parity is None


def test_the_gateway_is_told_of_each_replicas_engine_and_what_it_does(tmp_path: Path) -> None:
    beside = RevisionMember(engine="other", options={"cache_tokens": 99}, resources=ResourceSpec(memory=1))
    served = revision(1).model_copy(update={"engine": "simulated", "beside": (beside,)})
    record = deployment(history=(served,))
    harness = Harness(
        tmp_path, record, attempt(1, AttemptState.READY, 0), attempt(2, AttemptState.READY, 1),
        attempt(3, AttemptState.RUNNING, 1),
    )  # fmt: skip

    class Lacking(OtherEngine):
        gaps = {"an_answer_is_held_to_a_schema": "no grammar"}  # noqa: RUF012 - as plugins have it
        shares_prefixes = True

    def measured(served: Revision, member: RevisionMember, of: Deployment) -> tuple[Speed, ...]:
        return (Speed(streams=1, per_second=len(member.engine), first=float(served.version == of.version)),)

    engines = {"simulated": SimulatedEngine(), "other": Lacking()}
    with harness.state.database.reading() as tx:
        (route,) = routing_table(tx, 1, None, engines, measured).routes
        (bare,) = routing_table(tx, 1, None).routes
    first, second = route.endpoints
    assert (first.engine, first.lacks, first.shares_prefixes, first.cache_tokens) == ("simulated", (), False, None)
    assert (second.engine, second.shares_prefixes, second.cache_tokens) == ("other", True, 99)
    assert second.lacks == ("an_answer_is_held_to_a_schema",)
    assert [one.speeds[0].per_second for one in route.endpoints] == [9, 5]
    assert route.shares_prefixes
    assert (route.absent, bare.absent) == ({}, {})
    assert [one.speeds for one in bare.endpoints] == [(), ()]


LACKS = {"a": frozenset({"x"}), "b": frozenset({"z", "y"}), "c": frozenset()}


@pytest.mark.parametrize(
    ("record", "ready", "absent"),
    [
        (deployment(), [0, 1], {}),
        (deployment(), [0], {"b": ("y", "z")}),
        (deployment(), [1], {"a": ("x",)}),
        (deployment(), [], {}),  # nothing is there: requests wait for the first
        (deployment(troubles={1: Trouble(out=True, message="it says something else")}), [0], {}),
        (deployment(troubles={1: Trouble(message="ended by signal 9")}), [0], {"b": ("y", "z")}),
        (deployment(1, rollout=an_update(Phase.ROLLING, 2)), [0], {"b": ("y", "z")}),
        (deployment(1, rollout=an_update(Phase.DONE, 2)), [0], {}),
    ],
)
def test_the_gateway_is_told_of_engines_that_are_not_there_though_they_shall(
    tmp_path: Path, record: Deployment, ready: list[int], absent: dict[str, tuple[str, ...]]
) -> None:
    live = [attempt(number, AttemptState.READY, member) for number, member in enumerate(ready, start=1)]
    starting = [attempt(9, AttemptState.RUNNING, 1)] if 1 not in ready else []
    engines: Any = {name: SimpleNamespace(gaps=gaps, shares_prefixes=False) for name, gaps in LACKS.items()}
    with Harness(tmp_path, record, *live, *starting).state.database.reading() as tx:
        (route,) = routing_table(tx, 1, None, engines).routes
    assert route.absent == absent


def test_replicas_that_replace_others_are_not_compared_by_speed(tmp_path: Path) -> None:
    """Else all requests would go to the one that has come first of a version that is a little quicker."""
    record = deployment(1, rollout=an_update(Phase.ROLLING, 1), history=(revision(1, 1),))
    old = [attempt(number, AttemptState.READY) for number in (1, 2)]
    harness = Harness(tmp_path, record, *old, attempt(3, AttemptState.READY, of=2))

    def measured(version: str, member: RevisionMember, session: str | None) -> tuple[Speed, ...]:
        return (Speed(streams=1, per_second=len(version), first=float(version == "m@1")),)

    with harness.state.database.reading() as tx:
        (route,) = routing_table(tx, 1, None, {}, measured).routes
    assert [one.speeds for one in route.endpoints] == [(), (), ()]
    assert {one.revision for one in route.endpoints} == {1, 2}


# -- what is asked for -------------------------------------------------------------------------------------------------

MODEL = ModelVersion(
    card="m", number=1, manifest="sha256:" + "0" * 64, format="simulated", precision="fp32", task="text-generation",
    size=1, meta={}, created_at=0,
)  # fmt: skip


def plan(spec: DeploymentSpec) -> Revision:
    """As the kernel would for this spec, with 8 GiB."""
    capacity = Capacity(cpus=4, memory=8 * GIB)
    state: Any = SimpleNamespace(
        plugins=SimpleNamespace(engines=lambda: (SimulatedEngine(), OtherEngine())),
        artifacts=SimpleNamespace(facts=lambda digest: ArtifactFacts(digest=digest, kind="model", size=1, meta={})),
        ledger=lambda _: Ledger(capacity, [], {}),
    )
    return planned(state, None, spec, MODEL, None)  # type: ignore[arg-type] # its ledger asks no database


def side_by_side(*members: Member, **more: Any) -> DeploymentSpec:
    return DeploymentSpec(name="chat", model="m@1", members=members, **more)


def test_each_engine_has_options_and_a_size_of_its_own() -> None:
    one, other = Member(engine="simulated"), Member(engine="other", options={"memory": "2GiB"})
    found = plan(side_by_side(one, other))
    assert [(m.engine, m.resources.memory) for m in found.members] == [("simulated", GIB), ("other", 2 * GIB)]
    whole = settled(side_by_side(one, other), [Member(engine=m.engine, options=m.options) for m in found.members])
    assert (whole.engine, whole.options) == ("simulated", whole.members[0].options)
    assert plan(whole) == found  # as it is stored, it means the same
    assert plan(side_by_side(one)).beside == ()


def test_engines_that_do_not_go_together_are_refused() -> None:
    one, other = Member(engine="simulated"), Member(engine="other")
    with pytest.raises(InvalidOptionError, match="not all different"):
        plan(side_by_side(one, one))
    with pytest.raises(InvalidOptionError, match="`engine` and `options` are left out"):
        plan(side_by_side(one, other, options={"cpus": 2}))
    with pytest.raises(InvalidOptionError, match="other"):
        plan(side_by_side(one, Member(engine="other", options={"parallel": 3})))
    with pytest.raises(NotFoundError, match="simulator"):
        plan(side_by_side(one, Member(engine="simulator")))
    with pytest.raises(CapacityError, match="A replica of m@1 with other") as caught:
        plan(side_by_side(one, Member(engine="other", options={"memory": "9GiB"})))
    assert "leave this engine out" in caught.value.hint


def test_another_version_keeps_the_engines_that_open_it() -> None:
    class Elsewhere(OtherEngine):
        formats = ("gguf",)

    state: Any = SimpleNamespace(
        plugins=SimpleNamespace(engines=lambda: (SimulatedEngine(), Elsewhere())),
        artifacts=SimpleNamespace(facts=lambda digest: None),
    )
    one, other = Member(engine="simulated"), Member(engine="other")
    spec = settled(side_by_side(one, other), [one, other])
    alone = fitted(state, spec, MODEL)
    assert (alone.engine, alone.members) == ("simulated", ())
    assert fitted(state, settled(spec, [other]), MODEL).engine is None
    assert fitted(state, spec, MODEL.model_copy(update={"format": "safetensors"})).members == ()


def test_a_key_of_one_engine_goes_to_no_other_server() -> None:
    far = MODEL.model_copy(update={"format": "remote", "meta": {"url": "https://a.example/v1"}})
    other = far.model_copy(update={"meta": {"url": "https://b.example/v1"}})
    members = (Member(engine="remote", options={"key_file": "/k", "max_requests": 2}), Member(engine="remote"))
    found = without_foreign_key(side_by_side(*members), far, other)
    assert [dict(member.options) for member in found.members] == [{"max_requests": 2}, {}]


def test_an_update_names_engines_or_keeps_them() -> None:
    record, both = deployment(), (Member(engine="a"), Member(engine="b"))
    assert _asked(record, UpdateDeployment(model="m@2")).members == both
    assert _asked(record, UpdateDeployment(engine="b")).members == ()
    assert _asked(record, UpdateDeployment(members=both[::-1])).members == both[::-1]
    assert _asked(deployment(1), UpdateDeployment(members=both)).members == both
    found = _asked(record, UpdateDeployment(options={"context": 9}))
    assert [dict(member.options) for member in found.members] == [{"context": 9}, {"context": 9}]
    with pytest.raises(InvalidOptionError, match="left out"):
        _asked(record, UpdateDeployment(members=both, engine="a"))
