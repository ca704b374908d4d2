"""What training and evaluation give back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_os.spec.base import Json
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
        return (
            f"{self.version}: {self.epochs_run} epochs{early}, best {self.best_epoch}, "
            f"loss {last.get('loss', float('nan')):.4f}{held}, {format_duration(self.seconds)}"
        )


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Precision, recall and F1, of one class or macro; `support` is the number of rows."""

    precision: float
    recall: float
    f1: float
    support: int | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `model.evaluate` gives back. For a regression the class figures are None and the errors are given.

    Attributes:
        accuracy: share of rows that were right.
        loss: mean cross entropy in nats (regression: mean squared error).
        per_class: by class name. macro: plain mean over classes.
        confusion: rows are true classes, columns what was said, both in the order of `labels`.
        count: rows that were judged.
    """

    loss: float
    count: int
    accuracy: float | None = None
    labels: tuple[str, ...] | None = None
    per_class: Mapping[str, ClassScore] | None = None
    macro: ClassScore | None = None
    confusion: Sequence[Sequence[int]] | None = None
    mean_absolute_error: float | None = None
    r2: float | None = None

    @property
    def precision(self) -> Mapping[str, float] | None:
        """By class, and `macro`."""
        return self._named("precision")

    @property
    def recall(self) -> Mapping[str, float] | None:
        """By class, and `macro`."""
        return self._named("recall")

    @property
    def f1(self) -> Mapping[str, float] | None:
        """By class, and `macro`."""
        return self._named("f1")

    def _named(self, what: str) -> Mapping[str, float] | None:
        if self.per_class is None or self.macro is None:
            return None
        return {name: getattr(score, what) for name, score in {**self.per_class, "macro": self.macro}.items()}

    def __str__(self) -> str:
        if self.accuracy is None:
            return f"Model evaluation:\nMean absolute error: {self.mean_absolute_error:.4f}\nLoss: {self.loss:.4f}"
        return f"Model evaluation:\nAccuracy: {self.accuracy:.4f}\nLoss: {self.loss:.4f}"


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


def evaluation(result: Mapping[str, Json]) -> Evaluation:
    """From `Job.result` of an evaluation."""
    values: dict[str, Any] = dict(result)
    if values.get("labels") is None:
        return Evaluation(
            loss=values["loss"],
            count=values["count"],
            mean_absolute_error=values["mean_absolute_error"],
            r2=values["r2"],
        )
    per_class = {
        name: ClassScore(score["precision"], score["recall"], score["f1"], int(score["support"]))
        for name, score in values["per_class"].items()
    }
    macro = values["macro"]
    return Evaluation(
        loss=values["loss"],
        count=values["count"],
        accuracy=values["accuracy"],
        labels=tuple(values["labels"]),
        per_class=per_class,
        macro=ClassScore(macro["precision"], macro["recall"], macro["f1"]),
        confusion=values["confusion"],
    )
