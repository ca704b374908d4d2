"""Comma- and tab-separated values with a header row, in UTF-8."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from llm_os.errors import DataError
from llm_os.tasks.datasets.format import Format, Numbered
from llm_os.tasks.datasets.lines import decoded

LONGEST = 10 * 2**20
"""Characters of a field: longer ones are a file that is not what its name says."""
SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


class Separated(Format):
    endings = (".csv", ".tsv", ".txt")

    def rows(self, path: Path) -> Iterator[Numbered]:
        csv.field_size_limit(LONGEST)
        with path.open("rb") as file:
            reader = csv.reader(decoded(file, path.name), delimiter=SEPARATORS[path.suffix.lower()], strict=True)
            try:
                header = [name.strip() for name in next(reader)]
                check_header(path, header)
                start = reader.line_num + 1
                for fields in reader:
                    if fields and len(fields) != len(header):
                        yield (
                            start,
                            DataError(
                                f"Row {start} of '{path.name}' has {len(fields)} fields, the header has {len(header)}.",
                                hint="Put quotes around texts that hold the separator or a line break.",
                                details={"row": start, "fields": len(fields), "expected": len(header)},
                            ),
                        )
                    elif fields:
                        yield start, dict(zip(header, fields, strict=True))
                    start = reader.line_num + 1
            except csv.Error as error:
                hint = "A quote is not closed, or a field is too long. Look at the row."
                raise DataError(
                    f"Row {reader.line_num} of '{path.name}' cannot be read: {error}.", hint=hint
                ) from error


def check_header(path: Path, header: list[str]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if "" in header:
        raise DataError(
            f"Column {header.index('') + 1} of '{path.name}' has no name.", hint="The first row must name the columns."
        )
    if twice:
        raise DataError(f"'{path.name}' has two columns named '{twice[0]}'.", hint="Rename one of them.")


PLUGIN = Separated()
