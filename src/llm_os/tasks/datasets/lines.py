"""Lines of a text file in UTF-8, each named by row and byte where it is none. Shared by the formats made of lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from llm_os.errors import EncodingError


def decoded(file: BinaryIO, name: str) -> Iterator[str]:
    """Raises EncodingError with row and byte; a byte order mark is skipped, zero bytes are dropped."""
    offset = 0
    for number, raw in enumerate(file, 1):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise EncodingError(
                f"Row {number} of '{name}' is not UTF-8 (byte {offset + error.start}).",
                hint="Save the file as UTF-8, for example: iconv -f latin1 -t utf-8 in.csv > out.csv",
                details={"row": number, "byte": offset + error.start},
            ) from error
        offset += len(raw)
        yield text.replace("\x00", "")
