"""Figures of sentence vectors: do like texts lie near each other, and is the right one found? Knows no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_os.tasks.evaluation.judging import Judgement

if TYPE_CHECKING:
    from llm_os.tasks.evaluation.metrics import Array

AT = (1, 5, 10)
"""Places among which the right text must be."""


def correlated(rows: Sequence[Mapping[str, Any]], cosines: Array) -> Judgement:
    """Spearman's and Pearson's correlation of the cosine of each pair with the `score` that people gave it."""
    import numpy as np

    from llm_os.tasks.evaluation.metrics import Metric

    score = np.array([float(row["score"]) for row in rows])
    near = np.asarray(cosines, dtype=np.float64)
    sums = np.stack([near, score, near * near, score * score, near * score, np.ones_like(near)], axis=1)
    return Judgement(
        kind="similarity",
        metrics=[
            Metric("spearman", "spearman", np.stack([near, score], axis=1)),
            Metric("pearson", "pearson", sums),
        ],
        shown=("spearman", "pearson"),
        rows=rows,
        texts=[str(row["text"]) for row in rows],
        targets=("text", "other", "score", "id"),
        said=[
            {"row": at, "score": float(s), "cosine": round(float(c), 6)}
            for at, (s, c) in enumerate(zip(score, near, strict=True))
        ],
    )


def retrieved(rows: Sequence[Mapping[str, Any]], places: Sequence[int], corpus: int) -> Judgement:
    """Recall at 1, 5 and 10 and mean reciprocal rank of the other text of each pair among those of all pairs.

    Args:
        places: place of the right text, from 1. corpus: texts that were searched.
    """
    import numpy as np

    from llm_os.tasks.evaluation.metrics import mean

    at = np.asarray(places, dtype=np.float64)
    return Judgement(
        kind="retrieval",
        metrics=[
            *(mean(f"recall_at_{k}", (at <= k).astype(np.float64)) for k in AT),
            mean("mrr", 1 / at),
        ],
        shown=("recall_at_1", "mrr"),
        rows=rows,
        texts=[str(row["text"]) for row in rows],
        targets=("text", "other", "id"),
        said=[{"row": number, "place": int(place)} for number, place in enumerate(places)],
        further={"corpus": corpus},
    )


def places(queries: Array, corpus: Array, right: Sequence[int]) -> list[int]:
    """Place, from 1, of corpus text `right[i]` among all by cosine to query i; equal ones count before it.

    Args:
        queries, corpus: unit vectors [texts, width].
    """
    found = []
    for begin in range(0, len(queries), 256):
        near = queries[begin : begin + 256] @ corpus.T
        for row, index in zip(near, right[begin : begin + 256], strict=True):
            found.append(int((row >= row[index]).sum()))
    return found
