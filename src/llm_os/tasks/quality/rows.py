"""Rows of a prepared data set, by number or in order, and what a check sees of one. Holds no rows in memory."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llm_os.spec.base import Json
from llm_os.spec.quality import RowRef


@dataclass(frozen=True, slots=True)
class Seen:
    """One row as checks see it.

    Attributes:
        at: where a person finds it.
        text: by which the kind compares rows. names: its classes.
    """

    at: RowRef
    row: dict[str, Json]
    text: str
    names: tuple[str, ...]


class Split:
    """`rows.jsonl` with its offsets, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._maps = [self._mapped(folder / name) for name in ("rows.idx", "rows.jsonl")]

    def _mapped(self, path: Path) -> mmap.mmap | bytes:
        if not path.stat().st_size:
            return b""
        file = self._stack.enter_context(path.open("rb"))
        return self._stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def __len__(self) -> int:
        return max(0, len(self._maps[0]) // 8 - 1)

    def __getitem__(self, number: int) -> dict[str, Any]:
        begin, end = struct.unpack_from("<2Q", self._maps[0], 8 * number)
        row: dict[str, Any] = json.loads(self._maps[1][begin:end])
        return row

    def between(self, start: int, stop: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number, row) for `start <= number < stop`."""
        for number in range(start, len(self) if stop is None else min(stop, len(self))):
            yield number, self[number]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def every(rows: int, most: int) -> int:
    """Every how manieth row is looked at, so that at most `most` are. Prepared rows lie in random order."""
    return max(1, -(-rows // most))
