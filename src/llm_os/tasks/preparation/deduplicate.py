"""De-duplication: of texts that are equal, or nearly equal by MinHash, one row stays.

Knows rows by number only: they wait on disk. In memory are about 150 bytes a distinct text, and 600 more where nearly
equal ones are looked for.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from llm_os.spec.base import Json, Spec
from llm_os.tasks.datasets.spool import Spool
from llm_os.tasks.preparation.near import groups, near_pairs, normal_form
from llm_os.tasks.preparation.step import GIVEN, Bench, Row, Step
from llm_os.tasks.preparation.texts import texts


class DeduplicateOptions(Spec):
    threshold: float | None = Field(default=0.8, ge=0.3, le=1)
    """Texts at least this similar (Jaccard similarity of their character n-grams) count as one; none or 1: equal texts
    only. Equal means: after Unicode NFKC, without regard to case and spaces."""
    conflicts: Literal["first", "drop"] = "first"
    """Where equal or nearly equal texts have different labels: the first row stays, or none of them."""
    most_texts: int = Field(default=1_000_000, ge=1)
    """Beyond so many distinct texts only equal ones are found, because signatures would not fit in memory."""


class Deduplicate(Step[DeduplicateOptions]):
    """The first row of a group stays; a row of a given test split goes before training rows."""

    Options = DeduplicateOptions

    def apply(self, rows: Iterator[Row], options: DeduplicateOptions, bench: Bench) -> Iterator[Row]:
        with Spool(bench.scratch / "deduplicate.jsonl") as spool:
            first_of: dict[int, int] = {}
            equal, distinct = array("q"), array("q")
            for row in rows:
                number = spool.add(row)
                form = normal_form("\n".join(texts(row)))
                digest = int.from_bytes(hashlib.blake2b(form.encode("utf-8", "replace"), digest_size=8).digest(), "big")
                place = first_of.setdefault(digest, len(distinct))
                if place == len(distinct):
                    distinct.append(number)
                equal.append(place)
            del first_of
            near = self._near(spool, distinct, options, bench)
            group = [near[place] for place in equal]
            kept = chosen(spool, group, options.conflicts)
            bench.notes["equal"] = len(equal) - len(distinct)
            bench.notes["nearly equal"] = len(distinct) - len(set(near))
            bench.notes["conflicting labels"] = kept.count(CONFLICT)
            for number in range(len(spool)):
                if kept[group[number]] == number:
                    yield spool[number]

    def _near(self, spool: Spool, distinct: Sequence[int], options: DeduplicateOptions, bench: Bench) -> Sequence[int]:
        """For each distinct text the number of its group."""
        if options.threshold is None or options.threshold >= 1:
            return range(len(distinct))
        if len(distinct) > options.most_texts:
            bench.message(f"{len(distinct):,} texts are too many to compare all: only equal ones were taken out.")
            return range(len(distinct))
        pairs = near_pairs(
            len(distinct), lambda place: normal_form("\n".join(texts(spool[distinct[place]]))), options.threshold
        )
        return groups(len(distinct), pairs)


NOBODY, CONFLICT = -1, -2


def chosen(spool: Spool, group: Sequence[int], conflicts: str) -> list[int]:
    """By group the number of the row that stays; CONFLICT where rows of different labels are dropped all."""
    kept = [NOBODY] * (max(group, default=-1) + 1)
    sizes = [0] * len(kept)
    for one in group:
        sizes[one] += 1
    label: dict[int, Json] = {}
    tested: set[int] = set()
    for number, one in enumerate(group):
        if sizes[one] == 1:
            kept[one] = number
            continue
        row = spool[number]
        said = row.get("label", row.get("labels"))
        if conflicts == "drop" and label.setdefault(one, said) != said:
            kept[one] = CONFLICT
        in_test = row.get(GIVEN) == "test"
        if kept[one] == NOBODY or (in_test and one not in tested and kept[one] != CONFLICT):
            kept[one] = number
        if in_test:
            tested.add(one)
    return kept


PLUGIN = Deduplicate()
