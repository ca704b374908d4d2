"""Spans in sequences of tags (IOB, IOBES and plain tags), and figures of said against true ones. Knows no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_os.spec.base import Json
from llm_os.tasks.evaluation.judging import Judgement

Span = tuple[str, int, int]
"""(kind, first token, token to stop before)."""
OUTSIDE = "O"


def spans(tags: Sequence[str]) -> list[Span]:
    """Spans as conlleval reads them (Tjong Kim Sang and De Meulder 2003): a span begins at `B-` or `S-`, where the kind
    changes, and after `O`; it ends at `E-` and `S-` too, so that a missing beginning costs no span."""
    found: list[Span] = []
    begin, kind = 0, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        mark, _, name = tag.partition("-") if "-" in tag else ("I", "", "" if tag == OUTSIDE else tag)
        if kind and (mark in {"B", "S"} or name != kind):
            found.append((kind, begin, place))
            kind = ""
        if name and not kind:
            begin, kind = place, name
        if kind and mark in {"E", "S"}:
            found.append((kind, begin, place + 1))
            kind = ""
    return found


def judged(rows: Sequence[Mapping[str, Any]], said: Sequence[Sequence[str]]) -> Judgement:
    """F1, precision and recall of whole spans over all rows, F1 by kind of span, and accuracy by tag.

    Args:
        rows: `tokens` and `tags`. said: tags of each row, as many as it has tokens.
    """
    import numpy as np

    from llm_os.tasks.evaluation.metrics import Metric

    counts, tags = [], []
    kept: list[dict[str, Json]] = []
    by_kind: dict[str, list[int]] = {}
    for at, (row, answer) in enumerate(zip(rows, said, strict=True)):
        true, mine = set(spans(row["tags"])), set(spans(answer))
        counts.append([len(true & mine), len(mine), len(true)])
        tags.append([sum(a == b for a, b in zip(answer, row["tags"], strict=True)), len(answer)])
        for place, group in enumerate((true & mine, mine, true)):
            for kind, _, _ in group:
                by_kind.setdefault(kind, [0, 0, 0])[place] += 1
        kept.append({"row": at, "said": list(answer), "right": true == mine})
    sums, by_tag = np.array(counts, dtype=np.float64), np.array(tags, dtype=np.float64)
    per_class: dict[str, Json] = {kind: scores(*by_kind[kind]) for kind in sorted(by_kind)}
    return Judgement(
        kind="tokens",
        metrics=[
            Metric("span_f1", "f1", sums),
            Metric("span_precision", "share", sums[:, [0, 1]]),
            Metric("span_recall", "share", sums[:, [0, 2]]),
            Metric("tag_accuracy", "share", by_tag),
        ],
        shown=("span_f1", "tag_accuracy"),
        rows=rows,
        texts=[" ".join(row["tokens"]) for row in rows],
        targets=("tokens", "tags", "id"),
        said=kept,
        further={"per_class": per_class} if per_class else {},
    )


def scores(hits: int, said: int, true: int) -> dict[str, Json]:
    """Precision, recall, F1 (0 where they are not defined) and support."""
    return {
        "precision": hits / said if said else 0.0,
        "recall": hits / true if true else 0.0,
        "f1": 2 * hits / (said + true) if said + true else 0.0,
        "support": true,
    }
