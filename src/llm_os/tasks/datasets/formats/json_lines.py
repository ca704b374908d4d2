"""One JSON object a line; a `.json` file that is one list of objects is read too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_os.errors import DataError
from llm_os.tasks.datasets.format import Format, Numbered
from llm_os.tasks.datasets.lines import decoded

LARGEST_LIST = 512 * 2**20
"""Bytes of a JSON list, which has to be read whole; larger ones must be lines."""


class JsonLines(Format):
    endings = (".jsonl", ".ndjson", ".json")

    def rows(self, path: Path) -> Iterator[Numbered]:
        with path.open("rb") as file:
            start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
        return _list(path) if path.suffix.lower() == ".json" and start.startswith(b"[") else _lines(path)


def _lines(path: Path) -> Iterator[Numbered]:
    with path.open("rb") as file:
        for number, line in enumerate(decoded(file, path.name), 1):
            if not line.strip():
                continue
            try:
                yield number, _object(json.loads(line), number, path)
            except ValueError as error:
                yield (
                    number,
                    error
                    if isinstance(error, DataError)
                    else DataError(
                        f"Row {number} of '{path.name}' is not JSON: {error}.",
                        hint="Each line must be one whole JSON object.",
                    ),
                )


def _list(path: Path) -> Iterator[Numbered]:
    size = path.stat().st_size
    if size > LARGEST_LIST:
        raise DataError(
            f"'{path.name}' is one JSON list of {size / 2**20:,.0f} MiB, which cannot be read in parts.",
            hint="Write it as JSON lines: one object a line, in a .jsonl file.",
        )
    with path.open("rb") as file:
        text = "".join(decoded(file, path.name))
    try:
        found = json.loads(text)
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
