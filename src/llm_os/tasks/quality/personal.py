"""Personal data in the rows: how much of each kind and where, with masked samples. The raw values go nowhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from llm_os.spec.quality import Personal, Sample
from llm_os.tasks.preparation.fields import Search
from llm_os.tasks.preparation.personal import masked
from llm_os.tasks.quality.rows import Seen


class PersonalCheck:
    """Every column but the labels.

    Args:
        regions: whose phone numbers need no country code. samples: kept of each kind.
    """

    def __init__(self, regions: Sequence[str], samples: int) -> None:
        self._search, self._most = Search(regions), samples
        self._looked_at = self._rows = 0
        self._counts: Counter[str] = Counter()
        self._samples: dict[str, list[Sample]] = {}

    def add(self, seen: Seen) -> None:
        self._looked_at += 1
        found = self._search.found(seen.row)
        self._rows += bool(found)
        for column, text, spans in found:
            for begin, end, kind in spans:
                self._counts[kind] += 1
                kept = self._samples.setdefault(kind, [])
                if len(kept) < self._most:
                    kept.append(Sample(at=seen.at, column=column, kind=kind, masked=masked(text[begin:end], kind)))

    def result(self) -> Personal:
        return Personal(
            looked_at=self._looked_at,
            rows=self._rows,
            counts=dict(self._counts.most_common()),
            samples=tuple(sample for kept in self._samples.values() for sample in kept),
        )
