"""Class balancing: rare classes are drawn more often, or common ones less, in the training rows alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from llm_os.errors import DataError
from llm_os.spec.base import Spec
from llm_os.tasks.datasets.splits import order
from llm_os.tasks.datasets.spool import Spool
from llm_os.tasks.preparation.step import Bench, Row, Step


class BalanceOptions(Spec):
    method: Literal["oversample", "undersample"] = "oversample"
    """`oversample`: rows of rare classes are repeated; `undersample`: rows of common classes are left out."""
    ratio: float = Field(default=1.0, gt=0, le=1)
    """Least size of a class as a share of the largest one: 1 makes all equal, 0.5 leaves the rarest half as large."""
    column: str = "label"
    """Column that holds the class."""


class Balance(Step[BalanceOptions]):
    """Which rows are repeated or left out follows from the seed and their text. The test keeps the true shares.

    Often class weights in the loss do the same without repeating rows (training option `class_weights`).
    """

    Options = BalanceOptions
    training_only = True

    def apply(self, rows: Iterator[Row], options: BalanceOptions, bench: Bench) -> Iterator[Row]:
        with Spool(bench.scratch / "balance.jsonl") as spool:
            members: dict[str, list[tuple[int, int]]] = {}
            for row in rows:
                label = row.get(options.column)
                if not isinstance(label, str):
                    raise DataError(
                        f"A row has no class in the column '{options.column}'.",
                        hint="Balancing is for data with one class a row; name its column with `column`.",
                    )
                number = spool.add(row)
                members.setdefault(label, []).append((order(bench.seed, str(row.get("text"))), number))
            times = drawn(members, options)
            bench.notes["repeated"] = sum(count - 1 for count in times.values() if count > 1)
            bench.notes["left out"] = sum(count == 0 for count in times.values())
            rounds = max(times.values(), default=0)
            for turn in range(rounds):
                for number in range(len(spool)):
                    if times[number] > turn:
                        yield spool[number]


def drawn(members: dict[str, list[tuple[int, int]]], options: BalanceOptions) -> Counter[int]:
    """How often each row is drawn.

    Args:
        members: by class the rows as (place in a random order, number).
    """
    sizes = [len(rows) for rows in members.values()]
    times: Counter[int] = Counter()
    for rows in members.values():
        if options.method == "oversample":
            wanted = max(len(rows), math.ceil(options.ratio * max(sizes)))
        else:
            wanted = min(len(rows), math.floor(min(sizes) / options.ratio))
        whole, rest = divmod(wanted, len(rows))
        for place, (_, number) in enumerate(sorted(rows)):
            times[number] = whole + (place < rest)
    return times


PLUGIN = Balance()
