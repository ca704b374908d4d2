"""Own files: csv, tsv and JSON lines with a column of texts and one of labels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from llm_os.errors import ColumnNotFoundError, DataError, EmptyDataError, SingleClassError, did_you_mean
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec, slug
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.datasets import readers
from llm_os.tasks.datasets.splits import divide, order
from llm_os.tasks.datasets.writer import Row, write_dataset
from llm_os.tasks.task import Task

TEXTS = ("text", "review", "sentence", "comment", "content", "文本", "评论")
LABELS = ("label", "sentiment", "class", "category", "target", "标签", "情感")
MOST_CLASSES = 1000
REPORT_EVERY = 20_000


class TableOptions(Spec):
    path: str = Field(min_length=1, examples=["/data/reviews.csv"])
    """Absolute path of the file."""
    content: str | None = None
    """sha256 of the file when it was submitted; a file that changed since is refused."""
    text: str | None = None
    """Column of the texts; none: the one with a usual name."""
    label: str | None = None
    """Column of the labels; none: the one with a usual name."""
    labels: int | Literal["score"] | None = None
    """Number of classes that must be found, or `score` for numbers; none: as many as there are."""
    test_size: float = Field(default=0.2, gt=0, lt=1)
    """Share of the rows that goes to the test split."""
    seed: int = 42
    """Another seed is another split."""
    limit: int | None = Field(default=None, ge=4)
    """At most this many rows, chosen at random by the seed."""


class Table(Task[TableOptions]):
    Options = TableOptions
    output = "dataset"
    cacheable = True

    def resources(self, options: TableOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        return ResourceSpec(cpus=min(0.25, granted.cpus), memory=512 * 2**20)

    def run(self, context: Context, options: TableOptions) -> None:
        path = Path(options.path)
        readers.check_file(path)
        _unchanged(path, options.content)
        rows = _rows(context, path, options)
        score = options.labels == "score"
        names = None if score else _classes(path, rows, options.labels)
        if options.limit is not None:
            rows = sorted(rows, key=lambda row: order(options.seed + 2, str(row["text"])))[: options.limit]

        def stratum(row: Row) -> str:
            return "" if score else str(row["label"])

        train, test = divide(
            rows, text=lambda row: str(row["text"]), stratum=stratum, test_size=options.test_size, seed=options.seed
        )
        if not train or not test:
            raise EmptyDataError(
                f"test_size={options.test_size} of {len(rows)} rows leaves one side empty.", hint="Give more rows."
            )
        name = slug(path.stem)
        write_dataset(
            context,
            name=name,
            language="unknown",
            splits={"train": train, "test": test},
            labels=names,
            source={"kind": "file", "name": path.name, "sha256": options.content},
        )
        context.result(rows={"train": len(train), "test": len(test)}, name=name)


def _unchanged(path: Path, content: str | None) -> None:
    if content is None:
        return
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != content:
            raise DataError(f"'{path.name}' was changed since it was submitted.", hint="Run the same call again.")


def _rows(context: Context, path: Path, options: TableOptions) -> list[Row]:
    """Rows with `text` and `label`; empty texts are counted and skipped."""
    rows: list[Row] = []
    empty, text, label = 0, "", ""
    with readers.reading(path) as numbered:
        for number, row in numbered:
            if not text:
                text = _column(context, row, options.text, TEXTS, "text", path)
                label = _column(context, row, options.label, LABELS, "label", path)
            for column in (text, label):
                if column not in row:
                    raise _missing(column, row, f"Row {number} of '{path.name}'")
            words = str(row[text] if row[text] is not None else "").strip()
            if not words:
                empty += 1
                continue
            rows.append({"text": words, "label": _label(row[label], number, path, options.labels == "score")})
            if number % REPORT_EVERY == 0:
                context.report(stage="reading", step=number, total=0)
    if not rows:
        raise EmptyDataError(f"'{path.name}' has no row with a text.", hint="It needs a header and a few rows.")
    if empty > len(rows):
        raise DataError(
            f"{empty} of {empty + len(rows)} texts in column '{text}' are empty.", hint="Is it the right column?"
        )
    if empty:
        context.message(f"{empty} rows without a text were left out.")
    return rows


def _column(
    context: Context, row: Mapping[str, Any], wanted: str | None, usual: tuple[str, ...], what: str, path: Path
) -> str:
    if wanted is not None:
        if wanted not in row:
            raise _missing(wanted, row, f"'{path.name}'")
        return wanted
    found = [name for name in row if str(name).lower() in usual]
    if len(found) == 1:
        context.message(f"The {what} is taken from column '{found[0]}'.")
        return str(found[0])
    raise ColumnNotFoundError(
        f"It is not clear which column of '{path.name}' holds the {what}.",
        hint=f"Name it: load_data(..., {what}='...'). Columns: {', '.join(map(str, row))}.",
    )


def _missing(column: str, row: Mapping[str, Any], where: str) -> ColumnNotFoundError:
    return ColumnNotFoundError(
        f"{where} has no column '{column}'.",
        hint=did_you_mean(column, [str(name) for name in row]),
        details={"column": column, "columns": [str(name) for name in row]},
    )


def _label(value: Any, number: int, path: Path, score: bool) -> str | float:
    text = "" if value is None else str(value).strip()
    if not text:
        raise DataError(f"Row {number} of '{path.name}' has no label.", hint="Fill it in, or remove the row.")
    if not score:
        return text
    try:
        return float(text)
    except ValueError:
        raise DataError(
            f"Row {number} of '{path.name}': the label '{text[:40]}' is no number.", hint="Leave labels='score' out."
        ) from None


def _classes(path: Path, rows: list[Row], wanted: int | str | None) -> list[str]:
    """Class names, sorted. Raises SingleClassError, DataError."""
    counts = Counter(str(row["label"]) for row in rows)
    names = sorted(counts)
    if len(names) < 2:
        raise SingleClassError(
            f"All {len(rows)} rows of '{path.name}' have the class '{names[0]}'.",
            hint="A classifier needs at least two classes; is it the right column?",
        )
    if len(names) > MOST_CLASSES or len(names) > max(2, len(rows) // 2):
        raise DataError(
            f"{len(rows)} rows have {len(names)} different labels.",
            hint="Is it the right column? It looks like an id or a number (labels='score').",
        )
    rare = sorted(name for name in names if counts[name] < 2)
    if rare:
        raise DataError(
            f"The class '{rare[0]}' has one row only, which cannot be divided into training and test.",
            hint="Add rows of that class, or remove it.",
        )
    if isinstance(wanted, int) and wanted != len(names):
        raise DataError(
            f"labels={wanted}, but there are {len(names)} classes: {', '.join(names[:10])}.", hint="Leave labels out."
        )
    return names


PLUGIN = Table()
