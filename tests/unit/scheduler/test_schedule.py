"""Who goes first, who waits, and in which words."""

from __future__ import annotations

from llm_os.memory.ledger import Ledger
from llm_os.scheduler.schedule import schedule
from llm_os.scheduler.snapshot import Snapshot, Waiting
from llm_os.spec.conditions import Reason
from llm_os.spec.resources import Capacity, Caps, ResourceSpec

GIB = 2**30


def wants(subject: str, memory: float = 1, cpus: float = 1, **more: object) -> Waiting:
    request = ResourceSpec(memory=int(memory * GIB), cpus=cpus)
    fields: dict[str, object] = {"kind": "job", "session": None, **more}
    return Waiting(subject=subject, resources=request, **fields)  # type: ignore[arg-type]


def look(*waiting: Waiting, **more: object) -> Snapshot:
    granted = Capacity(cpus=4, memory=8 * GIB)
    fields: dict[str, object] = {"granted": granted, "waiting": waiting, **more}
    return Snapshot(now=100.0, node="here", **fields)  # type: ignore[arg-type]


def test_the_more_important_goes_first_then_the_earlier() -> None:
    plan = schedule(
        look(wants("late", submitted=2), wants("early", submitted=1), wants("urgent", submitted=3, priority=5))
    )
    assert [step.subject for step in plan.steps] == ["urgent", "early", "late"]


def test_a_replica_goes_before_a_job_because_somebody_waits_for_its_answer() -> None:
    plan = schedule(look(wants("job", submitted=1), wants("card/0", kind="replica", submitted=2)))
    assert [step.subject for step in plan.steps] == ["card/0", "job"]


def test_what_fits_does_not_wait_behind_what_does_not() -> None:
    plan = schedule(look(wants("large", memory=6, submitted=1), wants("huge", memory=7), wants("small", memory=1)))
    assert [step.subject for step in plan.steps] == ["huge", "small"]
    assert [refusal.subject for refusal in plan.refusals] == ["large"]


def test_a_refusal_says_the_numbers_and_the_holder() -> None:
    ledger = Ledger(Capacity(cpus=4, memory=8 * GIB))
    ledger.reserve("att-1", "job-other", "job", None, ResourceSpec(memory=5 * GIB, cpus=1))
    (refusal,) = schedule(look(wants("job-mine", memory=5.1), holdings=ledger.holdings())).refusals
    assert refusal.reason is Reason.NOT_ENOUGH_MEMORY
    assert refusal.message == (
        "Needs 5.1 GiB of memory, 3.0 GiB free; held by job-other; it starts when enough of it ends."
    )
    assert refusal.details["free_memory"] == 3 * GIB


def test_a_sentence_names_three_holders_at_most() -> None:
    ledger = Ledger(Capacity(cpus=4, memory=8 * GIB))
    for number in range(5):
        ledger.reserve(f"a{number}", f"job-{number}", "job", None, ResourceSpec(memory=GIB, cpus=0.5))
    plan = schedule(look(wants("x", memory=4), holdings=ledger.holdings()))
    assert "held by job-0, job-1, job-2 and 2 more" in plan.refusals[0].message


def test_what_can_never_run_is_told_so() -> None:
    (refusal,) = schedule(look(wants("x", memory=9))).refusals
    assert refusal.reason is Reason.NEVER_FITS
    assert refusal.message.endswith("8.0 GiB granted; it can never run on this machine as it is.")


def test_a_session_at_its_cap_waits_for_itself_only() -> None:
    ledger = Ledger(Capacity(cpus=4, memory=8 * GIB))
    ledger.reserve("a", "job-own", "job", "s", ResourceSpec(memory=GIB, cpus=1))
    ledger.reserve("b", "job-foreign", "job", "t", ResourceSpec(memory=3 * GIB, cpus=1))
    plan = schedule(
        look(
            wants("x", memory=2, session="s"),
            wants("y", memory=2, session="t"),
            holdings=ledger.holdings(),
            caps={"s": Caps(memory=2 * GIB)},
        )
    )
    assert [step.subject for step in plan.steps] == ["y"]
    (refusal,) = plan.refusals
    assert refusal.reason is Reason.SESSION_CAP
    assert "held by job-own;" in refusal.message


def test_a_retry_waits_for_its_moment() -> None:
    waiting = wants("x", not_before=101.5)
    (refusal,) = schedule(look(waiting)).refusals
    assert (refusal.reason, refusal.message) == (Reason.RETRY_BACKOFF, "Waits 1.5 s before it is tried again.")
    assert schedule(look(wants("x", not_before=100.0))).steps


def test_a_worker_may_run_threads_on_all_cores_its_session_has() -> None:
    caps = {"s": Caps(cpus=2.5), "tiny": Caps(cpus=0.5)}
    plan = schedule(
        look(
            wants("free"),
            wants("capped", session="s"),
            wants("modest", wants_threads=1),
            wants("small", cpus=0.5, session="tiny"),
            caps=caps,
        )
    )
    threads = {step.subject: step.placement.threads for step in plan.steps}
    assert threads == {"free": 4, "capped": 2, "modest": 1, "small": 1}


def test_a_step_says_where_and_what_stays_free() -> None:
    (step,) = schedule(look(wants("x", memory=5.1))).steps
    assert step.placement.node == "here"
    assert step.because == "fits; 3 cores and 2.9 GiB stay free"
