"""Runs the steps of one preparation over streams of rows and records what each did. Knows no step by name but `clean`.

Steps run in two groups: those on all rows as they come in, and then, once rows are divided, those on a split
(`Step.training_only`, `Step.after_split`). Within a group the order is the declared one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llm_os.spec.base import Json
from llm_os.tasks.datasets.kinds import KINDS, Kind
from llm_os.tasks.preparation.step import Bench, Chosen, Row, StepSpec, choose, counted

DEFAULT = (StepSpec(step="clean"),)
"""What is done where nobody named steps."""


class Preparation:
    """The chosen steps, with a record of each that fills as rows pass.

    Args:
        specs: declared steps; None: cleaning.
        bench: what every step may use; each gets a copy with notes of its own.
    """

    def __init__(self, specs: Sequence[StepSpec] | None, kind: Kind, bench: Bench) -> None:
        self._chosen = choose(DEFAULT if specs is None else specs)
        self._bench = replace(bench, kind=kind.name)
        self.records: list[dict[str, Json]] = [chosen.record() for chosen in self._chosen]
        """For the meta of the data set: step, options, rows in and out, notes."""
        for chosen, record in zip(self._chosen, self.records, strict=True):
            chosen.check_files()
            record |= {"default": True} if specs is None else {}
        made = [chosen.step.makes for chosen in self._chosen if chosen.step.makes]
        self.kind: Kind = KINDS[made[-1]] if made else kind
        """Kind of the rows that come out."""

    def early(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows after all steps that come before the division."""
        return self._through(rows, [not chosen.late for chosen in self._chosen], self._bench)

    def late(self, rows: Iterator[Row], split: str, labels: Sequence[str] | None) -> Iterator[Row]:
        """The rows of a split after the steps that come after the division; the training split must go first."""
        wanted = [chosen.late and (split == "train" or not chosen.step.training_only) for chosen in self._chosen]
        return self._through(rows, wanted, replace(self._bench, kind=self.kind.name, split=split, labels=labels))

    def _through(self, rows: Iterator[Row], wanted: Sequence[bool], bench: Bench) -> Iterator[Row]:
        for chosen, record, here in zip(self._chosen, self.records, wanted, strict=True):
            if here:
                rows = _recorded(rows, chosen, record, replace(bench, notes=Counter()))
                bench = replace(bench, kind=chosen.step.makes or bench.kind)
        return rows


def _recorded(rows: Iterator[Row], chosen: Chosen, record: dict[str, Json], bench: Bench) -> Iterator[Row]:
    tally: Counter[str] = Counter()
    yield from counted(chosen.step.apply(counted(rows, tally, "in"), chosen.options, bench), tally, "out")
    record["rows_in"] = _number(record.get("rows_in")) + tally["in"]
    record["rows_out"] = _number(record.get("rows_out")) + tally["out"]
    before: Any = record.get("notes")
    notes = Counter(before)
    notes.update(bench.notes)
    record["notes"] = dict(notes)


def _number(value: Json) -> int:
    return value if isinstance(value, int) else 0


def all_records(before: Sequence[Json], records: Sequence[Mapping[str, Json]]) -> list[Json]:
    """Every step that the rows have behind them, oldest first."""
    return [*before, *(dict(record) for record in records)]
