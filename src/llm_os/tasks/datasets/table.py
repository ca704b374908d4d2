"""Own files in any known format, one or a training and a test file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field

from llm_os.errors import DataError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json, slug
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.datasets.format import format_of
from llm_os.tasks.datasets.ingest import Ingest, Source, SourceRow
from llm_os.tasks.datasets.options import DataOptions
from llm_os.tasks.preparation.step import choose
from llm_os.tasks.task import Task


class TableOptions(DataOptions):
    path: str = Field(min_length=1, examples=["/data/reviews.csv"])
    """Absolute path of the file."""
    content: str | None = None
    """sha256 of the file when it was submitted; a file that changed since is refused."""
    test: str | None = None
    """Absolute path of a file of test rows; none: some rows of `path` are kept for the test."""
    test_content: str | None = None
    """sha256 of the test file."""
    name: str | None = None
    """What the data set is called; none: as the file."""
    text: str | None = None
    """Column of the texts (messages, tokens, prompts); none: the one with a usual name."""
    label: str | None = None
    """Column of the labels (tags, scores); none: the one with a usual name."""
    other: str | None = None
    """Column of the second text of pairs; none: the one with a usual name."""


class Table(Task[TableOptions]):
    Options = TableOptions
    optional_inputs = ("tokenizer",)
    output = "dataset"
    cacheable = True

    def resources(self, options: TableOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        choose(options.steps or ())
        return ResourceSpec(cpus=min(0.25, granted.cpus), memory=768 * 2**20)

    def run(self, context: Context, options: TableOptions) -> None:
        path = Path(options.path)
        given = None if options.test is None else "train"
        rows = read(path, options.content, given)
        facts: dict[str, Json] = {"kind": "file", "name": path.name, "sha256": options.content}
        if options.test is not None:
            test = Path(options.test)
            rows = _both(rows, read(test, options.test_content, "test"))
            facts["test"] = {"name": test.name, "sha256": options.test_content}
        asked = {"text": options.text, "label": options.label, "other": options.other}
        source = Source(options.name or slug(path.stem), f"'{path.name}'", rows, facts, asked)
        Ingest(context, options, source).run()


def read(path: Path, content: str | None, given: str | None) -> Iterator[SourceRow]:
    """Rows of a file. What can be seen without reading them is raised at once."""
    found = format_of(path)
    _unchanged(path, content)
    return (SourceRow(f"Row {number} of '{path.name}'", row, given) for number, row in found.rows(path))


def _both(one: Iterator[SourceRow], other: Iterator[SourceRow]) -> Iterator[SourceRow]:
    yield from one
    yield from other


def _unchanged(path: Path, content: str | None) -> None:
    if content is None:
        return
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != content:
            raise DataError(f"'{path.name}' was changed since it was submitted.", hint="Run the same call again.")


PLUGIN = Table()
