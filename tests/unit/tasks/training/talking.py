"""Chat data that a tiny model can learn by heart, and trainings on it without a kernel."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "models"))
from tiny import Bench, given
from tiny_chat import tiny_chat

from llm_os import plugins
from llm_os.models.formats import inspect
from llm_os.tasks.context import InputFolder

QUICK: dict[str, Any] = {"batch_size": 8, "learning_rate": 1e-2, "precision": "fp32", "early_stopping": False}


def chat_rows(count: int = 32) -> list[dict[str, Any]]:
    """Good words are answered with yes, bad ones with no."""
    words = ("good", "bad", "fine", "poor")
    return [
        {
            "messages": [
                {"role": "user", "content": words[i % 4]},
                {"role": "assistant", "content": ("yes", "no")[i % 2]},
            ]
        }
        for i in range(count)
    ]


def preference_rows(count: int = 32) -> list[dict[str, Any]]:
    """The opposite of what `chat_rows` teach is preferred."""
    words = ("good", "bad", "fine", "poor")
    return [
        {
            "prompt": [{"role": "user", "content": words[i % 4]}],
            "chosen": ("no", "yes")[i % 2],
            "rejected": ("yes", "no")[i % 2],
        }
        for i in range(count)
    ]


def model_of(folder: Path) -> InputFolder:
    path = folder / "model"
    if not path.exists():
        tiny_chat(path)
    return given(path, "model", inspect(path), "1")


def data_of(folder: Path, kind: str, rows: list[dict[str, Any]]) -> InputFolder:
    path = folder / kind
    for split in ("train", "test"):
        (path / split).mkdir(parents=True, exist_ok=True)
        (path / split / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return given(path, "dataset", {"kind": kind, "name": "tiny", "labels": None}, "2")


def train(root: Path, model: InputFolder, data: InputFolder, method: str, **options: Any) -> Bench:
    task = plugins.load("task", f"training/{method}")
    bench = Bench(root, {"model": model, "data": data})
    task.run(bench.context, task.Options.model_validate({**QUICK, **options}))
    return bench


def made(bench: Bench, digit: str = "7") -> InputFolder:
    """What a training made, as the input of another task."""
    declared = json.loads((bench.output / "artifact.json").read_text())
    return given(bench.output, declared["kind"], declared["meta"], digit)
