"""Loading in the background: of low priority, without harm to what comes after it."""

import os
import sys
import threading
from pathlib import Path

import pytest

from llm_os.workers import pace


def test_loading_is_of_low_priority_and_the_caller_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tells_its_priority.py").write_text(
        "import os, threading\nPRIORITY = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    pace.load(["tells_its_priority"])
    seen = sys.modules.pop("tells_its_priority").PRIORITY
    assert seen == max(before, pace.NICE)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_what_cannot_be_loaded_is_told_and_left(capsys: pytest.CaptureFixture[str]) -> None:
    pace.load(["no_such_module_anywhere", "colorsys"])
    assert "no_such_module_anywhere was not loaded" in capsys.readouterr().err
    assert "colorsys" in sys.modules


def test_the_weight_of_the_session_is_lowered_and_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = tmp_path / "autogroup"
    monkeypatch.setattr(pace, "SESSION", weight)
    monkeypatch.delenv(pace.MARK, raising=False)
    pace.slow()
    assert not weight.exists(), "the session of a shell is not ours"
    monkeypatch.setenv(pace.MARK, str(tmp_path))
    pace.slow()
    assert weight.read_text() == str(pace.NICE)
    pace.full()
    assert weight.read_text() == "0"


def test_a_system_that_groups_no_sessions_is_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SESSION", tmp_path / "nowhere" / "autogroup")
    monkeypatch.setenv(pace.MARK, str(tmp_path))
    pace.slow()
    pace.full()
