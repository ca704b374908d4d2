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
from llm_os.tasks.datasets.options import OwnDataOptions
from llm_os.tasks.preparation.step import choose
from llm_os.tasks.task import Task


class TableOptions(OwnDataOptions):
    path: str = Field(min_length=1, examples=["/data/reviews.csv"])
    """Absolute path of the file."""
    content: str | None = None
    """sha256 of the file when it was submitted; a file that changed since is refused."""
    test: str | None = None
    """Absolute path of a file of test rows; none: some rows of `path` are kept for the test."""
    test_content: str | None = None
    """sha256 of the test file."""
    called: str | None = None
    """What messages call it; none: the name of the file."""


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
        title = options.called or f"'{path.name}'"
        given = None if options.test is None else "train"
        rows = read(path, options.content, given, title)
        kind = "file" if options.called is None else "rows"
        facts: dict[str, Json] = {"kind": kind, "name": options.called or path.name, "sha256": options.content}
        if options.test is not None:
            test = Path(options.test)
            called = f"'{test.name}'" if options.called is None else "the test rows"
            rows = _both(rows, read(test, options.test_content, "test", called))
            facts["test"] = {"name": called.strip("'"), "sha256": options.test_content}
        Ingest(context, options, Source(options.name or slug(path.stem), title, rows, facts, options.asked)).run()


def read(path: Path, content: str | None, given: str | None, title: str) -> Iterator[SourceRow]:
    """Rows of a file. What can be seen without reading them is raised at once."""
    found = format_of(path)
    _unchanged(path, content)
    return (SourceRow(f"Row {number} of {title}", row, given) for number, row in found.rows(path))


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
