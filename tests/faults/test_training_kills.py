"""A training of a real encoder, killed with SIGKILL again and again, ends with the curve and weights of one left alone.

`LLM_OS_KILLS` sets how often, 20 times at most; each kill costs a new process that loads its libraries. That ten
interruptions at random moments change nothing, whatever the options, tests/unit/tasks/training shows without processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.net, pytest.mark.slow, pytest.mark.timeout(900)]

KILLS, STEPS = min(int(os.environ.get("LLM_OS_KILLS", "3")), 20), 80
PREPARES = """
import sys
from pathlib import Path
from llm_os import plugins
from llm_os.tasks.context import Context
root = Path(sys.argv[1])
for name in ("output", "checkpoints", "scratch"):
    (root / name).mkdir(parents=True)
task = plugins.load("task", "datasets/sentic_data")
folders = {name: root / name for name in ("output", "checkpoints", "scratch")}
task.run(Context(inputs={}, **folders), task.Options(limit=400))
"""
TRAINS = """
import json, shutil, sys
from pathlib import Path
from llm_os import plugins
from llm_os.models.formats import inspect
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.tasks.context import Context, InputFolder
model, data, root = (Path(word) for word in sys.argv[1:4])
def given(path, kind, meta, digit):
    facts = {"digest": "sha256:" + digit * 64, "kind": kind, "size": 10**8, "meta": meta}
    return InputFolder(path, ArtifactFacts.model_validate(facts))
declared = json.loads((data / "artifact.json").read_text())["meta"]
inputs = {
    "model": given(model, "model", {"format": "safetensors", **inspect(model)}, "1"),
    "data": given(data, "dataset", declared, "2"),
}
folders = {name: root / name for name in ("output", "checkpoints", "scratch")}
for name, folder in folders.items():  # as a new attempt finds them: only checkpoints are left
    if name != "checkpoints":
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
context = Context(inputs=inputs, threads=2, reports=root / "reports.jsonl", **folders)
task = plugins.load("task", "training/full")
import torch
precision = "bf16" if torch.cpu.get_capabilities().get("avx512_bf16") else "fp32"  # emulated, it takes minutes
task.run(context, task.Options(epochs=2, early_stopping=False, stop=320, batch_size=8, precision=precision,
                               checkpoint_every=float(sys.argv[4])))
"""


def reports(root: Path) -> list[dict[str, Any]]:
    path = root / "reports.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def curve(root: Path) -> list[float]:
    return list(json.loads((root / "output" / "history.json").read_text())["losses"])


def weights(root: Path) -> str:
    return hashlib.sha256((root / "output" / "model.safetensors").read_bytes()).hexdigest()


def start(given: tuple[Path, Path], root: Path, every: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TRAINS, *map(str, given), str(root), every]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def killed_at(step: int, given: tuple[Path, Path], root: Path) -> None:
    """Go on with the training, and kill it once it has a checkpoint of its own and has reached the step."""
    before = len(reports(root))
    process = start(given, root, "0.3")
    while process.poll() is None:
        said = reports(root)[before:]
        if any(r["kind"] == "checkpoint" for r in said) and any(r["values"].get("step", 0) >= step for r in said):
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err


def test_a_training_killed_again_and_again_is_the_one_left_alone(
    tmp_path: Path, sample_model: Callable[[str], Path]
) -> None:
    prepared, alone, often = tmp_path / "prepared", tmp_path / "alone", tmp_path / "often"
    subprocess.run([sys.executable, "-c", PREPARES, str(prepared)], check=True, capture_output=True, timeout=200)
    given = (sample_model("transformer"), prepared / "output")
    whole = start(given, alone, "1e9")
    _, err = whole.communicate(timeout=300)
    assert whole.returncode == 0, err

    for step in sorted(random.Random(7).sample(range(3, STEPS - 3), KILLS)):
        killed_at(step, given, often)
    last = start(given, often, "0.3")
    _, err = last.communicate(timeout=300)
    assert last.returncode == 0, err

    assert sum("Goes on from step" in r["values"].get("text", "") for r in reports(often)) == KILLS
    assert len(curve(alone)) == STEPS
    assert curve(often) == curve(alone)
    assert weights(often) == weights(alone)
