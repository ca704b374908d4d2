"""Histories in the forms that other tools read, read back by these tools."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny import Bench, given

from llm_os import plugins
from llm_os.cli.commands.data import EXPORTS
from llm_os.errors import NotFoundError
from llm_os.tasks.training import curves

EPOCHS = [
    {"epoch": 1, "loss": 0.65, "seconds": 1.5, "validation_loss": 0.6, "validation_accuracy": 0.7},
    {"epoch": 2, "loss": 0.35, "seconds": 1.4, "validation_loss": 0.4, "validation_accuracy": 0.9},
]
LOSSES = [0.7, 0.6, 0.4, 0.3]


@pytest.fixture
def model(tmp_path: Path) -> Any:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "history.json").write_text(json.dumps({"epochs": EPOCHS, "losses": LOSSES}))
    return given(folder, "model", {"format": "safetensors", "parameters": 7}, "1")


def export(root: Path, model: Any, form: str) -> Path:
    task = plugins.load("task", "training/export")
    bench = Bench(root, {"model": model})
    task.run(bench.context, task.Options(format=form, name="mood@2"))
    return bench.output


def test_a_line_for_each_epoch_and_each_step(tmp_path: Path, model: Any) -> None:
    folder = export(tmp_path / "run", model, "csv")
    with (folder / "history.csv").open() as file:
        assert [{n: float(v) for n, v in row.items()} for row in csv.DictReader(file)] == EPOCHS
    with (folder / "steps.csv").open() as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == LOSSES


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_the_events(tmp_path: Path, model: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(export(tmp_path / "run", model, "tensorboard")))
    read.Reload()
    assert [(event.step, round(event.value, 6)) for event in read.Scalars("loss")] == list(enumerate(LOSSES, start=1))
    accuracy = read.Scalars("epoch/validation_accuracy")
    assert [(event.step, round(event.value, 6)) for event in accuracy] == [(2, 0.7), (4, 0.9)]


def test_the_picture_is_a_picture_of_both_curves(tmp_path: Path, model: Any) -> None:
    from matplotlib.image import imread

    picture = imread(export(tmp_path / "run", model, "png") / "curves.png")
    assert picture.shape[:2] == (504, 1536)
    assert picture[..., :3].std() > 0.05


def test_a_model_that_was_not_trained_here_has_no_history(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(NotFoundError, match="mood@2 has no history"):
        export(tmp_path / "run", given(tmp_path / "model", "model", {}, "1"), "csv")


def test_the_command_line_knows_every_format() -> None:
    assert set(EXPORTS) == set(curves.FORMATS)
