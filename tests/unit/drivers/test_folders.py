"""Attempt folders are read without harm and sealed once."""

from __future__ import annotations

import fcntl
from pathlib import Path

from llm_os.drivers.folders import is_locked, read_exit, read_handle, seal, write_exit
from llm_os.spec.attempts import Exit
from llm_os.spec.processes import Handle


def test_knows_nothing_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    assert read_exit(folder) is None
    assert read_handle(folder) is None
    assert not is_locked(folder)
    assert not folder.exists()


def test_seals_an_attempt_once(tmp_path: Path) -> None:
    assert seal(tmp_path, "Never started: cancelled")
    sealed = read_exit(tmp_path)
    assert sealed is not None
    assert (sealed.started, sealed.code, sealed.message) == (False, None, "Never started: cancelled")
    assert not seal(tmp_path, "again")
    assert read_exit(tmp_path) == sealed


def test_does_not_seal_what_has_started(tmp_path: Path) -> None:
    (tmp_path / "process.json").write_text(Handle(attempt="a", launcher="local").model_dump_json())
    assert not seal(tmp_path, "too late")
    assert read_exit(tmp_path) is None


def test_does_not_seal_what_a_stub_is_starting(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert is_locked(tmp_path)
        assert not seal(tmp_path, "too late")
    assert not is_locked(tmp_path)
    assert seal(tmp_path, "in time")


def test_a_damaged_exit_record_is_an_end_that_nobody_knows(tmp_path: Path) -> None:
    (tmp_path / "exit.json").write_text('{"code": 0')
    ended = read_exit(tmp_path)
    assert ended is not None
    assert ended.code is None
    assert "damaged" in ended.message


def test_writes_an_end_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    record = Exit(code=None, signal=9, at=1.0, message="Ended by force: test")
    write_exit(tmp_path, record)
    assert read_exit(tmp_path) == record
    assert [p.name for p in tmp_path.iterdir()] == ["exit.json"]
