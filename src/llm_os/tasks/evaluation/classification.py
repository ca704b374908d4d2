"""Judges a classifier (or a regression) on a data set: the figures of `model.evaluate`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llm_os.errors import DataError, UnsupportedModelError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.applications.labels import labels_of
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation.judging import EvaluationOptions, Judgement, publish, sized
from llm_os.tasks.libraries import TRANSFORMERS
from llm_os.tasks.task import Task
from llm_os.tasks.training.batches import read_rows

LEAST = 1e-12
"""A probability of the true class below this counts as this: its logarithm would decide everything."""


class Classification(Task[EvaluationOptions]):
    Options = EvaluationOptions
    inputs = ("model", "data")
    output = "report"
    preload = TRANSFORMERS
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
        return sized(inputs["model"], granted)

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
        labels = classifier.labels
        publish(context, options, classified(rows, outputs, labels) if labels else estimated(rows, outputs))


def classified(
    rows: Sequence[Mapping[str, Any]], probabilities: Sequence[Sequence[float]], labels: Sequence[str]
) -> Judgement:
    """Accuracy, cross entropy, F1, calibration, and precision, recall and F1 by class.

    Args:
        probabilities: [rows, classes], in the order of `labels`.

    Raises:
        DataError: a row has a class the model does not know.
    """
    import numpy as np

    from llm_os.tasks.evaluation import calibration
    from llm_os.tasks.evaluation.metrics import Metric, mean

    ids = {label: number for number, label in enumerate(labels)}
    unknown = next((str(row["label"]) for row in rows if str(row["label"]) not in ids), None)
    if unknown is not None:
        raise DataError(f"A row has the class '{unknown}'.", hint=f"The model knows: {', '.join(labels)}.")
    true = np.array([ids[str(row["label"])] for row in rows])
    sure = np.asarray(probabilities, dtype=np.float64)
    said = sure.argmax(axis=1)
    right = (said == true).astype(np.float64)
    loss = -np.log(np.maximum(sure[np.arange(len(true)), true], LEAST))
    one = np.eye(len(labels))
    hits = np.concatenate([one[said] * right[:, None], one[said], one[true]], axis=1)
    confidence = sure.max(axis=1)
    metrics = [
        mean("accuracy", right),
        mean("loss", loss, "lower"),
        Metric("macro_f1", "macro_f1", hits),
        calibration.calibration_error(confidence, right),
        calibration.brier(sure, true),
    ]
    return Judgement(
        kind="classification",
        metrics=metrics,
        shown=("accuracy", "loss"),
        rows=rows,
        texts=[str(row["text"]) for row in rows],
        targets=("text", "label", "score", "id"),
        said=[
            {
                "row": at,
                "true": labels[t],
                "said": labels[s],
                "confidence": round(float(c), 6),
                "loss": round(float(x), 6),
            }
            for at, (t, s, c, x) in enumerate(zip(true, said, confidence, loss, strict=True))
        ],
        further={
            "accuracy": float(right.mean()),
            "loss": math.fsum(loss) / len(loss),
            "labels": list(labels),
            **by_class(true.tolist(), said.tolist(), labels),
            "calibration": calibration.reliability(confidence, right),
        },
    )


def by_class(true: Sequence[int], said: Sequence[int], labels: Sequence[str]) -> dict[str, Json]:
    """Precision, recall and F1 by class and macro; confusion (rows: true, columns: said)."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    every = list(range(len(labels)))
    parts = precision_recall_fscore_support(true, said, labels=every, zero_division=0.0)
    names = ("precision", "recall", "f1", "support")
    per_class: dict[str, Json] = {
        label: {name: float(parts[at][number]) for at, name in enumerate(names)} for number, label in enumerate(labels)
    }
    return {
        "per_class": per_class,
        "macro": {name: float(parts[at].mean()) for at, name in enumerate(names[:3])},
        "confusion": confusion_matrix(true, said, labels=every).tolist(),
    }


def estimated(rows: Sequence[Mapping[str, Any]], outputs: Sequence[Sequence[float]]) -> Judgement:
    """Mean squared error (the loss), mean absolute error, root mean squared error, R2 and Pearson's correlation."""
    import numpy as np

    from llm_os.tasks.evaluation.metrics import Metric, mean

    said = np.array([row[0] for row in outputs], dtype=np.float64)
    true = np.array([float(row["label"]) for row in rows], dtype=np.float64)
    one, squared = np.ones_like(true), (said - true) ** 2
    pairs = np.stack([said, true, said * said, true * true, said * true, one], axis=1)
    metrics = [
        mean("mean_absolute_error", np.abs(said - true), "lower"),
        mean("loss", squared, "lower"),
        Metric("root_mean_squared_error", "root", np.stack([squared, one], axis=1), "lower"),
    ]
    further: dict[str, Json] = {
        "loss": float(squared.mean()),
        "mean_absolute_error": float(np.abs(said - true).mean()),
        "r2": 0.0,
        "labels": None,
    }
    if np.ptp(true) > 0:
        r2 = Metric("r2", "r2", np.stack([squared, true, true * true, one], axis=1))
        metrics += [r2, Metric("pearson", "pearson", pairs)]
        further["r2"] = r2.value()
    return Judgement(
        kind="regression",
        metrics=metrics,
        shown=("mean_absolute_error", "loss"),
        rows=rows,
        texts=[str(row["text"]) for row in rows],
        targets=("text", "label", "score", "id"),
        said=[
            {"row": at, "true": float(t), "said": round(float(s), 6)}
            for at, (t, s) in enumerate(zip(true, said, strict=True))
        ],
        further=further,
    )


def _named(labels: Any) -> str:
    return f"the classes {', '.join(map(str, labels))}" if labels else "no classes but a number"


PLUGIN = Classification()
