"""What the local launcher does beyond the contract that tests/conformance checks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llm_os import plugins
from llm_os.drivers.device import Available, Unavailable
from llm_os.drivers.launchers.local import LocalLauncher
from llm_os.errors import DiskFullError, UnavailableError
from llm_os.settings import Settings
from llm_os.spec.attempts import Exit
from llm_os.spec.processes import Handle, ProcessPhase


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_is_the_launcher_named_local() -> None:
    assert plugins.load("launcher", "local") is LocalLauncher


def test_says_where_it_cannot_run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(LocalLauncher(settings).probe(), Available)
    monkeypatch.setattr(sys, "platform", "darwin")
    answer = LocalLauncher(settings).probe()
    assert isinstance(answer, Unavailable)
    assert answer.hint


async def test_lists_nothing_before_the_first_attempt(settings: Settings) -> None:
    assert await LocalLauncher(settings).list() == ()


async def test_does_not_look_twice_at_attempts_that_have_ended(settings: Settings) -> None:
    for number in range(300):
        folder = settings.attempts / f"a{number}"
        folder.mkdir(parents=True)
        (folder / "exit.json").write_text(Exit(code=0, at=1.0).model_dump_json())
    launcher = LocalLauncher(settings)
    assert await launcher.list() == ()
    assert launcher._unended() == ()
    assert len(launcher._ended) == 300
    (settings.attempts / "a0" / "exit.json").unlink()
    assert launcher._unended() == ()
    (settings.attempts / "a0").rmdir()
    assert launcher._unended() == ()
    assert len(launcher._ended) == 299


async def test_an_attempt_of_an_earlier_boot_is_lost(settings: Settings) -> None:
    folder = settings.attempts / "old"
    folder.mkdir(parents=True)
    handle = Handle(attempt="old", launcher="local", pid=1, start_time=1, boot_id="an earlier boot")
    (folder / "process.json").write_text(handle.model_dump_json())
    launcher = LocalLauncher(settings)
    assert (await launcher.recover(handle, folder)).phase is ProcessPhase.LOST
    assert (await launcher.stop("old", folder, 0.0, "swept")).phase is ProcessPhase.LOST
    assert await launcher.list() == ()


async def test_recovers_a_handle_whose_folder_is_gone_as_lost(settings: Settings) -> None:
    handle = Handle(attempt="gone", launcher="local", pid=1, start_time=1, boot_id="x")
    status = await LocalLauncher(settings).recover(handle, settings.attempts / "gone")
    assert status.phase is ProcessPhase.LOST


async def test_a_folder_that_is_not_there_cannot_be_started(settings: Settings) -> None:
    with pytest.raises(UnavailableError) as caught:
        await LocalLauncher(settings).start("none", settings.attempts / "none")
    assert caught.value.retryable
    assert caught.value.hint


async def test_says_that_the_disk_is_full(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = settings.attempts / "full"
    folder.mkdir(parents=True)
    stub = settings.home / "stub.py"
    stub.write_text('print("failed: [Errno 28] No space left on device")')
    monkeypatch.setattr("llm_os.drivers.stubs.STUB", stub)
    with pytest.raises(DiskFullError):
        await LocalLauncher(settings).start("full", folder)


async def test_a_stub_that_dies_at_once_is_not_a_start(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = settings.attempts / "dies"
    folder.mkdir(parents=True)
    stub = settings.home / "stub.py"
    stub.write_text("raise SystemExit(1)")
    monkeypatch.setattr("llm_os.drivers.stubs.STUB", stub)
    with pytest.raises(UnavailableError, match="its stub ended"):
        await LocalLauncher(settings).start("dies", folder)
