"""From rows of any source to a prepared data set: check, prepare, divide, write. Streams; knows no file format.

Two passes: the first puts prepared rows into a spool and keeps about 60 bytes of each in memory; the second copies
them to where they belong.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_os.errors import ColumnNotFoundError, DataError, EmptyDataError, SingleClassError
from llm_os.spec.base import Json
from llm_os.spec.units import format_count
from llm_os.tasks.context import Context
from llm_os.tasks.datasets import splits
from llm_os.tasks.datasets.dividing import Division
from llm_os.tasks.datasets.kinds import KINDS, Kind, guess
from llm_os.tasks.datasets.labels import Writing, doubtful
from llm_os.tasks.datasets.options import DataOptions
from llm_os.tasks.datasets.preparing import Preparation, all_records
from llm_os.tasks.datasets.spool import Spool
from llm_os.tasks.datasets.writer import write_dataset
from llm_os.tasks.preparation.personal import excerpt, regions_of
from llm_os.tasks.preparation.step import GIVEN, GROUP, Bench

if TYPE_CHECKING:
    pass

REPORT_EVERY = 20_000
MOST_CLASSES = 1000
SIDE = "encoding"
"""Folder of a data set in which steps leave a vocabulary, vectors and the like."""


class SourceRow(NamedTuple):
    """A row as its source gives it.

    Attributes:
        where: for people, such as `Row 7 of 'reviews.csv'`.
        row: its columns, or what is wrong with it.
        given: the split it was put into by its makers; None: not divided yet.
    """

    where: str
    row: Mapping[str, Any] | DataError
    given: str | None = None


@dataclass(slots=True)
class Source:
    """What a source says of itself.

    Attributes:
        asked: columns the user named, by role (`text`, `label`, `other`).
        labels: class names in a fixed order; None: those that are found, sorted.
        stratum: replaces the kind's own.
        before: records of the steps that the rows have behind them.
    """

    name: str
    title: str
    rows: Iterable[SourceRow]
    facts: Mapping[str, Json]
    asked: Mapping[str, str | None] = field(default_factory=dict)
    labels: Sequence[str] | None = None
    stratum: Callable[[Mapping[str, Json]], str] | None = None
    kind: str | None = None
    before: Sequence[Json] = ()


class Ingest:
    """One run. The parts are methods so that each is short; `run` reads from top to bottom."""

    def __init__(self, context: Context, options: DataOptions, source: Source) -> None:
        self._context, self._options, self._source = context, options, source
        self._kind: Kind | None = None
        self._columns: dict[str, str] = {}
        self._filled: dict[str, bool] = {}
        self._tally: Counter[str] = Counter()
        self._classes: Counter[str] = Counter()
        self._writing = Writing()
        self._first_bad: DataError | None = None
        self._table = splits.Table(options.seed)
        self._preparation: Preparation | None = None

    def run(self) -> dict[str, Json]:
        context, options, source = self._context, self._options, self._source
        with Spool(context.scratch / "rows.jsonl") as spool:
            self._fill(spool)
            preparation = self._preparation
            self._mostly_empty(len(spool))
            if preparation is None or not len(spool):
                raise self._nothing()
            kind = preparation.kind
            labels = self._labels(kind, len(spool))
            kept = splits.chosen(self._table, options.limit)
            context.report(stage="dividing", step=0, total=0)
            division = Division(options, self._table, lambda number: kind.content(spool[number]), context.message)
            train, test = division.run(kept)
            self._tally.update(division.tally)
            context.report(stage="writing", step=0, total=0)
            divided = {"train": train, "test": test}
            meta = write_dataset(
                context,
                name=source.name,
                language=options.language,
                kind=kind,
                splits={
                    split: preparation.late((spool[i] for i in splits.shuffled(self._table, rows)), split, labels)
                    for split, rows in divided.items()
                },
                labels=labels,
                source=source.facts,
                more=lambda: {
                    "left_out": dict(self._tally),
                    "empty_columns": self._empty(),
                    "steps": all_records(source.before, preparation.records),
                    **self._split_facts(),
                },
            )
        context.result(rows={"train": _rows(meta, "train"), "test": _rows(meta, "test")}, name=source.name)
        return meta

    def _fill(self, spool: Spool) -> None:
        """First pass: every row checked, prepared and spooled."""
        given: dict[str | None, int] = {None: -1, "train": 0, "test": 1}
        for row in self._early():
            preparation = self._preparation
            assert preparation is not None  # noqa: S101 - made before the first row comes out
            kind = preparation.kind
            plain = {name: value for name, value in row.items() if name not in (GIVEN, GROUP)}
            number = spool.add(plain)
            self._classes.update(kind.names(plain))
            stratum = self._source.stratum or kind.stratum
            side = row.get(GIVEN)
            self._table.add(
                kind.content(plain),
                stratum(plain),
                group=self._group(row) if self._options.split == "grouped" else None,
                time=_moment(self._value(plain, self._options.time, "time")) if self._options.split == "time" else 0.0,
                given=given[side if isinstance(side, str) else None],
            )
            if number % REPORT_EVERY == 0:
                self._context.report(stage="reading", step=number, total=0)
        if self._tally:
            said = ", ".join(format_count(count, why) for why, count in sorted(self._tally.items()))
            self._context.message(f"Left out: {said}.")

    def _early(self) -> Iterator[Mapping[str, Json]]:
        """The checked rows after the steps before the division, which are chosen when the first row says its kind."""
        rows = self._checked()
        first = next(rows, None)
        if first is not None and self._kind is not None:
            self._preparation = Preparation(self._options.steps, self._kind, self._bench())
            yield from self._preparation.early(chain([first], rows))

    def _checked(self) -> Iterator[dict[str, Json]]:
        """Rows in the form of their kind, with their further columns. Raises for the first bad one, or counts it."""
        for where, raw, given in self._source.rows:
            try:
                if isinstance(raw, DataError):
                    raise raw
                row = self._one(raw)
                if row is not None and self._kind is KINDS["classification"]:
                    self._writing.check(raw[self._columns["label"]], where)
            except DataError as error:
                placed = self._placed(error, where)
                if self._options.bad_rows == "skip" and (isinstance(raw, DataError) or self._kind is not None):
                    self._tally["bad rows"] += 1
                    self._first_bad = self._first_bad or placed
                    continue
                raise placed from error
            if row is None:
                self._tally["rows without a text"] += 1
            else:
                yield {**row, **self._hidden(row, given)}

    def _one(self, raw: Mapping[str, Any]) -> dict[str, Json] | None:
        options, source = self._options, self._source
        if self._kind is None:
            name = source.kind or (guess(raw, source.asked) if options.kind == "auto" else options.kind)
            if options.labels == "score" and name == "classification":
                name = "score"
            kind = KINDS[name]
            self._columns = kind.columns(raw, source.asked)
            self._kind = kind
            taken = ", ".join(f"{role} from '{column}'" for role, column in self._columns.items() if role != column)
            if taken:
                self._context.message(f"Columns: {taken}.")
        row = self._kind.take(raw, self._columns)
        if row is None:
            return None
        used = set(self._columns.values())
        for name, value in raw.items():
            self._filled[str(name)] = self._filled.get(str(name), False) or value not in (None, "")
            if name not in used and name not in row and value is not None:
                row[str(name)] = value if isinstance(value, str | int | bool | list | dict) else _plain(value)
        return row

    def _empty(self) -> list[Json]:
        """Columns of the source in which no row has a value."""
        return [name for name, filled in self._filled.items() if not filled]

    def _hidden(self, row: Mapping[str, Json], given: str | None) -> dict[str, Json]:
        """What a row carries through the steps beside its columns: its split, and its group as it came."""
        hidden: dict[str, Json] = {} if given is None else {GIVEN: given}
        if self._options.group is not None and row.get(self._options.group) is not None:
            hidden[GROUP] = row[self._options.group]
        return hidden

    def _group(self, row: Mapping[str, Json]) -> str:
        """From before the steps (a redacted address would make one group of all), or of a column that one made."""
        return str(row[GROUP]) if GROUP in row else self._value(row, self._options.group, "group")

    def _labels(self, kind: Kind, rows: int) -> list[str] | None:
        """Class names by id. Raises SingleClassError, DataError."""
        if not kind.classes:
            return None
        names = list(self._source.labels or sorted(self._classes))
        if len(names) < 2:
            raise SingleClassError(
                f"All {rows} rows of {self._source.title} have the class '{''.join(names)}'.",
                hint="A classifier needs at least two classes; is it the right column?",
            )
        if len(names) > MOST_CLASSES or (kind.name == "classification" and len(names) > max(2, rows // 2)):
            raise DataError(
                f"{rows} rows have {len(names)} different labels.",
                hint="Is it the right column? It looks like an id or a number (labels='score').",
            )
        rare = [name for name in names if self._classes[name] < 2]
        if rare and kind.name == "classification":
            raise DataError(
                f"The class '{rare[0]}' has one row only, which cannot be divided into training and test.",
                hint="Add rows of that class, or remove it.",
            )
        wanted = self._options.labels
        if isinstance(wanted, int) and wanted != len(names):
            raise DataError(
                f"labels={wanted}, but there are {len(names)} classes: {', '.join(names[:10])}.",
                hint="Leave labels out.",
            )
        odd = doubtful(names) if kind.name == "classification" else None
        if odd is not None:
            self._context.message(odd)
        return names

    def _bench(self) -> Bench:
        tokenizer = self._context.inputs.get("tokenizer")
        return Bench(
            scratch=self._context.scratch,
            side=self._context.output / SIDE,
            language=self._options.language,
            seed=self._options.seed,
            kind=self._options.kind,
            labels=None,
            message=self._context.message,
            tokenizer=None if tokenizer is None else tokenizer.path,
        )

    def _split_facts(self) -> dict[str, Json]:
        options = self._options
        facts: dict[str, Json] = {
            "by": "makers" if self._table.given and self._table.given[0] >= 0 else options.split,
            "test_size": options.test_size,
            "seed": options.seed,
            "near_duplicates": options.near_duplicates,
            "leaks": options.leaks,
        }
        return {"split": facts}

    def _placed(self, error: DataError, where: str) -> DataError:
        """The same error with the row in its words: `has no label` becomes `Row 7 of 'a.csv' has no label.`"""
        message = self._shown(error.message, 1000)
        if where in message:
            pass  # the source said it already
        elif not message[:1].isupper():
            message = f"{where} {message}." if message.startswith("has ") else f"{where}: {message}."
        else:
            message = f"{where}: {message}"
        return type(error)(message, hint=error.hint, details=dict(error.details))

    def _shown(self, text: str, length: int = 60) -> str:
        """For errors, which are logged: what is personal goes."""
        return excerpt(text, regions_of(self._options.language), length)

    def _value(self, row: Mapping[str, Json], column: str | None, what: str) -> str:
        if column is None:
            split = "grouped" if what == "group" else "time"
            raise DataError(f"split='{split}' needs a column.", hint=f"Name it: load_data(..., {what}='...').")
        if row.get(column) is None:
            raise ColumnNotFoundError(
                f"A row of {self._source.title} has no '{column}'.",
                hint=f"It has: {', '.join(row)}.",
                details={"column": column, "columns": list(row)},
            )
        return str(row[column])

    def _nothing(self) -> EmptyDataError:
        title, bad = self._source.title, self._tally["bad rows"]
        if self._first_bad is None:
            return EmptyDataError(f"{title} has no row with a text.", hint="It needs at least a few rows.")
        return EmptyDataError(
            f"No row of {title} is left: {bad:,} are bad. The first one: {self._first_bad.message}",
            hint=self._first_bad.hint,
        )

    def _mostly_empty(self, rows: int) -> None:
        """Raises where most texts are empty, which is another mistake than an empty file."""
        empty = self._tally["rows without a text"]
        if empty > rows:
            column = self._columns.get("text") or next(iter(self._columns.values()), "?")
            raise DataError(
                f"{empty} of {empty + rows} texts in column '{column}' are empty.", hint="Is it the right column?"
            )


def _plain(value: Any) -> Json:
    """Numbers as they are, all else as text (dates, decimals)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise DataError(
            f"'{text[:40]}' is no time.", hint="Give a number, or a date like 2026-05-31T12:00:00."
        ) from None


def _rows(meta: Mapping[str, Any], split: str) -> int:
    return int(meta["splits"][split]["rows"])
