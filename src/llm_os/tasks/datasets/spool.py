"""Rows on disk while it is not yet known where they go: appended once, read again by number. Knows no split."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llm_os.spec.base import Json


class Spool:
    """A file of rows and where each begins (8 bytes a row in memory). Ends with the `with` block, the file too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b")
        self._offsets = array("Q")
        self._end = 0
        self._flushed = True

    def add(self, row: Mapping[str, Json]) -> int:
        """Append a row; its number."""
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        self._file.write(line)
        self._offsets.append(self._end)
        self._end += len(line)
        self._flushed = False
        return len(self._offsets) - 1

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, number: int) -> dict[str, Any]:
        if not self._flushed:
            self._file.flush()
            self._flushed = True
        begin = self._offsets[number]
        end = self._offsets[number + 1] if number + 1 < len(self._offsets) else self._end
        row: dict[str, Any] = json.loads(os.pread(self._file.fileno(), end - begin, begin))
        return row

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
