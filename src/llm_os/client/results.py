"""What training gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_os.spec.units import format_duration


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What `model.train` gives back.

    Attributes:
        version: the new model version, `card@number`.
        history: one entry an epoch: `epoch`, `loss`, `validation_loss`, `validation_accuracy`, `seconds`,
            `tokens_per_second`.
        epochs_run, best_epoch: epochs count from 1; the weights are those of `best_epoch`.
        seconds: time in the epochs.
    """

    version: str
    history: Sequence[Mapping[str, Any]]
    epochs_run: int
    best_epoch: int
    stopped_early: bool
    precision: str
    seconds: float
    job: str

    def __str__(self) -> str:
        last = self.history[self.best_epoch - 1] if self.history else {}
        accuracy = last.get("validation_accuracy")
        held = f", accuracy on held-out rows {accuracy:.4f}" if isinstance(accuracy, float) else ""
        early = " (stopped early)" if self.stopped_early else ""
        epochs = "1 epoch" if self.epochs_run == 1 else f"{self.epochs_run} epochs"
        return (
            f"{self.version}: {epochs}{early}, best {self.best_epoch}, "
            f"loss {last.get('loss', float('nan')):.4f}{held}, {format_duration(self.seconds)}"
        )


def training_result(result: Mapping[str, Any], job: str) -> TrainingResult:
    """From `Job.result` of a training."""
    return TrainingResult(
        version=str(result["version"]),
        history=tuple(result["history"]),
        epochs_run=int(result["epochs_run"]),
        best_epoch=int(result["best_epoch"]),
        stopped_early=bool(result["stopped_early"]),
        precision=str(result["precision"]),
        seconds=float(result["seconds"]),
        job=job,
    )
