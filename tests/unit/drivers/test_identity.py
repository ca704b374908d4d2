"""A number that was given to another process later is not the same process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_os.drivers import identity
from llm_os.drivers.identity import boot_id, processes, read_environment, read_process, same_process
from llm_os.spec.processes import Handle

PAGE = os.sysconf("SC_PAGE_SIZE")


def handle_of_this(**changed: object) -> Handle:
    process = read_process(os.getpid())
    assert process is not None
    whole = Handle(attempt="a", launcher="local", pid=process.pid, start_time=process.start_time, boot_id=boot_id())
    return whole.model_copy(update=changed)


def test_finds_the_process_a_handle_names() -> None:
    found = same_process(handle_of_this())
    assert found is not None
    assert found.pid == os.getpid()
    assert found.parent == os.getppid()
    assert found.session == os.getsid(0)
    assert found.resident > 2**20


@pytest.mark.parametrize(
    "changed", [{"start_time": 1}, {"boot_id": "another boot"}, {"pid": None}, {"pid": 2**22 + 1}, {"start_time": None}]
)
def test_does_not_take_another_for_it(changed: dict[str, object]) -> None:
    assert same_process(handle_of_this(**changed)) is None


def test_reads_names_that_look_like_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = ["S", "7", "8", "9"] + ["0"] * 15 + ["12345", "0", "3"] + ["0"] * 5
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "stat").write_text("42 (evil) R 1 (x)) " + " ".join(fields))
    monkeypatch.setattr(identity, "PROC", tmp_path)
    process = read_process(42)
    assert process is not None
    assert (process.state, process.parent, process.session) == ("S", 7, 9)
    assert (process.start_time, process.resident) == (12345, 3 * PAGE)


def test_a_process_that_waits_to_be_reaped_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "stat").write_text("42 (x) Z 1 42 42" + " 0" * 15 + " 99 0 0")
    (tmp_path / "not-a-process").mkdir()
    monkeypatch.setattr(identity, "PROC", tmp_path)
    assert list(processes()) == []
    assert same_process(Handle(attempt="a", launcher="local", pid=42, start_time=99, boot_id=boot_id())) is None


def test_says_nothing_of_what_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "PROC", tmp_path)
    assert read_process(1) is None
    assert read_environment(1) == b""
