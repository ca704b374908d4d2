"""Kill storms: whatever is killed at whatever moment, an attempt runs once at most, ends once, and leaves no process.

`LLM_OS_KILLS` sets how many attempts are killed (default 24; `make soak` sets 1,000). A failure names its seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm_os.drivers.folders import read_exit, read_handle
from llm_os.drivers.identity import read_process
from llm_os.drivers.launchers.local import LocalLauncher
from llm_os.drivers.members import folder_of, members
from llm_os.errors import UnavailableError
from llm_os.settings import Settings
from llm_os.spec.attempts import AttemptSpec
from llm_os.spec.processes import Handle, ProcessPhase
from llm_os.testing.conformance.launcher import ProcessBed, Program

pytestmark = pytest.mark.slow


KILLS = int(os.environ.get("LLM_OS_KILLS", "24"))
AT_ONCE = 4
ENDED = {ProcessPhase.EXITED, ProcessPhase.LOST}


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[ProcessBed]:
    settings = Settings(home=tmp_path)
    bed = ProcessBed(lambda: LocalLauncher(settings), settings.attempts)
    yield bed
    await bed.clear()


async def strike(folder: Path, rng: random.Random) -> str:
    """SIGKILL or SIGTERM to one or more random processes of the attempt. Says whom."""
    who = list(members(folder.resolve(), read_handle(folder)))
    chosen = rng.sample(who, k=min(len(who), rng.choice((1, 1, 2, 99))))
    number = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
    for process in chosen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
    return f"{signal.Signals(number).name} to {len(chosen)} of {len(who)}"


async def storm(bed: ProcessBed, number: int, seed: int) -> None:
    rng = random.Random(seed)
    name = f"storm-{number}"
    children = rng.choice((0, 0, 1, 3))
    lasts = rng.choice((0.0, 0.02, None))
    folder = bed.attempt(name, Program(lasts=lasts, children=children, stop_code=rng.choice((12, None))))

    async def start() -> None:
        with contextlib.suppress(UnavailableError):
            await bed.again().start(name, folder)

    starts = [asyncio.create_task(start()) for _ in range(rng.choice((1, 2)))]
    story = []
    for _ in range(rng.choice((1, 1, 2))):
        await asyncio.sleep(rng.choice((0.0, 0.01, 0.03, 0.06, 0.1)) * rng.random() * 2)
        story.append(await strike(folder, rng))
    if rng.random() < 0.3:
        await start()
    await asyncio.gather(*starts)
    stopped = await bed.again().stop(name, folder, rng.choice((0.0, 0.05)), "storm")
    what = f"seed {seed}: {story}, {stopped}"
    assert stopped.phase in ENDED, what
    await bed.nothing_is_left(folder)
    before = (read_exit(folder), read_handle(folder))
    with contextlib.suppress(UnavailableError):
        await bed.again().start(name, folder)
    status = await bed.again().inspect(name, folder)
    assert status == stopped, what
    assert (read_exit(folder), read_handle(folder)) == before, what
    assert (await bed.launcher.logs(name, folder, 0, 10_000)).count(b"up\n") <= 1, what


async def test_an_attempt_ends_once_whatever_is_killed(bed: ProcessBed) -> None:
    first = random.randrange(2**31) if "LLM_OS_KILLS" in os.environ else 7_000
    for batch in range(0, KILLS, AT_ONCE):
        await asyncio.gather(*(storm(bed, n, first + n) for n in range(batch, min(batch + AT_ONCE, KILLS))))
    assert await bed.launcher.list() == ()


async def test_a_stub_that_hangs_is_ended_and_its_end_written_for_it(
    bed: ProcessBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_os.drivers.launchers.local.STUB_PATIENCE", 0.1)
    folder, handle = await bed.running("hangs", Program(children=2))
    assert handle.pid is not None
    os.kill(handle.pid, signal.SIGSTOP)
    status = await bed.launcher.stop("hangs", folder, 0.05, "it hangs")
    assert (status.phase, status.exit_code, status.signal) == (ProcessPhase.EXITED, None, signal.SIGKILL)
    assert status.message == "Ended by force: it hangs"
    assert bed.survivors(folder) == 0
    assert (await bed.launcher.start("hangs", folder)) == handle
    assert (await bed.launcher.inspect("hangs", folder)) == status


async def test_a_child_that_hides_its_origin_ends_with_a_killed_stub(bed: ProcessBed) -> None:
    """It carries no mark in its environment and its parents are dead; only its session tells whose it is."""
    folder = bed.attempt("hides", Program())
    spec = AttemptSpec.model_validate_json((folder / "spec.json").read_bytes())
    script = "env -i sleep 600 & echo $!; exec sleep 600"
    spec = spec.model_copy(update={"argv": ("sh", "-c", script)})
    (folder / "spec.json").write_text(spec.model_dump_json())
    handle = await bed.launcher.start("hides", folder)

    async def said() -> bool:
        return (await bed.launcher.logs("hides", folder, 0, 100)).endswith(b"\n")

    await bed.until(said, "the child is there")
    child = int(await bed.launcher.logs("hides", folder, 0, 100))

    async def hidden() -> bool:
        return folder_of(child) is None

    await bed.until(hidden, "the child has dropped its mark")
    assert read_process(child) is not None
    await bed.kill_stub(handle, folder)
    assert (await bed.launcher.inspect("hides", folder)).phase is ProcessPhase.LOST
    process = read_process(child)
    assert process is None or not process.alive


async def test_attempts_go_on_when_the_kernel_and_its_whole_group_are_killed(bed: ProcessBed, tmp_path: Path) -> None:
    folder = bed.attempt("outlives", Program())
    code = (
        "import asyncio, os, signal, sys\n"
        "from pathlib import Path\n"
        "from llm_os.drivers.launchers.local import LocalLauncher\n"
        "from llm_os.settings import Settings\n"
        "launcher = LocalLauncher(Settings(home=Path(sys.argv[1])))\n"
        "handle = asyncio.run(launcher.start('outlives', Path(sys.argv[2])))\n"
        "print(handle.model_dump_json(), flush=True)\n"
        "os.killpg(0, signal.SIGKILL)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    kernel = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, str(tmp_path), str(folder)),
        stdout=asyncio.subprocess.PIPE,
        env=env,
        start_new_session=True,
    )
    said, _ = await kernel.communicate()
    assert kernel.returncode == -signal.SIGKILL
    handle = Handle.model_validate_json(said)
    assert (await bed.launcher.recover(handle, folder)).phase is ProcessPhase.RUNNING

    async def up() -> bool:
        return await bed.launcher.logs("outlives", folder, 0, 100) == b"up\n"

    await bed.until(up, "the program goes on")
    assert await bed.launcher.start("outlives", folder) == handle
    assert (await bed.launcher.stop("outlives", folder, 20.0, "done")).exit_code == 12
