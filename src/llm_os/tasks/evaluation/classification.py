"""Judges a classifier (or a regression) on a data set: the figures of `model.evaluate`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from llm_os.errors import DataError, UnsupportedModelError
from llm_os.memory import serving
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json, Spec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.applications.labels import labels_of
from llm_os.tasks.context import Context
from llm_os.tasks.task import Task
from llm_os.tasks.training.batches import read_rows


class EvaluationOptions(Spec):
    split: str = "test"
    """Split of the data set that is judged on."""
    start: int = Field(default=0, ge=0)
    """First row of the split."""
    stop: int | None = Field(default=None, ge=1)
    """Row to stop before; none: to the end."""
    batch_size: int = Field(default=64, ge=1)
    """Texts computed together."""


class Classification(Task[EvaluationOptions]):
    Options = EvaluationOptions
    inputs = ("model", "data")
    output = "report"
    cacheable = True

    def resources(
        self, options: EvaluationOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity
    ) -> ResourceSpec:
        meta, wanted = inputs["model"].meta, labels_of(inputs["data"])
        if meta.get("task") != "text-classification":
            raise UnsupportedModelError(
                "This model has no classification head, so there is nothing to evaluate.",
                hint="Train it first: model.train(data).",
            )
        if meta.get("labels") != wanted:
            raise DataError(
                f"The model knows {_named(meta.get('labels'))}; the data has {_named(wanted)}.",
                hint="Evaluate on data with the classes the model was trained on.",
            )
        return ResourceSpec(
            cpus=min(0.5, granted.cpus), memory=serving.estimate(inputs["model"].size, overhead=900 * 2**20)
        )

    def run(self, context: Context, options: EvaluationOptions) -> None:
        import torch

        from llm_os.models.load import load_classifier

        torch.set_num_threads(context.threads)
        classifier = load_classifier(context.inputs["model"].path)
        rows = read_rows(context.inputs["data"].path, options.split, options.start, options.stop)
        outputs: list[list[float]] = []
        for begin in range(0, len(rows), 8 * options.batch_size):
            part = rows[begin : begin + 8 * options.batch_size]
            outputs += classifier.predict([str(row["text"]) for row in part], options.batch_size)
            context.report(stage="evaluating", step=len(outputs), total=len(rows))
        targets = [row["label"] for row in rows]
        if classifier.labels:
            figures = classification_figures(outputs, [str(t) for t in targets], classifier.labels)
        else:
            figures = regression_figures([row[0] for row in outputs], [float(t) for t in targets])
        text = json.dumps(figures, ensure_ascii=False, indent=1) + "\n"
        (context.output / "report.json").write_text(text, encoding="utf-8")
        summary: dict[str, Json] = {name: value for name, value in figures.items() if isinstance(value, float | int)}
        context.finish("report", {"metrics": summary})
        context.result(**figures)


def classification_figures(
    probabilities: Sequence[Sequence[float]], targets: Sequence[str], labels: Sequence[str]
) -> dict[str, Json]:
    """Accuracy, cross entropy, precision, recall and F1 by class and macro, confusion (rows: true, columns: said)."""
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

    ids = {label: number for number, label in enumerate(labels)}
    true = [ids[target] for target in targets]
    said = [max(range(len(labels)), key=lambda i, row=row: row[i]) for row in probabilities]  # type: ignore[misc]
    every = list(range(len(labels)))
    parts = precision_recall_fscore_support(true, said, labels=every, zero_division=0.0)
    macro = precision_recall_fscore_support(true, said, labels=every, average="macro", zero_division=0.0)
    names = ("precision", "recall", "f1", "support")
    per_class: dict[str, Any] = {
        label: {name: float(parts[at][number]) for at, name in enumerate(names)} for number, label in enumerate(labels)
    }
    return {
        "accuracy": float(accuracy_score(true, said)),
        "loss": cross_entropy(probabilities, true),
        "count": len(true),
        "labels": list(labels),
        "per_class": per_class,
        "macro": {name: float(macro[at]) for at, name in enumerate(names[:3])},
        "confusion": confusion_matrix(true, said, labels=every).tolist(),
    }


def cross_entropy(probabilities: Sequence[Sequence[float]], true: Sequence[int]) -> float:
    """Mean of -ln of the probability of the true class, which is taken as at least 1e-12."""
    return -math.fsum(math.log(max(row[i], 1e-12)) for row, i in zip(probabilities, true, strict=True)) / len(true)


def regression_figures(said: Sequence[float], true: Sequence[float]) -> dict[str, Json]:
    """Mean squared error (the loss), mean absolute error and R2."""
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    return {
        "loss": float(mean_squared_error(true, said)),
        "mean_absolute_error": float(mean_absolute_error(true, said)),
        "r2": float(r2_score(true, said)) if len(true) > 1 else 0.0,
        "count": len(true),
        "labels": None,
    }


def _named(labels: Any) -> str:
    return f"the classes {', '.join(map(str, labels))}" if labels else "no classes but a number"


PLUGIN = Classification()
