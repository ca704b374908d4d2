"""Opens a file that may be packed (`.gz`, `.bz2`, `.xz`, `.zst`) as the bytes that are inside. Knows no format."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from llm_os.errors import DataError

BUFFER = 2**20


def _zstd(path: Path) -> Any:
    import pyarrow

    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"), BUFFER)


PACKED: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstd}
"""Ending -> what opens it."""
BROKEN = (EOFError, zlib.error, lzma.LZMAError, OSError)
"""What the libraries raise for archives that were cut off or damaged."""


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes inside. Raises DataError, also while they are read, for an archive that is broken."""
    packing = path.suffix.lower()
    if packing not in PACKED:
        with path.open("rb", buffering=BUFFER) as file:
            yield file
        return
    try:
        with PACKED[packing](path) as file:
            yield file
    except BROKEN as error:
        raise DataError(
            f"'{path.name}' cannot be unpacked: {_cause(error)}.", hint="Was it cut off, or renamed? Copy it again."
        ) from error


def _cause(error: BaseException) -> str:
    cut_off = isinstance(error, EOFError) or "runcated" in str(error)
    return "it ends in the middle" if cut_off else str(error).rstrip(".") or type(error).__name__
