"""The scheduler's promises, over generated clusters (see scheduler/DESIGN.md)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_os.memory.ledger import Ledger
from llm_os.scheduler.schedule import schedule
from llm_os.scheduler.snapshot import Snapshot, Waiting
from llm_os.spec.conditions import Reason
from llm_os.spec.resources import Capacity, Caps, Device, Holding, ResourceSpec

SESSIONS = ("s1", "s2", None)
cores = st.integers(1, 40).map(lambda tenths: tenths / 10)


@st.composite
def requests(draw: st.DrawFn) -> ResourceSpec:
    return ResourceSpec(
        memory=draw(st.integers(0, 60)),
        cpus=draw(cores),
        accelerators=draw(st.integers(0, 2)),
        accelerator_memory=draw(st.none() | st.integers(1, 40)),
        accelerator_kinds=draw(st.sampled_from([(), ("a",), ("a", "b")])),
        workers=draw(st.sampled_from([1, 1, 1, 2])),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    devices = tuple(
        Device(kind=draw(st.sampled_from("ab")), index=index, name="x", memory=draw(st.integers(1, 40)))
        for index in range(draw(st.integers(0, 4)))
    )
    granted = Capacity(cpus=draw(cores), memory=draw(st.integers(1, 100)), devices=devices)
    limits = st.builds(
        Caps,
        cpus=st.none() | cores,
        memory=st.none() | st.integers(0, 100),
        gpus=st.none() | st.lists(st.integers(0, 5), unique=True).map(tuple),
    )
    caps = {name: draw(limits) for name in ("s1", "s2") if draw(st.booleans())}
    ledger = Ledger(granted, (), caps)
    for number in range(draw(st.integers(0, 4))):
        session, request = draw(st.sampled_from(SESSIONS)), draw(requests())
        if ledger.check(request, session) is None:
            ledger.reserve(f"held-{number}", f"job-{number}", "job", session, request)
            if draw(st.booleans()):
                ledger.measure(f"held-{number}", draw(st.integers(0, 120)))
    waiting = tuple(
        Waiting(
            subject=f"w{number}",
            kind="job",
            session=draw(st.sampled_from(SESSIONS)),
            resources=draw(requests()),
            priority=draw(st.integers(0, 2)),
            submitted=draw(st.sampled_from([0.0, 1.0, 2.0])),
            not_before=draw(st.sampled_from([None, None, 5.0, 15.0])),
        )
        for number in range(draw(st.integers(0, 8)))
    )
    return Snapshot(now=10.0, node="n", granted=granted, holdings=ledger.holdings(), waiting=waiting, caps=caps)


def held(snapshot: Snapshot) -> list[Holding]:
    """Holdings and steps together, as plain sums see them: no arithmetic of the ledger is used."""
    by_subject = {waiting.subject: waiting for waiting in snapshot.waiting}
    steps = [
        Holding(
            attempt=step.subject,
            owner=step.subject,
            kind=step.kind,
            session=by_subject[step.subject].session,
            cpus=step.placement.cpus,
            memory=step.placement.memory,
            devices=step.placement.devices,
        )
        for step in schedule(snapshot).steps
    ]
    return [*snapshot.holdings, *steps]


def memory_of(holdings: list[Holding]) -> int:
    return sum(holding.memory for holding in holdings)


@given(snapshots())
def test_never_more_is_promised_than_there_is(snapshot: Snapshot) -> None:
    everything = held(snapshot)
    granted = snapshot.granted
    assert sum(h.cpus for h in everything) <= granted.cpus + 1e-3
    assert memory_of(everything) <= granted.memory
    taken = [index for h in everything for index in h.devices]
    assert len(taken) == len(set(taken))
    assert set(taken) <= {device.index for device in granted.devices}
    for session, caps in snapshot.caps.items():
        own = [h for h in everything if h.session == session]
        assert caps.cpus is None or sum(h.cpus for h in own) <= caps.cpus + 1e-3
        assert caps.memory is None or memory_of(own) <= caps.memory
        assert caps.gpus is None or {index for h in own for index in h.devices} <= set(caps.gpus)


@given(snapshots())
def test_a_placed_worker_has_all_it_asked_for(snapshot: Snapshot) -> None:
    by_subject = {waiting.subject: waiting for waiting in snapshot.waiting}
    devices = {device.index: device for device in snapshot.granted.devices}
    for step in schedule(snapshot).steps:
        asked, given_ = by_subject[step.subject].resources, step.placement
        assert given_.memory == asked.memory * asked.workers
        assert len(given_.devices) == asked.accelerators * asked.workers
        for index in given_.devices:
            assert devices[index].memory >= (asked.accelerator_memory or 0)
            assert not asked.accelerator_kinds or devices[index].kind in asked.accelerator_kinds
        assert given_.threads >= 1


@given(snapshots())
def test_what_fits_does_not_wait(snapshot: Snapshot) -> None:
    plan = schedule(snapshot)
    after = Ledger(snapshot.granted, held(snapshot), snapshot.caps)
    by_subject = {waiting.subject: waiting for waiting in snapshot.waiting}
    for refusal in plan.refusals:
        waiting = by_subject[refusal.subject]
        if refusal.reason is Reason.RETRY_BACKOFF:
            assert waiting.not_before is not None
            assert waiting.not_before > snapshot.now
        else:
            assert after.check(waiting.resources, waiting.session) is not None


@given(snapshots())
def test_every_subject_is_answered_once(snapshot: Snapshot) -> None:
    plan = schedule(snapshot)
    answered = [step.subject for step in plan.steps] + [refusal.subject for refusal in plan.refusals]
    assert sorted(answered) == sorted(waiting.subject for waiting in snapshot.waiting)
    assert all(refusal.message.endswith(".") for refusal in plan.refusals)


@given(snapshots(), st.randoms(use_true_random=False))
def test_the_order_in_which_things_are_listed_does_not_matter(snapshot: Snapshot, random: object) -> None:
    holdings, waiting = list(snapshot.holdings), list(snapshot.waiting)
    random.shuffle(holdings)  # type: ignore[attr-defined]
    random.shuffle(waiting)  # type: ignore[attr-defined]
    shuffled = Snapshot(
        now=snapshot.now,
        node=snapshot.node,
        granted=snapshot.granted,
        holdings=tuple(holdings),
        waiting=tuple(waiting),
        caps=snapshot.caps,
    )
    assert schedule(shuffled) == schedule(snapshot)


@given(snapshots())
def test_what_was_decided_can_be_committed_step_by_step(snapshot: Snapshot) -> None:
    ledger = Ledger(snapshot.granted, snapshot.holdings, snapshot.caps)
    by_subject = {waiting.subject: waiting for waiting in snapshot.waiting}
    for step in schedule(snapshot).steps:
        waiting = by_subject[step.subject]
        ledger.reserve(
            step.subject, step.subject, "job", waiting.session, waiting.resources, devices=step.placement.devices
        )
