"""What every launcher must do, as checks that run against any of them; knows launchers only by their interface.

Each check is a coroutine that takes a `Bed` and raises AssertionError. A test file runs them all:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_keeps_the_contract(check, tmp_path): await check(ProcessBed(...))
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

from llm_os.errors import UnavailableError
from llm_os.spec.processes import ProcessPhase
from llm_os.testing.conformance.launcher_bed import Bed, ProcessBed, Program

__all__ = ["CHECKS", "Bed", "ProcessBed", "Program"]


async def reports_the_exit_code(bed: Bed) -> None:
    for code in (0, 3, 12):
        folder, _ = await bed.running(f"exit-{code}", Program(lasts=0, code=code))
        status = await bed.ended(f"exit-{code}", folder)
        assert (status.phase, status.exit_code, status.signal) == (ProcessPhase.EXITED, code, None)


async def reports_the_signal_that_ended_it(bed: Bed) -> None:
    folder, _ = await bed.running("signal", Program(lasts=0, dies_by=int(signal.SIGABRT)))
    status = await bed.ended("signal", folder)
    assert (status.phase, status.exit_code, status.signal) == (ProcessPhase.EXITED, None, signal.SIGABRT)


async def inspects_a_running_attempt(bed: Bed) -> None:
    folder, handle = await bed.running("a", Program())
    status = await bed.launcher.inspect("a", folder)
    assert status.phase is ProcessPhase.RUNNING
    assert handle.attempt == "a"
    assert handle.launcher == bed.launcher.name

    async def measured() -> bool:
        return ((await bed.launcher.inspect("a", folder)).resident_memory or 0) > 2**20

    await bed.until(measured, "its resident memory is known")
    await bed.launcher.stop("a", folder, 5.0, "done")


async def says_absent_of_an_unknown_attempt(bed: Bed) -> None:
    folder = bed.attempt("known", Program()).parent / "unknown"
    assert (await bed.launcher.inspect("unknown", folder)).phase is ProcessPhase.ABSENT
    assert await bed.launcher.logs("unknown", folder, 0, 100) == b""


async def says_absent_before_the_start(bed: Bed) -> None:
    folder = bed.attempt("early", Program())
    assert (await bed.launcher.inspect("early", folder)).phase is ProcessPhase.ABSENT
    assert await bed.launcher.list() == ()


async def starts_once_when_started_twice_at_once(bed: Bed) -> None:
    folder = bed.attempt("twice", Program(says="once"))
    others = [bed.launcher, bed.again(), bed.again(), bed.launcher]
    handles = await asyncio.gather(*(launcher.start("twice", folder) for launcher in others))
    assert len({handle.pid for handle in handles}) == 1

    async def said() -> bool:
        return b"once" in await bed.launcher.logs("twice", folder, 0, 1000)

    await bed.until(said, "the program runs")
    await bed.launcher.stop("twice", folder, 5.0, "done")
    assert (await bed.launcher.logs("twice", folder, 0, 1000)).count(b"once") == 1


async def starts_nothing_after_the_end(bed: Bed) -> None:
    folder, _ = await bed.running("over", Program(says="ran", lasts=0, code=3))
    await bed.ended("over", folder)
    await bed.again().start("over", folder)
    status = await bed.ended("over", folder)
    assert status.exit_code == 3
    assert (await bed.launcher.logs("over", folder, 0, 1000)).count(b"ran") == 1


async def raises_when_the_program_cannot_be_executed(bed: Bed) -> None:
    folder = bed.attempt("broken", None)
    try:
        await bed.launcher.start("broken", folder)
    except UnavailableError as error:
        assert "broken" in error.message
        assert error.hint
    else:
        raise AssertionError("it started what cannot be executed")
    assert (await bed.launcher.inspect("broken", folder)).phase is not ProcessPhase.RUNNING
    assert bed.survivors(folder) == 0


async def stops_what_ends_when_asked(bed: Bed) -> None:
    folder, _ = await bed.running("polite", Program(stop_code=12))
    status = await bed.launcher.stop("polite", folder, 20.0, "enough")
    assert (status.phase, status.exit_code) == (ProcessPhase.EXITED, 12)
    assert bed.survivors(folder) == 0


async def forces_what_ignores_being_asked(bed: Bed) -> None:
    folder, _ = await bed.running("stubborn", Program(stop_code=None))
    before = asyncio.get_running_loop().time()
    status = await bed.launcher.stop("stubborn", folder, 0.2, "enough")
    assert asyncio.get_running_loop().time() - before >= 0.2
    assert (status.phase, status.exit_code, status.signal) == (ProcessPhase.EXITED, None, signal.SIGKILL)
    assert bed.survivors(folder) == 0


async def stops_without_grace(bed: Bed) -> None:
    folder, _ = await bed.running("now", Program(stop_code=None))
    status = await bed.launcher.stop("now", folder, 0.0, "at once")
    assert status.phase is ProcessPhase.EXITED
    assert bed.survivors(folder) == 0


async def stops_twice_with_the_same_answer(bed: Bed) -> None:
    folder, _ = await bed.running("again", Program())
    first, second = await asyncio.gather(
        bed.launcher.stop("again", folder, 20.0, "one"), bed.again().stop("again", folder, 20.0, "two")
    )
    third = await bed.launcher.stop("again", folder, 0.0, "three")
    assert first == second == third
    assert first.exit_code == 12


async def seals_what_never_started(bed: Bed) -> None:
    folder = bed.attempt("sealed", Program())
    status = await bed.launcher.stop("sealed", folder, 1.0, "not wanted any more")
    assert status.phase is ProcessPhase.EXITED
    assert status.exit_code is None
    await bed.again().start("sealed", folder)
    assert (await bed.launcher.inspect("sealed", folder)).phase is ProcessPhase.EXITED
    assert bed.survivors(folder) == 0


async def decides_between_a_start_and_a_stop_at_once(bed: Bed) -> None:
    for number in range(8):
        name = f"race-{number}"
        folder = bed.attempt(name, Program())
        await asyncio.gather(
            bed.launcher.start(name, folder), bed.again().stop(name, folder, 20.0, "raced"), return_exceptions=True
        )
        status = await bed.launcher.stop(name, folder, 20.0, "raced")
        assert status.phase in {ProcessPhase.EXITED, ProcessPhase.LOST}
        assert bed.survivors(folder) == 0


async def says_lost_when_the_stub_was_killed(bed: Bed) -> None:
    folder, handle = await bed.running("lost", Program(stop_code=None, children=2))
    await bed.kill_stub(handle, folder)
    status = await bed.ended("lost", folder)
    assert status.phase is ProcessPhase.LOST
    assert bed.survivors(folder) == 0


async def ends_the_program_with_its_stub(bed: Bed) -> None:
    """Nobody looks at it: the kernel may be dead, too."""
    folder, handle = await bed.running("alone", Program(stop_code=None))
    await bed.kill_stub(handle, folder)
    await bed.nothing_is_left(folder)


async def starts_nothing_after_it_was_lost(bed: Bed) -> None:
    folder, handle = await bed.running("lost", Program(says="ran"))
    await bed.kill_stub(handle, folder)
    await bed.ended("lost", folder)
    await bed.again().start("lost", folder)
    assert (await bed.launcher.inspect("lost", folder)).phase is ProcessPhase.LOST
    assert (await bed.launcher.logs("lost", folder, 0, 1000)).count(b"ran") == 1
    assert (await bed.launcher.stop("lost", folder, 1.0, "swept")).phase is ProcessPhase.LOST


async def says_exited_when_the_worker_was_killed(bed: Bed) -> None:
    folder, handle = await bed.running("killed", Program())
    await bed.kill_worker(handle, folder)
    status = await bed.ended("killed", folder)
    assert (status.phase, status.signal) == (ProcessPhase.EXITED, signal.SIGKILL)
    await bed.nothing_is_left(folder)


async def knows_an_end_when_both_were_killed(bed: Bed) -> None:
    folder, handle = await bed.running("both", Program(children=1))
    await bed.kill_worker(handle, folder)
    await bed.kill_stub(handle, folder)
    status = await bed.ended("both", folder)
    assert status.phase in {ProcessPhase.LOST, ProcessPhase.EXITED}
    await bed.nothing_is_left(folder)


async def ends_children_with_their_program(bed: Bed) -> None:
    folder, _ = await bed.running("parent", Program(lasts=0.05, children=4))
    status = await bed.ended("parent", folder)
    assert status.exit_code == 0
    await bed.nothing_is_left(folder)


async def recovers_what_runs(bed: Bed) -> None:
    folder, handle = await bed.running("goes-on", Program())
    other = bed.again()
    assert (await other.recover(handle, folder)).phase is ProcessPhase.RUNNING
    assert (await other.stop("goes-on", folder, 20.0, "done")).exit_code == 12


async def recovers_what_ended_meanwhile(bed: Bed) -> None:
    folder, handle = await bed.running("ended", Program(lasts=0, code=7))
    await bed.ended("ended", folder)
    status = await bed.again().recover(handle, folder)
    assert (status.phase, status.exit_code) == (ProcessPhase.EXITED, 7)


async def recovers_nothing_that_is_gone(bed: Bed) -> None:
    folder, handle = await bed.running("gone", Program())
    await bed.kill_stub(handle, folder)
    assert (await bed.again().recover(handle, folder)).phase is ProcessPhase.LOST


async def lists_what_runs_and_only_that(bed: Bed) -> None:
    over, _ = await bed.running("over", Program(lasts=0))
    await bed.ended("over", over)
    one, _ = await bed.running("one", Program())
    two, _ = await bed.running("two", Program())
    for launcher in (bed.launcher, bed.again()):
        assert {s.attempt for s in await launcher.list()} == {"one", "two"}
    await bed.launcher.stop("one", one, 20.0, "done")
    assert {s.attempt for s in await bed.launcher.list()} == {"two"}
    await bed.launcher.stop("two", two, 20.0, "done")
    assert await bed.launcher.list() == ()


async def lists_orphans_and_stops_them(bed: Bed) -> None:
    folder, handle = await bed.running("orphan", Program(children=2))
    await bed.kill_stub(handle, folder)
    assert [s.attempt for s in await bed.again().list()] == ["orphan"]
    await bed.again().stop("orphan", folder, 0.0, "nobody owns it")
    assert bed.survivors(folder) == 0
    assert await bed.launcher.list() == ()


async def pages_logs(bed: Bed) -> None:
    folder, _ = await bed.running("talks", Program(says="0123456789", lasts=0))
    await bed.ended("talks", folder)
    pages = [await bed.launcher.logs("talks", folder, offset, 4) for offset in (0, 4, 8, 11, 500)]
    assert pages == [b"0123", b"4567", b"89\n", b"", b""]


CHECKS: tuple[Callable[[Bed], Awaitable[None]], ...] = (
    reports_the_exit_code,
    reports_the_signal_that_ended_it,
    inspects_a_running_attempt,
    says_absent_of_an_unknown_attempt,
    says_absent_before_the_start,
    starts_once_when_started_twice_at_once,
    starts_nothing_after_the_end,
    raises_when_the_program_cannot_be_executed,
    stops_what_ends_when_asked,
    forces_what_ignores_being_asked,
    stops_without_grace,
    stops_twice_with_the_same_answer,
    seals_what_never_started,
    decides_between_a_start_and_a_stop_at_once,
    says_lost_when_the_stub_was_killed,
    ends_the_program_with_its_stub,
    starts_nothing_after_it_was_lost,
    says_exited_when_the_worker_was_killed,
    knows_an_end_when_both_were_killed,
    ends_children_with_their_program,
    recovers_what_runs,
    recovers_what_ended_meanwhile,
    recovers_nothing_that_is_gone,
    lists_what_runs_and_only_that,
    lists_orphans_and_stops_them,
    pages_logs,
)
