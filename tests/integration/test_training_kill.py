"""A real training whose worker is killed with SIGKILL goes on from its checkpoint with the curve of one left alone."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_os.testing.place import Place

pytestmark = [pytest.mark.net, pytest.mark.slow, pytest.mark.timeout(600)]

TRAINS = """
import json, sys, llm_os
train_data, _ = llm_os.load_data("sentic_data", limit=300)
model = llm_os.load_model("transformer")
every = float(sys.argv[1])
result = model.train(train_data, epochs=2, early_stopping=False, precision="fp32", batch_size=8, checkpoint_every=every)
print(json.dumps([dict(epoch) for epoch in result.history]))
"""
TIMED = {"seconds", "cpu_seconds", "tokens_per_second"}


def _worker(checkpoint: Path, home: Path) -> int:
    """Process id of the worker that wrote `checkpoint`."""
    job = checkpoint.parent.parent.name
    for folder in (home / "run" / "attempts").iterdir():
        spec = json.loads((folder / "spec.json").read_text())
        if job in json.dumps(spec) and not (folder / "exit.json").exists():
            stub = int(json.loads((folder / "process.json").read_text())["pid"])
            return int(Path(f"/proc/{stub}/task/{stub}/children").read_text().split()[0])
    raise AssertionError("no worker of the job is alive")


def test_a_killed_worker_resumes_with_the_same_curve(place: Place, stock: Callable[[str, Place], None]) -> None:
    stock("transformer", place)
    folder = place.home
    process = place.start("-c", TRAINS, "1.0")
    checkpoints: list[Path] = []
    end = time.monotonic() + 300
    while not checkpoints and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
        checkpoints = [path for path in folder.glob("run/jobs/*/checkpoints/*") if not path.name.startswith(".")]
    assert checkpoints, process.communicate()
    os.kill(_worker(checkpoints[0], folder), signal.SIGKILL)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    attempts = [json.loads(path.read_text()) for path in (folder / "run" / "attempts").glob("*/exit.json")]
    assert signal.SIGKILL in [attempt["signal"] for attempt in attempts], attempts
    undisturbed, err = (alone := place.start("-c", TRAINS, "1000")).communicate(timeout=400)
    assert alone.returncode == 0, err
    curves = [
        [{k: v for k, v in epoch.items() if k not in TIMED} for epoch in json.loads(t)] for t in (out, undisturbed)
    ]
    assert curves[0] == curves[1]
    assert len(curves[0]) == 2
