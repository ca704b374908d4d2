"""One JSON object a line; a `.json` file that is one list of objects is read too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_os.errors import DataError
from llm_os.tasks.datasets.format import Format, Numbered, endings
from llm_os.tasks.datasets.lines import Lines, not_utf8
from llm_os.tasks.datasets.packed import opened

LARGEST_LIST = 64 * 2**20
"""Bytes of a JSON list, which has to be read whole; larger ones must be lines."""


class JsonLines(Format):
    endings = (".jsonl", ".ndjson", ".json")

    def rows(self, path: Path) -> Iterator[Numbered]:
        with opened(path) as file:
            start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
        return _list(path) if endings(path)[0] == ".json" and start.startswith(b"[") else _lines(path)


def _lines(path: Path) -> Iterator[Numbered]:
    with opened(path) as file:
        lines = Lines(file, path.name)
        for line in lines:
            number = lines.number
            bad = lines.error(number, number)
            if bad is not None:
                yield number, bad
            elif line.strip():
                yield number, _parsed(line, number, path)


def _parsed(line: str, number: int, path: Path) -> dict[str, Any] | DataError:
    try:
        return _object(json.loads(line), number, path)
    except DataError as error:
        return error
    except (ValueError, RecursionError) as error:
        return DataError(
            f"Row {number} of '{path.name}' is not JSON: {error}.", hint="Each line must be one whole JSON object."
        )


def _list(path: Path) -> Iterator[Numbered]:
    with opened(path) as file:
        raw = file.read(LARGEST_LIST + 1)
    if len(raw) > LARGEST_LIST:
        raise DataError(
            f"'{path.name}' is one JSON list of more than {LARGEST_LIST >> 20} MiB, which cannot be read in parts.",
            hint="Write it as JSON lines: one object a line, in a .jsonl file.",
        )
    try:
        found = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise not_utf8(f"'{path.name}'", error.start) from error
    except ValueError as error:
        raise DataError(f"'{path.name}' is not JSON: {error}.", hint="Was it cut off? Copy it again.") from error
    for number, row in enumerate(found, 1):
        try:
            yield number, _object(row, number, path)
        except DataError as error:
            yield number, error


def _object(row: Any, number: int, path: Path) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    raise DataError(
        f"Row {number} of '{path.name}' is a {type(row).__name__}, not an object.",
        hint='Each line must look like {"text": "...", "label": "..."}.',
    )


PLUGIN = JsonLines()
