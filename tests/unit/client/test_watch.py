"""What a person sees of a running job: plain lines in a pipe, a bar in a terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest

from llm_os.client import watch
from llm_os.spec.attempts import Report

STEP = {"stage": "training", "epoch": 2, "epochs": 10, "step": 310, "total": 3550, "loss": 0.23123, "eta": 185.0}


def report(kind: str, seq: int = 1, **values: Any) -> Report:
    return Report.model_validate({"seq": seq, "at": 0.0, "kind": kind, "values": values})


def test_a_sentence_tells_where_it_is_and_how_long_it_takes() -> None:
    said = watch.sentence({**STEP, "tokens_per_second": 2310.4})
    assert said == "training, epoch 2 of 10, step 310 of 3550, loss 0.2312, 2,310 tokens/s, at most 3 min 5 s left"
    assert watch.sentence({"stage": "downloading", "step": 2**20, "total": 80 * 2**20}) == (
        "downloading, 1.0 MiB of 80.0 MiB"
    )


def test_lines_come_for_a_new_stage_and_for_messages_but_not_for_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    shown = watch.Lines("Training x")
    for seq in range(5):
        shown.show(report("progress", seq, **{**STEP, "step": seq}))
    shown.show(report("message", text="stopped after 5 of 10: no better since 3"))
    shown.show(report("progress", stage="saving"))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "Training x: training",
        "Training x: stopped after 5 of 10: no better since 3",
        "Training x: saving",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_that_moves_with_messages_above(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("sys.stderr", screen)
    shown = watch.display("Training x")
    assert isinstance(shown, watch.Bar)
    shown.show(report("progress", **STEP))
    shown.show(report("message", text="bf16 is 1.6 times as fast as fp32 here: using bf16."))
    shown.close(None)
    assert "epoch 2 of 10" in screen.getvalue()
    assert "using bf16" in screen.getvalue()
    assert "━" in screen.getvalue()


def test_elsewhere_there_are_lines_and_when_quiet_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(watch.display("x"), watch.Lines)
    assert isinstance(watch.display("x", quiet=True), watch.Silence)
