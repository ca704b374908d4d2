"""Texts that occur more than once: inside what is described, with different labels, and over the splits (leaks).

Keeps about 40 bytes a row, and the signatures of near-duplicate detection for the rows that are compared.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_os.spec.quality import Copies, CopyGroup, RowRef
from llm_os.tasks.preparation.near import groups, near_pairs, normal_form
from llm_os.tasks.preparation.personal import excerpt
from llm_os.tasks.quality.rows import Seen

if TYPE_CHECKING:
    import numpy

TEMPLATE = 0.1
"""Share of the rows from which a group of nearly equal texts is what the data is like, not copies (as in ingest)."""
SHOWN = 4
"""Rows of a group that are named."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the answer is about.

    Attributes:
        own: splits that are described. training: rows of it that leak are counted, where several are described.
        threshold: least similarity of nearly equal texts; None: equal ones only.
        most: rows that are compared for it. examples: groups that are named.
    """

    own: tuple[str, ...]
    threshold: float | None
    most: int
    examples: int
    regions: Sequence[str]
    training: str = "train"


class CopyCheck:
    """`add` every row of what is described, and every row of the other splits.

    Args:
        text: split, row -> the row's text; asked again for the few that are compared or shown.
    """

    def __init__(self, asked: Asked, text: Callable[[RowRef], str]) -> None:
        self._asked, self._text = asked, text
        self._forms, self._labels, self._rows = array("Q"), array("Q"), array("Q")
        self._splits = array("b")
        self._names: list[str] = []
        self._label_names: dict[int, str] = {}

    def add(self, seen: Seen) -> None:
        label = "|".join(seen.names)
        self._forms.append(_number(normal_form(seen.text)))
        self._labels.append(_number(label))
        if len(self._label_names) < 1000:
            self._label_names.setdefault(self._labels[-1], label)
        self._rows.append(seen.at.row)
        if seen.at.split not in self._names:
            self._names.append(seen.at.split)
        self._splits.append(self._names.index(seen.at.split))

    def result(self) -> Copies:
        import numpy

        asked = self._asked
        own = numpy.isin(numpy.asarray(self._splits), [self._names.index(n) for n in asked.own if n in self._names])
        _, first, equal = numpy.unique(numpy.asarray(self._forms), return_index=True, return_inverse=True)
        near, least, compared, alike = self._near(equal, first)
        unit = near[equal]
        leaking, leaks = self._leaks(unit, own)
        repeated = int(own.sum()) - len(numpy.unique(equal[own]))
        conflicts = self._conflicts(equal, own)
        return Copies(
            compared=compared,
            threshold=asked.threshold,
            equal=repeated,
            near=int(own.sum()) - len(numpy.unique(unit[own])) - repeated,
            conflicting=sum(len(group) for group in conflicts),
            alike=alike,
            leaking=leaking,
            groups=self._named(_grouped(unit, own), least, unit),
            conflicts=self._named(conflicts, least, equal),
            leaks=self._named(leaks, least, unit),
        )

    def _near(self, equal: numpy.ndarray, first: numpy.ndarray) -> tuple[numpy.ndarray, dict[int, float], int, int]:
        """(unit of each form, least similarity by unit, rows that were compared, rows of a template)."""
        import numpy

        forms, asked = len(first), self._asked
        alone = numpy.arange(forms)
        if asked.threshold is None or asked.threshold >= 1:
            return alone, {}, len(equal), 0
        taken = numpy.sort(first)[: asked.most]
        form_of = equal[taken]
        pairs = list(
            near_pairs(len(taken), lambda i: normal_form(self._text(self._at(int(taken[i])))), asked.threshold)
        )
        root = numpy.asarray(groups(len(taken), iter(pairs)), dtype=numpy.int64)
        unit = alone.copy()
        unit[form_of] = form_of[root]
        sizes = numpy.bincount(unit[equal])
        if len(sizes) and sizes.max() > max(TEMPLATE * len(equal), numpy.bincount(equal).max(), 10):
            return alone, {}, len(taken), int(sizes.max())
        least: dict[int, float] = {}
        for i, _, found in pairs:
            key = int(unit[form_of[i]])
            least[key] = min(found, least.get(key, 1.0))
        return unit, least, len(taken), 0

    def _leaks(self, unit: numpy.ndarray, own: numpy.ndarray) -> tuple[int, list[list[int]]]:
        """(own rows with a like text in another split, the groups that span splits)."""
        import numpy

        splits = numpy.asarray(self._splits)
        pairs = numpy.unique(numpy.stack([unit, splits]), axis=1)[0]
        spanning = numpy.unique(pairs[:-1][pairs[1:] == pairs[:-1]])
        inside = numpy.isin(unit, spanning)
        counted = inside & own
        if len(self._asked.own) > 1 and self._asked.training in self._names:
            counted &= splits == self._names.index(self._asked.training)
        touched = numpy.unique(unit[counted])
        return int(counted.sum()), _grouped(unit, numpy.isin(unit, touched))

    def _conflicts(self, equal: numpy.ndarray, own: numpy.ndarray) -> list[list[int]]:
        import numpy

        labels = numpy.asarray(self._labels)
        return [group for group in _grouped(equal, own) if len(numpy.unique(labels[group])) > 1]

    def _named(self, found: list[list[int]], least: dict[int, float], unit: numpy.ndarray) -> tuple[CopyGroup, ...]:
        """The largest groups, each with some of its rows: where it spans splits, one of each first."""
        named = []
        for group in sorted(found, key=lambda rows: (-len(rows), rows[0]))[: self._asked.examples]:
            one_each = list({self._splits[i]: i for i in reversed(group)}.values())
            order = [*one_each, *(i for i in group if i not in one_each)]
            labels = sorted({self._label_names.get(self._labels[i], "?") for i in group} - {""})
            named.append(
                CopyGroup(
                    rows=tuple(self._at(i) for i in order[:SHOWN]),
                    count=len(group),
                    similarity=round(least.get(int(unit[group[0]]), 1.0), 3),
                    labels=tuple(labels[:10]),
                    excerpt=excerpt(self._text(self._at(group[0])), self._asked.regions, 80),
                )
            )
        return tuple(named)

    def _at(self, index: int) -> RowRef:
        return RowRef(split=self._names[self._splits[index]], row=self._rows[index])


def _grouped(unit: numpy.ndarray, inside: numpy.ndarray) -> list[list[int]]:
    """Indices of each unit that has two or more rows `inside`, ascending."""
    import numpy

    members = numpy.flatnonzero(inside)
    order = members[numpy.argsort(unit[members], kind="stable")]
    borders = numpy.flatnonzero(numpy.diff(unit[order])) + 1
    return [part.tolist() for part in numpy.split(order, borders) if len(part) > 1]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
