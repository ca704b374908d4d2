"""Figures of several labels a row: which probabilities count as said, and how right that is. Knows no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_os.errors import DataError
from llm_os.spec.base import Json
from llm_os.tasks.evaluation.judging import Judgement
from llm_os.tasks.evaluation.spans import scores

if TYPE_CHECKING:
    from llm_os.tasks.evaluation.metrics import Array

LEAST = 1e-12


def judged(
    rows: Sequence[Mapping[str, Any]],
    probabilities: Sequence[Sequence[float]],
    labels: Sequence[str],
    thresholds: Sequence[float],
) -> Judgement:
    """F1 micro and macro, subset accuracy (all labels of a row right), and binary cross entropy.

    Args:
        probabilities: [rows, labels], each from 0 to 1 on its own. thresholds: of each label; from there it is said.

    Raises:
        DataError: a row has a label the model does not know.
    """
    import numpy as np

    from llm_os.tasks.evaluation.metrics import Metric, mean

    true = wanted(rows, labels)
    sure = np.asarray(probabilities, dtype=np.float64)
    said = (sure >= np.asarray(thresholds)).astype(np.float64)
    hits = said * true
    ends = np.where(true == 1, sure, 1 - sure)
    per_class: dict[str, Json] = {
        label: scores(int(hits[:, k].sum()), int(said[:, k].sum()), int(true[:, k].sum()))
        for k, label in enumerate(labels)
    }
    values = [one for one in per_class.values() if isinstance(one, dict)]
    return Judgement(
        kind="multi-label",
        metrics=[
            Metric("micro_f1", "f1", np.stack([hits.sum(1), said.sum(1), true.sum(1)], axis=1)),
            Metric("macro_f1", "macro_f1", np.concatenate([hits, said, true], axis=1)),
            mean("subset_accuracy", (said == true).all(axis=1).astype(np.float64)),
            mean("loss", -np.log(np.maximum(ends, LEAST)).mean(axis=1), "lower"),
        ],
        shown=("micro_f1", "subset_accuracy"),
        rows=rows,
        texts=[str(row["text"]) for row in rows],
        targets=("text", "labels", "id"),
        said=[
            {"row": at, "true": row["labels"], "said": [name for name, one in zip(labels, line, strict=True) if one]}
            for at, (row, line) in enumerate(zip(rows, said, strict=True))
        ],
        further={
            "labels": list(labels),
            "per_class": per_class,
            "macro": {name: float(np.mean([one[name] for one in values])) for name in ("precision", "recall", "f1")},
            "thresholds": dict(zip(labels, map(float, thresholds), strict=True)),
        },
    )


def wanted(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Array:
    """[rows, labels]: 1 where the row has the label. Raises DataError for one that is not in `labels`."""
    import numpy as np

    ids = {label: number for number, label in enumerate(labels)}
    found = np.zeros((len(rows), len(labels)))
    for at, row in enumerate(rows):
        for label in row["labels"]:
            if str(label) not in ids:
                raise DataError(f"Row {at} has the label '{label}'.", hint=f"The model knows: {', '.join(labels)}.")
            found[at, ids[str(label)]] = 1.0
    return found
