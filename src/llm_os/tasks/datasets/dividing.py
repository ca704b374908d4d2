"""Which rows of a data set are for training and which for testing, by the user's options. Knows no file and no kind.

`splits` divides; this says what must stay together, and what is a leak.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_os.errors import EmptyDataError, LeakError
from llm_os.tasks.datasets import splits
from llm_os.tasks.datasets.options import DataOptions
from llm_os.tasks.preparation.personal import excerpt, regions_of

if TYPE_CHECKING:
    import numpy

MOST_FOR_NEAR = 300_000
"""Texts that are compared with each other by default, at most: beyond it the signatures would not fit in memory."""
TEMPLATE = 0.1
"""Share of the rows from which a group of nearly equal texts is taken for what the data is like, not for copies."""
NAMED, SHOWN = 3, 60
"""Examples that an error shows, and characters of each."""


class Division:
    """One division of rows.

    Args:
        text: by which rows are compared with each other, by the number of the row. message: says something to the user.

    Attributes:
        tally: what was left out or kept, and how often.
    """

    def __init__(
        self, options: DataOptions, table: splits.Table, text: Callable[[int], str], message: Callable[[str], None]
    ) -> None:
        self._options, self._table, self._text, self._message = options, table, text, message
        self.tally: Counter[str] = Counter()

    def run(self, kept: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
        """(training rows, test rows) as indices.

        Args:
            kept: rows that are divided.

        Raises:
            EmptyDataError: one side would be empty. LeakError: a given split has texts on both sides.
        """
        import numpy

        options, table = self._options, self._table
        given = numpy.asarray(table.given)[kept]
        fixed = given == 0
        if fixed.any() and (given < 0).any():
            return self._beside(kept[fixed], *self.run(kept[~fixed]))
        unit = self._units(kept)
        if (given >= 0).all():
            test = given == 1
        elif options.split == "time":
            test = splits.newest(table, kept, options.test_size)
        else:
            if options.split == "grouped":
                unit = splits.joined(unit, numpy.asarray(table.group)[kept])
            test = splits.divide(table, kept, unit, options.test_size, stratified=options.split == "stratified")
        if not test.any() or test.all():
            raise EmptyDataError(
                f"test_size={options.test_size} of {len(kept)} rows leaves one side empty.",
                hint="Give more rows, or another test_size.",
            )
        drop = self._leaks(kept, unit, test)
        return kept[~test & ~drop], kept[test]

    def _beside(
        self, fixed: numpy.ndarray, train: numpy.ndarray, test: numpy.ndarray
    ) -> tuple[numpy.ndarray, numpy.ndarray]:
        """A division of the other rows, and those that are for training only unless the test has their like."""
        import numpy

        rows = numpy.concatenate([test, fixed])
        unit = self._units(rows)
        like = numpy.isin(unit[len(test) :], unit[: len(test)])
        self.tally.update({"training rows like a test row": int(like.sum())} if like.any() else {})
        return numpy.sort(numpy.concatenate([train, fixed[~like]])), test

    def _units(self, kept: numpy.ndarray) -> numpy.ndarray:
        """Rows that must stay together. Texts that are nearly all alike (templates) are told apart by equality only."""
        import numpy

        equal = splits.units(self._table, kept, self._text, None)
        threshold = self._options.near_duplicates
        if threshold is None or threshold >= 1:
            return equal
        if len(kept) > MOST_FOR_NEAR:
            self._message(f"{len(kept):,} texts are too many to compare all: only equal ones stay together.")
            return equal
        near = splits.units(self._table, kept, self._text, threshold)
        largest = int(numpy.bincount(near).max())
        if largest > max(TEMPLATE * len(kept), int(numpy.bincount(equal).max())):
            self._message(f"{largest:,} texts are alike, as from a template: only equal ones stay together.")
            return equal
        return near

    def _leaks(self, kept: numpy.ndarray, unit: numpy.ndarray, test: numpy.ndarray) -> numpy.ndarray:
        """True for each training row that must go. Raises LeakError where texts are on both sides of a given split."""
        import numpy

        both = numpy.intersect1d(unit[test], unit[~test])
        inside = numpy.isin(unit, both)
        count = int((inside & ~test).sum())
        if not count or self._options.leaks == "keep":
            self.tally.update({"leaks that were kept": count} if count else {})
            return numpy.zeros(len(kept), dtype=bool)
        if self._options.leaks == "drop":
            self.tally["training rows like a test row"] += count
            return inside & ~test
        shown, regions = [], regions_of(self._options.language)
        for one in both[:NAMED]:
            members = kept[unit == one]
            sides = test[unit == one]
            texts = [excerpt(self._text(int(i)), regions, SHOWN) for i in (members[~sides][0], members[sides][0])]
            shown.append(f"'{texts[0]}' (training) and '{texts[1]}' (test)")
        raise LeakError(
            f"{count} training rows have an equal or nearly equal text in the test: {'; '.join(shown)}.",
            hint="leaks='drop' takes them out of the training rows; leaks='keep' leaves them in.",
            details={"rows": count, "examples": list(shown)},
        )
