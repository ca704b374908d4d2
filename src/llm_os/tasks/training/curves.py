"""Writes the history of a training in the forms that other tools read: CSV, TensorBoard, MLflow, and a picture.

Knows files and numbers only. The formats are written by their own libraries, so that what they read is what they wrote.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class History:
    """What `history.json` of a version holds.

    Attributes:
        name: of the run. facts: of the version, `card@number` and the like, in plain text.
        losses: of each step. epochs: one entry each, in their order.
    """

    name: str
    losses: Sequence[float]
    epochs: Sequence[Mapping[str, Any]]
    facts: Mapping[str, str]

    @classmethod
    def read(cls, path: Path, name: str, facts: Mapping[str, str]) -> History:
        whole = json.loads(path.read_text(encoding="utf-8"))
        return cls(name, whole["losses"], whole["epochs"], facts)

    def metrics(self) -> Iterator[tuple[str, float, int]]:
        """(name, value, step): the loss of each step, and every figure of an epoch at its last step."""
        for step, loss in enumerate(self.losses, start=1):
            yield "loss", float(loss), step
        for entry, step in zip(self.epochs, self.ends(), strict=True):
            for name, value in entry.items():
                if name != "epoch" and isinstance(value, int | float):
                    yield f"epoch/{name}", float(value), step

    def ends(self) -> list[int]:
        """Last step of each epoch, steps from 1."""
        count = len(self.epochs)
        return [len(self.losses) * number // count for number in range(1, count + 1)]


def write_csv(history: History, folder: Path) -> None:
    """`history.csv`: a line for each epoch; `steps.csv`: a line for each step."""
    columns = list(dict.fromkeys(name for entry in history.epochs for name in entry))
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(history.epochs)
    with (folder / "steps.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerows([("step", "loss"), *enumerate(history.losses, start=1)])


def write_tensorboard(history: History, folder: Path) -> None:
    """An event file, as `tensorboard --logdir` reads it."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    now = time.time()
    for name, value, step in history.metrics():
        shown = Summary(value=[Summary.Value(tag=name, simple_value=value)])
        writer.add_event(Event(wall_time=now, step=step, summary=shown))
    writer.close()


def write_mlflow(history: History, folder: Path) -> None:
    """An MLflow store of files with one run, in the experiment `llm-os`; its paths are relative to the folder."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # MLflow asks to be told that plain files are meant
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=folder.as_uri())
    run = client.create_run(client.create_experiment("llm-os"), run_name=history.name)
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, step) for name, value, step in history.metrics()]
    params = [Param(name, value[:6000]) for name, value in history.facts.items()]
    for at in range(0, max(len(metrics), 1), 1000):  # the most that a call may bring
        client.log_batch(run.info.run_id, metrics=metrics[at : at + 1000], params=params if at == 0 else [])
    client.set_terminated(run.info.run_id)
    for meta in folder.rglob("meta.yaml"):
        meta.write_text(meta.read_text(encoding="utf-8").replace(folder.as_uri(), "."), encoding="utf-8")


def write_png(history: History, folder: Path) -> None:
    """`curves.png`: the loss of steps and of held-out rows, and what else was measured on these."""
    from matplotlib.figure import Figure

    measured = sorted({name for entry in history.epochs for name in entry if name.startswith("validation_")})
    others = [name for name in measured if name != "validation_loss"]
    figure = Figure(figsize=(6.4 * (2 if others else 1), 4.2), layout="constrained")
    axes = figure.subplots(1, 2 if others else 1, squeeze=False)[0]
    steps = range(1, len(history.losses) + 1)
    axes[0].plot(steps, history.losses, color="#9bb8d3", linewidth=0.8, label="loss of a step")
    axes[0].plot(
        history.ends(), [entry["loss"] for entry in history.epochs], "o-", color="#1f4e79", label="mean of an epoch"
    )
    if "validation_loss" in measured:
        axes[0].plot(
            history.ends(),
            [e["validation_loss"] for e in history.epochs],
            "s--",
            color="#c0504d",
            label="held-out rows",
        )
    axes[0].set(xlabel="step", ylabel="loss", title=history.name)
    axes[0].legend(frameon=False)
    for name in others:
        values = [entry.get(name) for entry in history.epochs]
        axes[1].plot([entry["epoch"] for entry in history.epochs], values, "s-", label=name.removeprefix("validation_"))
    if others:
        axes[1].set(xlabel="epoch", title="held-out rows")
        axes[1].xaxis.get_major_locator().set_params(integer=True)
        axes[1].legend(frameon=False)
    figure.savefig(folder / "curves.png", dpi=120)


FORMATS: dict[str, Callable[[History, Path], None]] = {
    "csv": write_csv,
    "tensorboard": write_tensorboard,
    "mlflow": write_mlflow,
    "png": write_png,
}
