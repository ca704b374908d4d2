"""What took long is made once for all replicas, and never seen half made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_os.spec.attempts import AttemptSpec
from llm_os.workers.kept import HALF_MADE_FOR, KEPT_FOR, folder_of, kept


def _write(text: str, folder: Path) -> None:
    (folder / "file").write_text(text)


def test_it_is_made_once(tmp_path: Path) -> None:
    for text in ("first", "second"):
        place = kept(tmp_path, "key", lambda folder, text=text: _write(text, folder))
    assert (place / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_of_two_that_are_made_at_once_the_first_is_taken(tmp_path: Path) -> None:
    def slow(folder: Path) -> None:
        _write("slow", folder)
        kept(tmp_path / "", "key", lambda other: _write("quick", other))

    # The same process writes both, so the second one must not use the first one's folder.
    os_getpid, os.getpid = os.getpid, iter((1, 2)).__next__
    try:
        place = kept(tmp_path, "key", slow)
    finally:
        os.getpid = os_getpid
    assert (place / "file").read_text() == "quick"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        _write("half", folder)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        kept(tmp_path, "key", fails)
    assert not list(tmp_path.iterdir())


def test_what_nobody_used_for_long_is_deleted_and_half_made_things_sooner(tmp_path: Path) -> None:
    ages = {"old": KEPT_FOR, "used": KEPT_FOR / 2, "dead.1.part": HALF_MADE_FOR, "alive.2.part": HALF_MADE_FOR / 2}
    for name, age in ages.items():
        (tmp_path / name).mkdir()
        then = (tmp_path / name).stat().st_mtime - age - 1
        os.utime(tmp_path / name, (then, then))
    kept(tmp_path, "key", lambda folder: _write("new", folder))
    assert {path.name for path in tmp_path.iterdir()} == {"used", "alive.2.part", "key"}


def test_in_a_home_it_is_beside_the_attempts_and_elsewhere_in_the_attempt(tmp_path: Path) -> None:
    def spec(folder: Path) -> AttemptSpec:
        return AttemptSpec.model_construct(cwd=str(folder))

    assert folder_of(spec(tmp_path / "run" / "attempts" / "a1"), "graphs") == tmp_path / "run" / "graphs"
    tried = tmp_path / "run" / "attempts" / "a1" / "scratch" / "trial-0"
    assert folder_of(spec(tried), "graphs") == tmp_path / "run" / "graphs", "by a job that tries engines out"
    assert folder_of(spec(tmp_path / "alone"), "graphs") == tmp_path / "alone" / "scratch" / "graphs"
