"""Interrupted trainings go on with the undisturbed curve, bit for bit, whatever the options; others are refused."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from points import Net, loop, points
from tiny import Bench, sentences, tiny_data, tiny_model

from llm_os import plugins
from llm_os.errors import IntegrityError
from llm_os.tasks.context import Stopped
from llm_os.tasks.training.loop import Outcome

INTERRUPTIONS = 10


class KilledError(Exception):
    """Stands for kill -9: nothing after it runs."""


def kill_after(bench: Bench, step: int) -> None:
    """Let the task die right after its checkpoint of `step`."""
    keep = bench.context.checkpoint

    def checkpoint(at: int, folder: Path) -> None:
        keep(at, folder)
        if at >= step:
            raise KilledError

    bench.context.checkpoint = checkpoint  # type: ignore[method-assign]


def stop_after(bench: Bench, steps: int) -> None:
    """Ask the task to end once so many more steps are done."""
    seen = iter(range(1, 10**9))
    bench.context.should_stop = lambda: next(seen) >= steps  # type: ignore[method-assign]


def draw(seed: str, steps: int) -> list[int]:
    """Steps to do before each of ten interruptions at random moments."""
    moments = [0, *sorted(random.Random(seed).sample(range(1, steps), INTERRUPTIONS))]
    return [later - earlier for earlier, later in pairwise(moments)]


OPTIONS: dict[str, dict[str, Any]] = {
    "adamw": {"ema": 0.9, "early_stopping": 5},
    "adam": {"accumulation": 3, "schedule": "one_cycle"},
    "nadam": {"clip": 0.1, "layer_decay": 0.5, "weight_decay": 0.1},
    "radam": {"freeze": "embeddings,0", "schedule": "inverse_sqrt"},
    "sgd": {"ema": 0.5, "accumulation": 2},
    "rmsprop": {"schedule": "linear"},
    "adagrad": {"schedule": "constant"},
    "adafactor": {"schedule": "polynomial", "layer_decay": 0.9},
}
"""By optimizer, so that each of them and each option is interrupted."""


@pytest.mark.parametrize("optimizer", OPTIONS)
def test_a_run_interrupted_ten_times_has_the_curve_of_one_that_was_not(tmp_path: Path, optimizer: str) -> None:
    options = {"epochs": 3, "learning_rate": 1e-3, "optimizer": optimizer, **OPTIONS[optimizer]}
    valid = points(16, seed=2) if "early_stopping" in options else None
    net = Net(dropout=0.2)
    whole = loop(tmp_path / "whole", net, valid=valid, **options)[0].run()
    for steps in draw(optimizer, len(whole.losses)):
        random.seed()  # whatever state a new process is in
        torch.manual_seed(random.randrange(2**31))
        made, bench = loop(tmp_path / "cut", Net(dropout=0.2), valid=valid, **options)
        stop_after(bench, steps)
        with pytest.raises(Stopped):
            made.run()
    last = Net(dropout=0.2)
    made, bench = loop(tmp_path / "cut", last, valid=valid, **options)
    outcome: Outcome = made.run()
    assert any("Goes on from step" in message for message in bench.messages)
    assert len(outcome.losses) == 24
    assert outcome.losses == whole.losses
    scores = [[e.get("validation_loss") for e in run.history] for run in (outcome, whole)]
    assert scores[0] == scores[1]
    for key, value in last.state_dict().items():
        assert torch.equal(value, net.state_dict()[key]), key


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_model_interrupted_ten_times_is_saved_bit_for_bit(tmp_path: Path, method: str) -> None:
    inputs = {"model": tiny_model(tmp_path / "model"), "data": tiny_data(tmp_path / "data", sentences(48))}
    task = plugins.load("task", f"training/{method}")
    options = task.Options.model_validate(
        {
            "epochs": 2,
            "batch_size": 8,
            "learning_rate": 5e-3,
            "precision": "fp32",
            "early_stopping": False,
            "mixup": 0.2,
            "ema": 0.9,
            "accumulation": 2,
            "class_weights": "balanced",
            "label_smoothing": 0.1,
        }
    )
    whole = Bench(tmp_path / "whole", inputs)
    task.run(whole.context, options)
    for steps in draw(method, len(whole.losses)):
        bench = Bench(tmp_path / "cut", inputs)
        stop_after(bench, steps)
        with pytest.raises(Stopped):
            task.run(bench.context, options)
    bench = Bench(tmp_path / "cut", inputs)
    task.run(bench.context, options)
    assert bench.losses == whole.losses
    names = ["model.safetensors"] + (["adapter/adapter_model.safetensors"] if method == "lora" else [])
    for name in names:
        assert (bench.output / name).read_bytes() == (whole.output / name).read_bytes()


def test_a_run_that_is_asked_to_stop_leaves_a_checkpoint_of_that_step(tmp_path: Path) -> None:
    made, bench = loop(tmp_path / "cut", Net())
    bench.context.request_stop()
    with pytest.raises(Stopped):
        made.run()
    assert [path.name for path in bench.context.checkpoints.iterdir()] == ["step-0000000001"]
    assert loop(tmp_path / "cut", Net())[0].run().losses == loop(tmp_path / "whole", Net())[0].run().losses


Change = Callable[[dict[str, Any]], None]


def _version(state: dict[str, Any]) -> None:
    state["identity"]["version of torch"] = "1.0"


def _machine(state: dict[str, Any]) -> None:
    state["identity"]["machine"] = "z80"


def _data(state: dict[str, Any]) -> None:
    state["identity"]["data"] = "others"


def _threads(state: dict[str, Any]) -> None:
    state["threads"] = 4096


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_version, r"another version of torch \(1.0; here it is 2"),
        (_machine, r"another machine \(z80; here"),
        (_data, r"another data \(others"),
        (_threads, "4096 threads; here"),
    ],
)
def test_a_checkpoint_made_elsewhere_is_refused_by_name(tmp_path: Path, change: Change, said: str) -> None:
    made, bench = loop(tmp_path, Net(), checkpoint_every=0)
    kill_after(bench, 3)
    with pytest.raises(KilledError):
        made.run()
    for folder in bench.context.checkpoints.iterdir():
        state = json.loads((folder / "state.json").read_text())
        change(state)
        (folder / "state.json").write_text(json.dumps(state))
        (folder / "checkpoint.json").unlink()
        shutil.move(folder, bench.context.scratch / "moved")
        bench.context.checkpoints.mkdir(exist_ok=True)
        again = Bench(tmp_path, {})
        again.context.checkpoint(int(folder.name.split("-")[1]), bench.context.scratch / "moved")
    with pytest.raises(IntegrityError, match=said) as caught:
        loop(tmp_path, Net(), checkpoint_every=0)[0].run()
    assert "anew" in caught.value.hint


def test_goes_on_with_the_threads_of_the_checkpoint_where_more_are_granted(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        made, bench = loop(tmp_path, Net(), checkpoint_every=0)
        kill_after(bench, 3)
        with pytest.raises(KilledError):
            made.run()
        torch.set_num_threads(2)
        loop(tmp_path, Net(), checkpoint_every=0)[0].run()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
