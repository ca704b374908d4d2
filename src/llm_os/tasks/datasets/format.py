"""The interface of a file format: the endings it answers to, and numbered rows. Knows no split and no step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from llm_os import plugins
from llm_os.errors import DataError, EmptyDataError, NotFoundError

Numbered = tuple[int, dict[str, Any] | DataError]
"""Number of a row in its file, from 1, and the row, or what is wrong with it where reading can go on."""

MAGIC = {
    b"PK\x03\x04": "a zip archive (or an Excel file)",
    b"PAR1": "a parquet file",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database",
}


class Format(ABC):
    """A plugin file in `formats/` holds one subclass and ends with `PLUGIN = TheClass()`.

    Class attributes:
        endings: what file names end with, lower case, with the dot.
        begins: bytes such a file begins with; empty for texts.
    """

    endings: ClassVar[tuple[str, ...]]
    begins: ClassVar[bytes] = b""

    @abstractmethod
    def rows(self, path: Path) -> Iterator[Numbered]:
        """Rows one by one, never the whole file in memory. A row that is bad by itself is yielded as its error;
        what makes reading on impossible is raised (DataError, EncodingError)."""

    def count(self, path: Path) -> int | None:
        """Rows, where the file says so; None where it would have to be read."""
        return None


def formats() -> dict[str, Format]:
    """Every format by ending."""
    found: dict[str, Format] = {}
    for name in plugins.names("format"):
        plugin: Format = plugins.load("format", name)
        found.update(dict.fromkeys(plugin.endings, plugin))
    return found


def format_of(path: Path) -> Format:
    """The format of a file by its name, its beginning looked at.

    Raises:
        NotFoundError, EmptyDataError, DataError: not there, empty, a folder, unknown, or not what its name says.
    """
    if not path.exists():
        raise NotFoundError(f"There is no file '{path}'.", hint="Check the path.")
    known = formats()
    if path.is_dir():
        raise DataError(f"'{path}' is a folder.", hint=f"Give one file: {', '.join(sorted(known))}.")
    found = known.get(path.suffix.lower())
    if found is None:
        raise DataError(
            f"'{path.name}' is no file of data by its name.", hint=f"Known endings: {', '.join(sorted(known))}."
        )
    with path.open("rb") as file:
        start = file.read(16)
    if not start.strip():
        raise EmptyDataError(f"'{path.name}' is empty.", hint="It needs at least a few rows.")
    if found.begins and not start.startswith(found.begins):
        raise DataError(
            f"'{path.name}' is no {path.suffix.lstrip('.')} file, whatever its name says.",
            hint="Was it cut off, or renamed? Copy it again.",
        )
    for magic, what in MAGIC.items():
        if not found.begins and start.startswith(magic):
            raise DataError(f"'{path.name}' is {what}, whatever its name says.", hint="Unpack or convert it first.")
    return found
