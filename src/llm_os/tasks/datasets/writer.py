"""Writes a prepared data set folder: rows, their offsets, and what is known of each split. Knows no source."""

from __future__ import annotations

import hashlib
import json
import struct
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from llm_os.spec.base import Json
from llm_os.tasks.context import Context
from llm_os.tasks.datasets.kinds import Kind
from llm_os.tasks.preparation.near import normal_form

Row = Mapping[str, Json]
LONGEST_COLUMNS = 200
"""Columns that are remembered by name, at most."""


class Facts:
    """What is counted while rows pass by: about 16 bytes a row in memory."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.columns: dict[str, None] = {}
        self._forms, self._numbers = array("Q"), array("d")
        self._characters, self._words = array("l"), array("l")
        self._classes: Counter[str] = Counter()

    def seen(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            if len(self.columns) < LONGEST_COLUMNS:
                self.columns.update(dict.fromkeys(row))
            text = self._kind.content(row)
            digest = hashlib.blake2b(normal_form(text).encode("utf-8", "replace"), digest_size=8).digest()
            self._forms.append(int.from_bytes(digest, "big"))
            self._characters.append(len(text))
            self._words.append(len(text.split()))
            if self._kind.classes:
                self._classes.update(self._kind.names(row))
            elif self._kind.label and isinstance(value := row.get(self._kind.label), int | float):
                self._numbers.append(float(value))
            yield row

    def summary(self, labels: Sequence[str] | None) -> dict[str, Json]:
        import numpy

        return {
            "classes": {label: self._classes[label] for label in labels or ()},
            "score": quantiles(self._numbers) if self._numbers else None,
            "characters": quantiles(self._characters),
            "words": quantiles(self._words),
            "duplicates": len(self._forms) - len(numpy.unique(numpy.asarray(self._forms))),
        }


def write_dataset(
    context: Context,
    *,
    name: str,
    language: str,
    kind: Kind,
    splits: Mapping[str, Iterable[Row]],
    labels: Sequence[str] | None,
    source: Mapping[str, Json],
    more: Callable[[], Mapping[str, Json]] = dict,
) -> dict[str, Json]:
    """Fill `context.output` and return the meta that was written; rows are streams.

    Args:
        splits: rows by split name, in the form that `kind` gives them.
        labels: class names in the order of their ids; None where there are none.
        more: asked for further facts when all rows have passed: `steps`, `parent`, what was left out.
    """
    facts: dict[str, Json] = {}
    columns: dict[str, None] = {}
    for split, rows in splits.items():
        folder = context.output / split
        folder.mkdir()
        seen = Facts(kind)
        facts[split] = {**write_rows(folder, seen.seen(rows)), **seen.summary(labels)}
        columns.update(seen.columns)
    meta: dict[str, Json] = {
        "name": name,
        "language": language,
        "columns": list(columns),
        "kind": kind.name,
        "text": "text" if "text" in columns else None,
        "label": kind.label,
        "labels": None if labels is None else list(labels),
        "task": kind.task,
        "splits": facts,
        "source": dict(source),
        **more(),
    }
    text = json.dumps(meta, ensure_ascii=False, indent=1, sort_keys=True)
    (context.output / "dataset.json").write_text(text + "\n", encoding="utf-8")
    context.finish("dataset", meta)
    return meta


def write_rows(folder: Path, rows: Iterable[Row]) -> dict[str, Json]:
    """`rows.jsonl` and `rows.idx` (little-endian uint64 offsets, one more than rows); number and fingerprint."""
    fingerprint, offset, count = hashlib.sha256(), 0, 0
    with (folder / "rows.jsonl").open("wb") as data, (folder / "rows.idx").open("wb") as index:
        for row in rows:
            line = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
            index.write(struct.pack("<Q", offset))
            data.write(line)
            fingerprint.update(line)
            offset += len(line)
            count += 1
        index.write(struct.pack("<Q", offset))
    return {"rows": count, "fingerprint": f"sha256:{fingerprint.hexdigest()}"}


def quantiles(values: Sequence[float] | array[int] | array[float]) -> dict[str, Json]:
    """Least, quarters, 95th percentile and largest (nearest rank); empty for no values."""
    import numpy

    if not len(values):
        return {}
    ordered = numpy.sort(numpy.asarray(values))
    last = len(ordered) - 1
    points = {"min": 0.0, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
    return {name: ordered[round(share * last)].item() for name, share in points.items()}
