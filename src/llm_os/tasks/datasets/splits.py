"""Divides rows into train and test: in proportion, by group or by time, and never one text on both sides. Pure.

Works on arrays about rows, not on rows, so that data larger than memory can be divided.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llm_os.tasks.preparation.near import groups, near_pairs, normal_form

if TYPE_CHECKING:
    import numpy

TEST, SHUFFLE, LIMIT = 0, 1, 2
"""Added to the seed: each choice has a random order of its own."""


def order(seed: int, text: str) -> int:
    """A place in a random order that depends on seed and text only, so it is the same on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\x00{text}".encode(), digest_size=16).digest()[:8], "big")


@dataclass(slots=True)
class Table:
    """What must be known of each row to divide them; about 50 bytes a row."""

    seed: int
    form: array[int] = field(default_factory=lambda: array("Q"))
    test_order: array[int] = field(default_factory=lambda: array("Q"))
    shuffle: array[int] = field(default_factory=lambda: array("Q"))
    limit: array[int] = field(default_factory=lambda: array("Q"))
    stratum: array[int] = field(default_factory=lambda: array("l"))
    group: array[int] = field(default_factory=lambda: array("Q"))
    time: array[float] = field(default_factory=lambda: array("d"))
    given: array[int] = field(default_factory=lambda: array("b"))
    """-1: nobody said; 0: training; 1: test."""
    strata: dict[str, int] = field(default_factory=dict)

    def add(self, text: str, stratum: str, *, group: str | None, time: float, given: int) -> None:
        form = normal_form(text)
        self.form.append(order(0, form))
        self.test_order.append(order(self.seed + TEST, form))
        self.shuffle.append(order(self.seed + SHUFFLE, text))
        self.limit.append(order(self.seed + LIMIT, text))
        self.stratum.append(self.strata.setdefault(stratum, len(self.strata)))
        self.group.append(0 if group is None else order(0, group))
        self.time.append(time)
        self.given.append(given)

    def __len__(self) -> int:
        return len(self.form)


def units(table: Table, kept: numpy.ndarray, text: Callable[[int], str], threshold: float | None) -> numpy.ndarray:
    """For each kept row the number of its unit: rows of equal form, or nearly equal texts, are one unit.

    Args:
        kept: indices of rows. text: row index -> its text. threshold: least similarity; None: equal forms only.
    """
    import numpy

    _, first, inverse = numpy.unique(numpy.asarray(table.form)[kept], return_index=True, return_inverse=True)
    if threshold is None or threshold >= 1:
        return inverse
    rows = [int(i) for i in kept[first]]
    pairs = near_pairs(len(rows), lambda i: normal_form(text(rows[i])), threshold)
    return numpy.asarray(groups(len(rows), pairs), dtype=numpy.int64)[inverse]


def chosen(table: Table, limit: int | None) -> numpy.ndarray:
    """Indices of the rows that are kept, ascending: all, or `limit` at random, each stratum its share, two at least."""
    import numpy

    everything = numpy.arange(len(table))
    if limit is None or limit >= len(table):
        return everything
    share = limit / len(table)
    strata, places = numpy.asarray(table.stratum), numpy.asarray(table.limit)
    taken = []
    for stratum in range(len(table.strata)):
        members = everything[strata == stratum]
        members = members[numpy.argsort(places[members], kind="stable")]
        taken.append(members[: max(2, round(share * len(members)))])
    return numpy.sort(numpy.concatenate(taken))


def divide(
    table: Table, kept: numpy.ndarray, unit: numpy.ndarray, test_size: float, *, stratified: bool
) -> numpy.ndarray:
    """True for each kept row that goes to the test. A unit stays whole, in the stratum of its first row."""
    import numpy

    _, first, inverse, sizes = numpy.unique(unit, return_index=True, return_inverse=True, return_counts=True)
    strata = numpy.asarray(table.stratum)[kept[first]] if stratified else numpy.zeros(len(first), dtype=numpy.int64)
    places = numpy.asarray(table.test_order)[kept[first]]
    test = numpy.zeros(len(first), dtype=bool)
    for stratum in numpy.unique(strata):
        members = numpy.flatnonzero(strata == stratum)
        members = members[numpy.argsort(places[members], kind="stable")]
        wanted = round(test_size * int(sizes[members].sum()))
        before = numpy.cumsum(sizes[members]) - sizes[members]
        test[members[before < wanted]] = True
    return test[inverse]


def newest(table: Table, kept: numpy.ndarray, test_size: float) -> numpy.ndarray:
    """True for the share of kept rows with the latest times; rows of the moment at the border are all test."""
    import numpy

    times = numpy.asarray(table.time)[kept]
    wanted = max(1, round(test_size * len(kept)))
    return times >= numpy.sort(times)[len(kept) - wanted]


def shuffled(table: Table, members: numpy.ndarray) -> Iterator[int]:
    """Row indices in the random order of the seed."""
    import numpy

    return iter(members[numpy.argsort(numpy.asarray(table.shuffle)[members], kind="stable")].tolist())


def joined(unit: numpy.ndarray, group: numpy.ndarray) -> numpy.ndarray:
    """Units where rows of one group, and rows of one unit, are together: connected components of both relations."""
    import numpy
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    _, units = numpy.unique(unit, return_inverse=True)
    _, names = numpy.unique(group, return_inverse=True)
    size = units.max() + names.max() + 2
    links = coo_matrix((numpy.ones(len(units)), (units, names + units.max() + 1)), shape=(size, size))
    _, component = connected_components(links, directed=False)
    found: numpy.ndarray = component[units]
    return found


def parts(table: Table, kept: numpy.ndarray, unit: numpy.ndarray, folds: int) -> numpy.ndarray:
    """The part (0 to folds - 1) of each kept row: strata in proportion, units whole."""
    import numpy

    _, first, inverse, sizes = numpy.unique(unit, return_index=True, return_inverse=True, return_counts=True)
    strata = numpy.asarray(table.stratum)[kept[first]]
    places = numpy.asarray(table.test_order)[kept[first]]
    part = numpy.zeros(len(first), dtype=numpy.int64)
    for stratum in numpy.unique(strata):
        members = numpy.flatnonzero(strata == stratum)
        members = members[numpy.argsort(places[members], kind="stable")]
        middle = numpy.cumsum(sizes[members]) - sizes[members] / 2
        part[members] = numpy.minimum(folds - 1, (middle * folds / sizes[members].sum()).astype(numpy.int64))
    return part[inverse]
