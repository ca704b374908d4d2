"""Which columns hold nothing, and which hold one value only. Keeps at most a thousand hashes a column."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from llm_os.spec.base import Json
from llm_os.spec.quality import Column
from llm_os.tasks.preparation.personal import excerpt
from llm_os.tasks.quality.rows import Seen

TOLD_APART = 1000
MOST_COLUMNS = 200


@dataclass(slots=True)
class Tally:
    filled: int = 0
    distinct: set[bytes] = field(default_factory=set)
    first: Json = None


class ColumnCheck:
    def __init__(self) -> None:
        self._columns: dict[str, Tally] = {}

    def add(self, seen: Seen) -> None:
        for name, value in seen.row.items():
            tally = self._columns.get(name)
            if tally is None:
                if len(self._columns) >= MOST_COLUMNS:
                    continue
                tally = self._columns[name] = Tally()
            if value is None or value in ("", [], {}) or (isinstance(value, str) and not value.strip()):
                continue
            tally.filled += 1
            if tally.filled == 1:
                tally.first = value
            if len(tally.distinct) < TOLD_APART:
                tally.distinct.add(_digest(value))

    def result(self, regions: Sequence[str]) -> tuple[Column, ...]:
        return tuple(
            Column(
                name=name,
                filled=tally.filled,
                distinct=len(tally.distinct),
                constant=excerpt(_text(tally.first), regions) if len(tally.distinct) == 1 else None,
            )
            for name, tally in self._columns.items()
        )


def _digest(value: Json) -> bytes:
    return hashlib.blake2b(_text(value).encode("utf-8", "replace"), digest_size=8).digest()


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
