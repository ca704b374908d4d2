"""A process that is kept ready: it becomes the worker of the attempt that fits, and of no other, and never stays."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from llm_os.drivers.identity import processes, read_process
from llm_os.drivers.launchers.local import LocalLauncher
from llm_os.drivers.members import folder_of
from llm_os.settings import Settings
from llm_os.spec.attempts import EXIT_OK, AttemptSpec, TaskCall
from llm_os.spec.processes import ProcessPhase, ProcessStatus


@pytest.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[LocalLauncher]:
    made = LocalLauncher(Settings(home=tmp_path))
    yield made
    await made.prepare(None)
    await made.prepare(None, "gateway")


def lay_out(home: Path, name: str, **more: Any) -> AttemptSpec:
    """An attempt that makes a small data set."""
    folder = Settings(home=home).attempts.resolve() / name
    (folder / "output").mkdir(parents=True)
    call = TaskCall(
        task="datasets/sentic_data",
        options={"limit": 60},
        inputs={},
        output=str(folder / "output"),
        checkpoints=str(home / "checkpoints"),
    )
    given: dict[str, Any] = {
        "attempt": name,
        "owner": "job-1",
        "token": 1,
        "argv": (sys.executable, "-m", "llm_os.workers.task", str(folder)),
        "env": {"A_NAME": "a value"},
        "threads": 1,
        "cwd": str(folder),
        "task": call,
        "preload": ("no_such_module_anywhere", "colorsys"),
    }
    spec = AttemptSpec(**{**given, **more})
    (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
    return spec


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not happened():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.02)


async def ended(launcher: LocalLauncher, spec: AttemptSpec) -> ProcessStatus:
    folder = Path(spec.cwd)
    await until(lambda: (folder / "exit.json").exists())
    return await launcher.inspect(spec.attempt, folder)


def of_home(home: Path) -> list[int]:
    """Processes that carry the mark of a folder of this home."""
    marked = [(process.pid, folder_of(process.pid)) for process in processes()]
    return [pid for pid, folder in marked if folder is not None and folder.is_relative_to(home.resolve())]


def spare_of(launcher: LocalLauncher) -> int:
    return launcher._kept["task"].pid


async def test_runs_the_attempt_it_fits_to_its_end(launcher: LocalLauncher, tmp_path: Path) -> None:
    await launcher.prepare(lay_out(tmp_path, "first"))
    pid = spare_of(launcher)
    second = lay_out(tmp_path, "second")
    handle = await launcher.start("second", Path(second.cwd))
    assert handle.pid == pid
    assert launcher._kept == {}
    status = await ended(launcher, second)
    assert (status.phase, status.exit_code) == (ProcessPhase.EXITED, EXIT_OK), Path(second.cwd, "log").read_text()
    assert Path(second.cwd, "output", "artifact.json").exists()
    assert not Path(lay_out(tmp_path, "third").cwd, "exit.json").exists()
    await until(lambda: of_home(tmp_path) == [])


async def test_writes_to_folder_and_log_of_the_attempt(launcher: LocalLauncher, tmp_path: Path) -> None:
    await launcher.prepare(lay_out(tmp_path, "first"))
    spec = lay_out(tmp_path, "second", preload=("no_such_module_anywhere", "colorsys"))
    broken = spec.model_copy(update={"task": spec.task and spec.task.model_copy(update={"task": "datasets/nothing"})})
    Path(spec.cwd, "spec.json").write_text(broken.model_dump_json(), encoding="utf-8")
    await launcher.start("second", Path(spec.cwd))
    assert (await ended(launcher, spec)).exit_code not in {None, EXIT_OK}
    assert "datasets/nothing" in Path(spec.cwd, "log").read_text()
    assert "datasets/nothing" in Path(spec.cwd, "reports.jsonl").read_text()


@pytest.mark.parametrize(
    "other", [{"threads": 2}, {"env": {"A_NAME": "another"}}, {"preload": ("colorsys",)}, {"devices": (0,)}]
)
async def test_is_left_alone_by_an_attempt_that_is_unlike(
    launcher: LocalLauncher, tmp_path: Path, other: dict[str, Any]
) -> None:
    await launcher.prepare(lay_out(tmp_path, "first"))
    pid = spare_of(launcher)
    spec = lay_out(tmp_path, "second", **other)
    handle = await launcher.start("second", Path(spec.cwd))
    assert handle.pid != pid
    assert (await ended(launcher, spec)).exit_code == EXIT_OK
    assert spare_of(launcher) == pid


async def test_none_is_kept_for_what_is_no_module(launcher: LocalLauncher, tmp_path: Path) -> None:
    await launcher.prepare(lay_out(tmp_path, "engine", argv=("sleep", "1")))
    assert launcher._kept == {}


async def test_one_that_is_what_is_wanted_stays(launcher: LocalLauncher, tmp_path: Path) -> None:
    await launcher.prepare(lay_out(tmp_path, "first"))
    pid = spare_of(launcher)
    await launcher.prepare(lay_out(tmp_path, "second"))
    assert spare_of(launcher) == pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: gone(pid))
    await launcher.prepare(lay_out(tmp_path, "third"))
    assert spare_of(launcher) != pid


async def test_one_is_kept_in_each_role_and_runs_any_module(launcher: LocalLauncher, tmp_path: Path) -> None:
    argv = (sys.executable, "-m", "json.tool", "--compact")
    await launcher.prepare(lay_out(tmp_path, "task"))
    await launcher.prepare(lay_out(tmp_path, "like", argv=argv, preload=()), "gateway")
    task, other = spare_of(launcher), launcher._kept["gateway"].pid
    source = tmp_path / "input.json"
    source.write_text("[1,   2]")
    spec = lay_out(tmp_path, "other", argv=(*argv, str(source)), preload=())
    assert (await launcher.start("other", Path(spec.cwd))).pid == other
    assert (await ended(launcher, spec)).exit_code == EXIT_OK
    assert Path(spec.cwd, "log").read_text() == "[1,2]\n"
    assert spare_of(launcher) == task
    await launcher.prepare(None, "gateway")
    assert spare_of(launcher) == task


async def test_a_dead_one_is_no_harm(launcher: LocalLauncher, tmp_path: Path) -> None:
    for number, kill_the_program in enumerate((True, False)):
        await launcher.prepare(lay_out(tmp_path, f"first-{number}"))
        stub = spare_of(launcher)
        program = next(p for p in await programs(stub))
        os.kill(program if kill_the_program else stub, signal.SIGKILL)
        await until(lambda pid=program: gone(pid))  # type: ignore[misc]
        spec = lay_out(tmp_path, f"second-{number}")
        await launcher.start(spec.attempt, Path(spec.cwd))
        assert (await ended(launcher, spec)).exit_code == EXIT_OK


async def test_one_that_was_asked_to_end_while_it_waited_takes_nothing_over(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    """Else what it takes over would be asked to end as soon as it has begun."""
    await launcher.prepare(lay_out(tmp_path, "first"))
    stub = spare_of(launcher)
    (program,) = await programs(stub)
    os.kill(stub, signal.SIGTERM)
    await until(lambda: gone(program))
    spec = lay_out(tmp_path, "second")
    handle = await launcher.start("second", Path(spec.cwd))
    assert ((await ended(launcher, spec)).exit_code, handle.pid != stub) == (EXIT_OK, True)


async def programs(stub: int) -> list[int]:
    def found() -> list[int]:
        return [process.pid for process in processes() if process.parent == stub and executed(process.pid)]

    await until(lambda: bool(found()))
    return found()


def executed(pid: int) -> bool:
    """Whether it is the program already, and no copy of its stub that is just about to become it."""
    try:
        return b"llm_os.workers.spare" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def gone(pid: int) -> bool:
    process = read_process(pid)
    return process is None or not process.alive


async def test_goes_when_it_is_not_wanted(launcher: LocalLauncher, tmp_path: Path) -> None:
    await launcher.prepare(lay_out(tmp_path, "first"))
    both = [spare_of(launcher), *await programs(spare_of(launcher))]
    await launcher.prepare(None)
    assert gone(both[0])
    await until(lambda: gone(both[1]))
    await launcher.prepare(lay_out(tmp_path, "second"))
    assert len(list((tmp_path / "run" / "spares").iterdir())) == 1


@pytest.mark.parametrize("victim", ["program", "stub"])
async def test_the_bell_rings_when_an_attempt_has_ended(launcher: LocalLauncher, tmp_path: Path, victim: str) -> None:
    rung = asyncio.Event()
    launcher.bell = lambda attempt: rung.set() if attempt == "long" else None
    spec = lay_out(tmp_path, "long", argv=("sleep", "60"))
    folder = Path(spec.cwd)
    stub = (await launcher.start("long", folder)).pid
    assert stub is not None
    child = next(process.pid for process in processes() if process.parent == stub)
    os.kill(stub if victim == "stub" else child, signal.SIGKILL)
    async with asyncio.timeout(30):
        await rung.wait()
    ends = ProcessPhase.LOST if victim == "stub" else ProcessPhase.EXITED
    assert (await launcher.inspect("long", folder)).phase is ends


async def test_the_bell_rings_for_what_another_kernel_had_started(tmp_path: Path) -> None:
    spec = lay_out(tmp_path, "long", argv=("sleep", "60"))
    folder = Path(spec.cwd)
    handle = await LocalLauncher(Settings(home=tmp_path)).start("long", folder)
    heard, rung = LocalLauncher(Settings(home=tmp_path)), asyncio.Event()
    heard.bell = lambda _: rung.set()
    await heard.recover(handle, folder)
    assert not rung.is_set()
    await heard.stop("long", folder, 5.0, "enough")
    async with asyncio.timeout(30):
        await rung.wait()


async def test_goes_with_whoever_kept_it_however_that_ended(tmp_path: Path) -> None:
    spec = lay_out(tmp_path, "first")
    script = (
        "import asyncio, sys, time; from pathlib import Path; from llm_os.drivers.launchers.local import LocalLauncher;"
        "from llm_os.settings import Settings; from llm_os.spec.attempts import AttemptSpec;"
        f"like = AttemptSpec.model_validate_json(Path({spec.cwd!r}, 'spec.json').read_bytes());"
        f"asyncio.run(LocalLauncher(Settings(home={str(tmp_path)!r})).prepare(like)); print('up', flush=True);"
        "time.sleep(60)"
    )
    keeper = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert keeper.stdout is not None
    assert await keeper.stdout.readline() == b"up\n"
    await until(lambda: len(of_home(tmp_path)) >= 2)
    keeper.kill()
    await keeper.wait()
    await until(lambda: of_home(tmp_path) == [])


async def test_an_attempt_that_took_it_ends_like_any_other(launcher: LocalLauncher, tmp_path: Path) -> None:
    """The kernel finds and ends it, also when its stub is killed: the mark leads to the attempt."""
    for number in range(2):
        await launcher.prepare(lay_out(tmp_path, f"first-{number}"))
        stub = spare_of(launcher)
        (program,) = await programs(stub)
        os.kill(program, signal.SIGSTOP)  # it will not get anywhere by itself
        spec = lay_out(tmp_path, f"second-{number}")
        folder = Path(spec.cwd)
        await launcher.start(spec.attempt, folder)
        assert [status.attempt for status in await launcher.list()] == [spec.attempt]
        if number:
            os.kill(stub, signal.SIGKILL)
            await until(lambda pid=stub: gone(pid))  # type: ignore[misc]
            expected = ProcessPhase.LOST
        else:
            expected = ProcessPhase.EXITED
        before = time.monotonic()
        status = await launcher.stop(spec.attempt, folder, 0.1, "enough")
        assert status.phase is expected
        assert time.monotonic() - before < 20
        await until(lambda pid=program: gone(pid))  # type: ignore[misc]
        assert await launcher.list() == ()
