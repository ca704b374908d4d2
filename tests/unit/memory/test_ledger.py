"""The ledger promises never more than there is, and says with numbers why not."""

from __future__ import annotations

import pytest

from llm_os.errors import CapacityError
from llm_os.memory.ledger import Ledger, shortage
from llm_os.spec.conditions import Reason
from llm_os.spec.resources import Capacity, Caps, Device, ResourceSpec

GIB = 2**30
GPUS = tuple(
    Device(kind=kind, index=index, name=kind, memory=size * GIB)
    for index, (kind, size) in enumerate([("nvidia", 80), ("nvidia", 24), ("amd", 24)])
)


def machine(cpus: float = 4, memory: int = 8 * GIB, devices: tuple[Device, ...] = ()) -> Capacity:
    return Capacity(cpus=cpus, memory=memory, devices=devices)


def need(memory: float = 1, cpus: float = 1, accelerators: int = 0, **more: object) -> ResourceSpec:
    return ResourceSpec.model_validate(
        {"memory": int(memory * GIB), "cpus": cpus, "accelerators": accelerators, **more}
    )


def hold(ledger: Ledger, attempt: str, request: ResourceSpec, session: str | None = None) -> None:
    ledger.reserve(attempt, f"job-{attempt}", "job", session, request)


def test_refuses_memory_with_what_is_needed_and_what_is_free() -> None:
    ledger = Ledger(machine())
    hold(ledger, "a", need(5))
    refusal = ledger.check(need(5.1))
    assert refusal is not None
    assert refusal.reason is Reason.NOT_ENOUGH_MEMORY
    assert refusal.message == "needs 5.1 GiB of memory, 3.0 GiB free"
    assert refusal.details == {
        "resource": "memory", "needs_memory": int(5.1 * GIB), "free_memory": 3 * GIB, "granted_memory": 8 * GIB,
    }  # fmt: skip


def test_what_could_not_run_on_the_empty_machine_never_fits() -> None:
    refusal = Ledger(machine()).check(need(9))
    assert refusal is not None
    assert refusal.reason is Reason.NEVER_FITS
    assert refusal.message == "needs 9.0 GiB of memory, 8.0 GiB granted"


def test_refuses_cores_that_are_taken() -> None:
    ledger = Ledger(machine())
    hold(ledger, "a", need(cpus=2.5))
    refusal = ledger.check(need(cpus=2))
    assert refusal is not None
    assert (refusal.reason, refusal.message) == (Reason.NOT_ENOUGH_CPU, "needs 2 cores, 1.5 free")


def test_ten_tenths_of_a_core_fit_into_one() -> None:
    ledger = Ledger(machine(cpus=1))
    for number in range(10):
        hold(ledger, str(number), need(0.1, cpus=0.1))
    assert ledger.check(need(0.1, cpus=0.1)) is not None


def test_reserve_raises_and_takes_nothing_when_it_does_not_fit() -> None:
    ledger = Ledger(machine())
    with pytest.raises(CapacityError, match=r"job-a needs 9\.0 GiB") as caught:
        hold(ledger, "a", need(9))
    assert caught.value.details["reason"] == "never_fits"
    assert ledger.holdings() == ()


def test_a_doubled_reservation_takes_nothing_more() -> None:
    ledger = Ledger(machine())
    hold(ledger, "a", need(3))
    hold(ledger, "a", need(4))
    assert ledger.free().memory == 5 * GIB


def test_release_gives_back_and_may_be_repeated() -> None:
    ledger = Ledger(machine())
    hold(ledger, "a", need(3))
    ledger.release("a")
    ledger.release("a")
    assert ledger.free() == machine()


def test_a_worker_that_outgrows_its_reservation_leaves_less_to_others() -> None:
    ledger = Ledger(machine())
    hold(ledger, "a", need(3))
    ledger.measure("a", 6 * GIB)
    assert ledger.free().memory == 2 * GIB
    ledger.measure("a", 1 * GIB)
    assert ledger.free().memory == 5 * GIB
    ledger.measure("gone", 6 * GIB)
    assert [holding.attempt for holding in ledger.holdings()] == ["a"]


def test_a_grant_that_shrank_below_what_is_held_leaves_nothing_free() -> None:
    before = Ledger(machine())
    hold(before, "a", need(6, cpus=3))
    after = Ledger(machine(cpus=2, memory=4 * GIB), before.holdings())
    assert (after.free().cpus, after.free().memory) == (0, 0)


def test_a_session_stays_under_its_caps_while_others_go_on() -> None:
    ledger = Ledger(machine(), caps={"s": Caps(cpus=2, memory=4 * GIB)})
    hold(ledger, "a", need(3, cpus=1), "s")
    refusal = ledger.check(need(2), "s")
    assert refusal is not None
    assert refusal.reason is Reason.SESSION_CAP
    assert refusal.message == "needs 2.0 GiB of memory, 1.0 GiB left to this session"
    assert ledger.check(need(2), "other") is None
    too_large = ledger.check(need(1, cpus=3), "s")
    assert too_large is not None
    assert too_large.message == "needs 3 cores, 2 allowed to this session"


def test_a_session_sees_what_others_hold() -> None:
    ledger = Ledger(machine(), caps={"s": Caps(memory=6 * GIB)})
    hold(ledger, "a", need(5))
    assert ledger.free("s").memory == 3 * GIB
    refusal = ledger.check(need(4), "s")
    assert refusal is not None
    assert refusal.reason is Reason.NOT_ENOUGH_MEMORY


def test_accelerators_are_held_whole_and_the_smallest_that_will_do_is_taken() -> None:
    ledger = Ledger(machine(devices=GPUS))
    first = ledger.reserve("a", "job-a", "job", None, need(accelerators=1))
    second = ledger.reserve("b", "job-b", "job", None, need(accelerators=1, accelerator_kinds=("nvidia",)))
    assert (first.devices, second.devices) == ((1,), (0,))
    refusal = ledger.check(need(accelerators=2))
    assert refusal is not None
    assert (refusal.reason, refusal.message) == (
        Reason.NOT_ENOUGH_ACCELERATORS,
        "needs 2 accelerators, 1 free",
    )


def test_accelerators_that_are_too_small_are_refused_by_size() -> None:
    ledger = Ledger(machine(devices=GPUS))
    ledger.reserve("a", "job-a", "job", None, need(accelerators=1, accelerator_memory=40 * GIB))
    refusal = ledger.check(need(accelerators=1, accelerator_memory=40 * GIB))
    assert refusal is not None
    assert refusal.reason is Reason.NOT_ENOUGH_ACCELERATOR_MEMORY
    assert refusal.message == "needs 1 accelerator with 40.0 GiB, 0 of that size free, the largest has 24.0 GiB"


def test_a_session_gets_only_the_accelerators_of_its_cap() -> None:
    ledger = Ledger(machine(devices=GPUS), caps={"s": Caps(gpus=(2, 7)), "none": Caps(gpus=())})
    assert [device.index for device in ledger.free("s").devices] == [2]
    refusal = ledger.check(need(accelerators=2), "s")
    assert refusal is not None
    assert refusal.message == "needs 2 accelerators, 1 allowed to this session"
    assert ledger.check(need(accelerators=1), "none") is not None


def test_named_accelerators_must_be_free() -> None:
    ledger = Ledger(machine(devices=GPUS))
    ledger.reserve("a", "job-a", "job", None, need(accelerators=1), devices=(0,))
    with pytest.raises(CapacityError, match="not all free"):
        ledger.reserve("b", "job-b", "job", None, need(accelerators=1), devices=(0,))
    assert [holding.devices for holding in ledger.holdings()] == [(0,)]


def test_a_gang_counts_as_the_sum_of_its_workers() -> None:
    ledger = Ledger(machine(devices=GPUS))
    held = ledger.reserve("a", "job-a", "job", None, need(2, cpus=1, accelerators=1, workers=3))
    assert (held.cpus, held.memory, held.devices) == (3, 6 * GIB, (0, 1, 2))
    assert ledger.check(need(1.5, workers=2)) is not None


def test_names_who_holds_the_most() -> None:
    ledger = Ledger(machine(devices=GPUS))
    hold(ledger, "a", need(1, cpus=2), "s")
    hold(ledger, "b", need(2, cpus=1, accelerators=1))
    assert [h.owner for h in ledger.holders("memory")] == ["job-b", "job-a"]
    assert [h.owner for h in ledger.holders("cpus")] == ["job-a", "job-b"]
    assert [h.owner for h in ledger.holders("accelerators")] == ["job-b"]
    assert [h.owner for h in ledger.holders("memory", "s")] == ["job-a"]


def test_amounts_are_compared_without_a_ledger_too() -> None:
    never = shortage(need(9), machine(), machine())
    assert never is not None
    assert (never.reason, never.message) == (Reason.NEVER_FITS, "needs 9.0 GiB of memory, 8.0 GiB granted")
    now = shortage(need(5), machine(), machine(memory=3 * GIB))
    assert now is not None
    assert (now.reason, now.message) == (Reason.NOT_ENOUGH_MEMORY, "needs 5.0 GiB of memory, 3.0 GiB free")
    assert shortage(need(5), machine(), machine()) is None
