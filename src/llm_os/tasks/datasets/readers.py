"""Reads rows of csv, tsv and JSON-lines files one by one; every fault is named with its row and a cure."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from llm_os.errors import DataError, EmptyDataError, EncodingError, NotFoundError

MAGIC = {
    b"PK\x03\x04": "a zip archive (or an Excel file)",
    b"PAR1": "a parquet file",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database",
}
LONGEST = 10 * 2**20
"""Bytes of a field: longer ones are a file that is not what its name says."""
SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
JSON_LINES = {".jsonl", ".ndjson", ".json"}


def check_file(path: Path) -> None:
    """Raises NotFoundError, EmptyDataError or DataError for what can be seen without reading rows."""
    if not path.exists():
        raise NotFoundError(f"There is no file '{path}'.", hint="Check the path.")
    if path.is_dir():
        raise DataError(f"'{path}' is a folder.", hint="Give one csv, tsv or jsonl file.")
    if path.suffix.lower() not in {*SEPARATORS, *JSON_LINES}:
        raise DataError(f"'{path.name}' is no csv, tsv or jsonl file by its name.", hint="Convert it to one of them.")
    with path.open("rb") as file:
        start = file.read(16)
    if not start.strip():
        raise EmptyDataError(f"'{path.name}' is empty.", hint="It needs a header and at least a few rows.")
    for magic, what in MAGIC.items():
        if start.startswith(magic):
            raise DataError(f"'{path.name}' is {what}, whatever its name says.", hint="Unpack or convert it first.")


@contextmanager
def reading(path: Path) -> Iterator[Iterator[tuple[int, dict[str, Any]]]]:
    """(line number in the file, row by column). Raises DataError and EncodingError as it goes."""
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        lines = _lines(file, path)
        yield _json_lines(lines, path) if suffix in JSON_LINES else _separated(lines, path, SEPARATORS[suffix])


def _lines(file: BinaryIO, path: Path) -> Iterator[str]:
    offset = 0
    for number, raw in enumerate(file, 1):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise EncodingError(
                f"Row {number} of '{path.name}' is not UTF-8 (byte {offset + error.start}).",
                hint="Save the file as UTF-8, for example: iconv -f latin1 -t utf-8 in.csv > out.csv",
                details={"row": number, "byte": offset + error.start},
            ) from error
        offset += len(raw)
        yield text.replace("\x00", "")


def _separated(lines: Iterator[str], path: Path, separator: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(LONGEST)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        _check_header(path, header)
        start = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(header):
                raise DataError(
                    f"Row {start} of '{path.name}' has {len(fields)} fields, the header has {len(header)}.",
                    hint="Put quotes around texts that hold the separator or a line break.",
                    details={"row": start, "fields": len(fields), "expected": len(header)},
                )
            if fields:
                yield start, dict(zip(header, fields, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        hint = "A quote is not closed, or a field is too long. Look at the row."
        raise DataError(f"Row {reader.line_num} of '{path.name}' cannot be read: {error}.", hint=hint) from error


def _check_header(path: Path, header: list[str]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if "" in header:
        raise DataError(
            f"Column {header.index('') + 1} of '{path.name}' has no name.", hint="The first row must name the columns."
        )
    if twice:
        raise DataError(f"'{path.name}' has two columns named '{twice[0]}'.", hint="Rename one of them.")


def _json_lines(lines: Iterator[str], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"Row {number} of '{path.name}' is not JSON: {error}.", hint="Each line must be one whole JSON object."
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"Row {number} of '{path.name}' is a {type(row).__name__}, not an object.",
                hint='Each line must look like {"text": "...", "label": "..."}.',
            )
        yield number, row
