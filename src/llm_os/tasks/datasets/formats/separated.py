"""Comma- and tab-separated values with a header row, in UTF-8; a `.txt` file without tabs is one text a line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from llm_os.errors import DataError
from llm_os.tasks.datasets.format import Format, Numbered, endings, renamed
from llm_os.tasks.datasets.lines import LONGEST, Lines
from llm_os.tasks.datasets.packed import opened

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


class Separated(Format):
    endings = (".csv", ".tsv", ".txt")

    def rows(self, path: Path) -> Iterator[Numbered]:
        ending, _ = endings(path)
        if ending == ".txt":
            with opened(path) as file:
                if b"\t" not in file.readline(LONGEST):
                    return _texts(path)
        return _records(path, SEPARATORS[ending])


def _texts(path: Path) -> Iterator[Numbered]:
    with opened(path) as file:
        lines = Lines(file, path.name)
        for line in lines:
            error = lines.error(lines.number, lines.number)
            if error is not None or line.strip():
                yield lines.number, error or {"text": line.strip()}


def _records(path: Path, separator: str) -> Iterator[Numbered]:
    csv.field_size_limit(LONGEST)
    with opened(path) as file:
        lines = Lines(file, path.name)
        reader = csv.reader(lines, delimiter=separator, strict=True)
        header = _header(path, reader, lines)
        _separated(path, header, separator)
        while True:
            start = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                wrong = DataError(
                    f"Row {start} of '{path.name}' cannot be read: {error}.",
                    hint="A quote is not closed, or a field is too long. Look at the row.",
                )
                if reader.line_num > start or "unexpected end" in str(error):
                    raise wrong from error  # nobody knows where the next row begins
                yield start, wrong
                continue
            bad = lines.error(start, reader.line_num)
            if bad is not None:
                yield start, bad
            elif fields and len(fields) != len(header):
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


def _header(path: Path, reader: Iterator[list[str]], lines: Lines) -> list[str]:
    try:
        header = [name.strip() for name in next(reader)]
    except csv.Error as error:
        raise DataError(f"The header of '{path.name}' cannot be read: {error}.") from error
    bad = lines.error(1, lines.number)
    if bad is not None:
        raise bad
    twice = sorted({name for name in header if header.count(name) > 1})
    if "" in header:
        raise DataError(
            f"Column {header.index('') + 1} of '{path.name}' has no name.", hint="The first row must name the columns."
        )
    if twice:
        raise DataError(f"'{path.name}' has two columns named '{twice[0]}'.", hint="Rename one of them.")
    return header


def _separated(path: Path, header: list[str], separator: str) -> None:
    """Raises DataError for a header that is one column because its columns are parted by something else."""
    found = next((other for other in NAMES if other != separator and other in header[0]), None)
    if len(header) > 1 or found is None:
        return
    ending = next((ending for ending, known in SEPARATORS.items() if known == found), None)
    raise DataError(
        f"'{path.name}' has {NAMES[found]} between its columns, not {NAMES[separator]}.",
        hint=f"Rename it to '{renamed(path, ending)}'."
        if ending
        else f"Save it with commas, or load_data(pandas.read_csv(path, sep='{found}')).",
        details={"separator": found},
    )


PLUGIN = Separated()
