"""The unit that keeps the kernel up: systemd reads it, and nothing secret lies in it."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from llm_os.cli.commands import kernel as kernels
from llm_os.cli.commands import service
from llm_os.cli.main import cli
from llm_os.errors import ConflictError, InternalError, NotFoundError
from llm_os.settings import Settings
from llm_os.spec import api


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose name has what units expand; systemctl answers as it is told."""
    place = tmp_path / "100% of a $HOME"
    monkeypatch.setenv("LLM_OS_HOME", str(place))
    monkeypatch.setenv("LLM_OS_DATABASE", 'postgresql://me:se"cr$et@db/x')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "r"))
    monkeypatch.setattr(service, "_systemctl", lambda *_: None)
    return place


def say(*words: str) -> str:
    done = CliRunner().invoke(cli, ["service", *words], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


def test_the_unit_is_written_started_and_removed(home: Path, tmp_path: Path) -> None:
    assert "It runs." in say("install")
    unit, env = tmp_path / "config/systemd/user/llm-os.service", home / "service.env"
    text = unit.read_text()
    assert f'ExecStart="{sys.executable}" -m llm_os.app' in text
    assert "100%% of a $HOME" in text
    assert "cr$et" not in text
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    assert 'LLM_OS_DATABASE="postgresql://me:se\\"cr\\$et@db/x"' in env.read_text()
    assert "is removed" in say("uninstall")
    assert not unit.exists()
    assert not env.exists()
    with pytest.raises(NotFoundError):
        say("uninstall")


def test_without_systemd_it_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_systemctl", lambda *_: "there is no systemctl here")
    out = say("install")
    assert "not started: there is no systemctl here" in out
    assert "systemctl --user enable --now llm-os.service" in out


def test_a_kernel_that_runs_is_not_doubled(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "answers", lambda _: True)
    with pytest.raises(ConflictError, match="down --keep"):
        say("install")
    assert not (home / "service.env").exists()


def test_a_kernel_of_the_service_is_known_by_its_control_group(tmp_path: Path) -> None:
    for pid, groups in {
        1: "3:memory:/user.slice\n1:name=systemd:/app.slice/llm-os.service\n",
        2: "0::/user.slice/user-1000.slice/user@1000.service/app.slice/llm-os.service",
        3: "0::/user.slice/user@1000.service/app.slice/run-llm-os.service.scope\n",
        4: "",
    }.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(groups)
    assert [service._of_service(pid, tmp_path) for pid in (1, 2, 3, 4, 5)] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("kernel", "ending", "again"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_down_says_that_the_service_starts_the_kernel_again_but_not_at_its_own_end(
    home: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool, ending: bool, again: bool
) -> None:
    class Transport:
        def call(self, method: str, path: str, answer: type, **_: object) -> object:
            if path == "/v1/status":
                return SimpleNamespace(pid=7)
            return api.ShutdownReport(ended=("chat",), kept=())

    there = iter([True, False, False])
    monkeypatch.setattr(kernels, "answers", lambda _: next(there))
    monkeypatch.setattr(kernels, "looking", Transport)
    monkeypatch.setattr(service, "_of_service", lambda pid: kernel if pid == 7 else ending)
    told = CliRunner().invoke(cli, ["down"], standalone_mode=False).output
    assert "Ended with it: chat." in told
    assert ("systemctl --user stop llm-os" in told) == again


def test_a_kernel_whose_status_cannot_be_read_is_ended_all_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Transport:
        def call(self, method: str, path: str, answer: type, **_: object) -> object:
            if path == "/v1/status":
                raise InternalError("of another release")
            return api.ShutdownReport(ended=(), kept=())

    there = iter([True, False, False])
    monkeypatch.setattr(kernels, "answers", lambda _: next(there))
    monkeypatch.setattr(kernels, "looking", Transport)
    told = CliRunner().invoke(cli, ["down", "--json"], standalone_mode=False).output
    assert json.loads(told) == {"ended": [], "kept": [], "started_again": False}


def test_words_are_quoted_as_systemd_reads_them() -> None:
    assert service.quoted('a "b" $c 5% \\d') == '"a \\"b\\" $$c 5%% \\\\d"'
    with pytest.raises(ConflictError):
        service.quoted("a\nExecStart=evil")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_nothing_wrong(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "llm-os.service"
    path.write_text(service.unit(Settings(), sys.executable))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    command = ["systemd-analyze", "--user", "verify", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    mine = [line for line in done.stderr.splitlines() if "llm-os.service" in line]
    assert mine == [], done.stderr
