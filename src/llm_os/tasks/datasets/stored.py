"""Reads the rows of a prepared data set folder again, as a source of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from llm_os.tasks.datasets.ingest import SourceRow


def read(folder: Path) -> Iterator[SourceRow]:
    """Rows of both splits, the test first, each with its split."""
    for split in ("test", "train"):
        with (folder / split / "rows.jsonl").open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                yield SourceRow(f"Row {number} of {split}", json.loads(line), split)
