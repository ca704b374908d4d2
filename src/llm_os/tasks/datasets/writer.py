"""Writes a prepared data set folder: rows, their offsets, and what is known of each split. Knows no source."""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from llm_os.spec.base import Json
from llm_os.tasks.context import Context

Row = Mapping[str, Json]


def write_dataset(
    context: Context,
    *,
    name: str,
    language: str,
    splits: Mapping[str, Sequence[Row]],
    labels: Sequence[str] | None,
    source: Mapping[str, Json],
) -> dict[str, Json]:
    """Fill `context.output` and return the meta that was written.

    Args:
        splits: rows by split name; every row has `text` and `label`.
        labels: class names in the order of their ids; None: `label` is a number to be predicted.
    """
    facts: dict[str, Json] = {}
    for split, rows in splits.items():
        folder = context.output / split
        folder.mkdir()
        facts[split] = {**_write_rows(folder, rows), **_statistics(rows, labels)}
    first = next((rows[0] for rows in splits.values() if rows), {})
    meta: dict[str, Json] = {
        "name": name,
        "language": language,
        "columns": list(first),
        "text": "text",
        "label": "label",
        "labels": None if labels is None else list(labels),
        "task": "regression" if labels is None else "text-classification",
        "splits": facts,
        "source": dict(source),
    }
    text = json.dumps(meta, ensure_ascii=False, indent=1, sort_keys=True)
    (context.output / "dataset.json").write_text(text + "\n", encoding="utf-8")
    context.finish("dataset", meta)
    return meta


def _write_rows(folder: Path, rows: Sequence[Row]) -> dict[str, Json]:
    fingerprint, offset = hashlib.sha256(), 0
    with (folder / "rows.jsonl").open("wb") as data, (folder / "rows.idx").open("wb") as index:
        for row in rows:
            line = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            index.write(struct.pack("<Q", offset))
            data.write(line)
            fingerprint.update(line)
            offset += len(line)
        index.write(struct.pack("<Q", offset))
    return {"rows": len(rows), "fingerprint": f"sha256:{fingerprint.hexdigest()}"}


def _statistics(rows: Sequence[Row], labels: Sequence[str] | None) -> dict[str, Json]:
    texts = [str(row["text"]) for row in rows]
    numbers = [float(row["label"]) for row in rows if isinstance(row["label"], int | float)]
    counts = Counter(str(row["label"]) for row in rows) if labels is not None else Counter()
    return {
        "classes": {label: counts[label] for label in labels or ()},
        "score": quantiles(numbers) if labels is None else None,
        "characters": quantiles([len(text) for text in texts]),
        "words": quantiles([len(text.split()) for text in texts]),
        "duplicates": len(texts) - len({text.casefold() for text in texts}),
    }


def quantiles(values: Iterable[float]) -> dict[str, Json]:
    """Least, quarters, 95th percentile and largest (nearest rank); empty for no values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    last = len(ordered) - 1
    points = {"min": 0.0, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
    return {name: ordered[round(share * last)] for name, share in points.items()}
