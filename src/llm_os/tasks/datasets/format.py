"""The interface of a file format: the endings it answers to, and numbered rows. Knows no split and no step."""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from llm_os import plugins
from llm_os.errors import DataError, EmptyDataError, EncodingError, NotFoundError
from llm_os.tasks.datasets.packed import PACKED, opened

Numbered = tuple[int, dict[str, Any] | DataError]
"""Number of a row in its file, from 1, and the row, or what is wrong with it where reading can go on."""

MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "an empty zip archive",
    b"PAR1": "a parquet file",
    b"ARROW1": "an Arrow file",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"%PDF": "a PDF",
    b"{\\rtf": "a rich text document",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel or Word file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\x80\x04\x95": "a pickle",
}
OFFICE = {"xl/": "an Excel workbook", "word/": "a Word document", "content.xml": "an OpenDocument file"}
"""Parts of a zip archive -> what it really is."""
MARKUP = {b"<!doctype": "a web page", b"<html": "a web page", b"<?xml": "an XML file"}
"""What a download that failed begins with, in small letters."""
TABLES = (".csv", ".tsv")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class Format(ABC):
    """A plugin file in `formats/` holds one subclass and ends with `PLUGIN = TheClass()`.

    Class attributes:
        endings: what file names end with, lower case, with the dot.
        begins: bytes such a file begins with, one of them; empty for texts.
    """

    endings: ClassVar[tuple[str, ...]]
    begins: ClassVar[tuple[bytes, ...]] = ()

    @abstractmethod
    def rows(self, path: Path) -> Iterator[Numbered]:
        """Rows one by one, never the whole file in memory. A row that is bad by itself is yielded as its error;
        what makes reading on impossible is raised (DataError, EncodingError). Texts may be packed (`packed.opened`)."""


def formats() -> dict[str, Format]:
    """Every format by ending."""
    found: dict[str, Format] = {}
    for name in plugins.names("format"):
        plugin: Format = plugins.load("format", name)
        found.update(dict.fromkeys(plugin.endings, plugin))
    return found


def endings(path: Path) -> tuple[str, str]:
    """(ending of the format, ending of the packing or nothing), lower case: `a.CSV.gz` -> `.csv`, `.gz`."""
    last = path.suffix.lower()
    return (Path(path.stem).suffix.lower(), last) if last in PACKED else (last, "")


def renamed(path: Path, ending: str) -> str:
    """The name of the file with another ending, still packed where it was: `a.b.csv.gz` -> `a.b.tsv.gz`."""
    packing = path.suffix if endings(path)[1] else ""
    return Path(path.name.removesuffix(packing)).with_suffix(ending).name + packing


def format_of(path: Path) -> Format:
    """The format of a file by its name, its beginning looked at.

    Raises:
        NotFoundError, EmptyDataError, DataError: not there, empty, a folder, unknown, or not what its name says.
    """
    if not path.exists():
        raise NotFoundError(f"There is no file '{path}'.", hint="Check the path.")
    known = formats()
    ending, packing = endings(path)
    found = known.get(ending)
    if path.is_dir():
        raise DataError(f"'{path}' is a folder.", hint=f"Give one file: {', '.join(sorted(known))}.")
    if found is None:
        raise DataError(
            f"'{path.name}' is no file of data by its name{_really(path)}.",
            hint=f"Known endings: {', '.join(sorted(known))}, and each with {', '.join(PACKED)} behind it.",
        )
    if packing and found.begins:
        raise DataError(
            f"'{path.name}' is packed twice: {ending.lstrip('.')} files are packed inside.", hint="Unpack it first."
        )
    with opened(path) as file:
        start = file.read(16)
    _look(path, start, found, ending, bool(packing))
    return found


def _look(path: Path, start: bytes, found: Format, ending: str, packed: bool) -> None:
    """Raises EmptyDataError, EncodingError or DataError for a file that cannot be what its name says."""
    if not start.strip():
        raise EmptyDataError(f"'{path.name}' is empty.", hint="It needs at least a few rows.")
    if found.begins and start.startswith(found.begins):
        return
    for magic, what in MAGIC.items():
        if start.startswith(magic):
            really = _inside(path, what) if magic.startswith(b"PK") and not packed else what
            inside = "holds " if packed else "is "
            hint = "Export it as csv." if really in OFFICE.values() else "Unpack or convert it first."
            raise DataError(f"'{path.name}' {inside}{really}, whatever its name says.", hint=hint)
    if found.begins:
        raise DataError(
            f"'{path.name}' is no {ending.lstrip('.')} file, whatever its name says.",
            hint="Was it cut off, or renamed? Copy it again.",
        )
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, what in MARKUP.items():
        if text.startswith(beginning) and ending != ".txt":
            raise DataError(
                f"'{path.name}' is {what}, whatever its name says.", hint="Was it downloaded from the right address?"
            )
    if ending in TABLES and text.startswith((b'{"', b"[{")):
        name = renamed(path, ".json" if text.startswith(b"[") else ".jsonl")
        raise DataError(f"'{path.name}' is JSON, whatever its name says.", hint=f"Rename it to '{name}'.")
    if start.startswith(UTF_16):
        raise EncodingError(
            f"'{path.name}' is UTF-16, not UTF-8.",
            hint="Save the file as UTF-8, for example: iconv -f utf-16 -t utf-8 in.csv > out.csv",
        )


def _really(path: Path) -> str:
    """`, but an Excel workbook` for what its first bytes tell; empty for what they do not."""
    with path.open("rb") as file:
        start = file.read(16)
    for magic, what in MAGIC.items():
        if start.startswith(magic):
            return f", but {_inside(path, what) if magic.startswith(b'PK') else what}"
    return ""


def _inside(path: Path, what: str) -> str:
    """What a zip archive really is; `what` where nothing more can be seen."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return what
    return next((real for part, real in OFFICE.items() if any(name.startswith(part) for name in names)), what)
