"""Lines of a text file in UTF-8, each of bounded length. Shared by the formats made of lines; knows no format.

A line that cannot be read does not end the file: it is given as what could be read of it, and its error is kept in
`bad` under its number until the format takes it, so that one bad row can be left out where that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from llm_os.errors import DataError, EncodingError

LONGEST = 10 * 2**20
"""Bytes of a line, at most: longer ones are a file that is not what its name says, and would not fit in memory."""


class Lines(Iterator[str]):
    """A byte order mark is skipped, zero bytes are dropped.

    Attributes:
        number: of the line given last, from 1.
        bad: errors of lines by their numbers; whoever makes a row of a line takes its error out.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name = file, name
        self._offset = 0
        self.number = 0
        self.bad: dict[int, DataError] = {}

    def __next__(self) -> str:
        raw = self._file.readline(LONGEST + 1)
        if not raw:
            raise StopIteration
        self.number += 1
        start, self._offset = self._offset, self._offset + len(raw)
        if len(raw) > LONGEST:
            self._pass_over()
            self.bad[self.number] = too_long(f"Row {self.number} of '{self._name}'")
            return "\n"
        encoding = "utf-8-sig" if self.number == 1 else "utf-8"
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError as error:
            self.bad[self.number] = not_utf8(
                f"Row {self.number} of '{self._name}'", start + error.start, row=self.number
            )
            text = raw.decode(encoding, "replace")
        return text.replace("\x00", "")

    def _pass_over(self) -> None:
        """The rest of the line, in pieces."""
        while piece := self._file.readline(LONGEST):
            self._offset += len(piece)
            if piece.endswith(b"\n"):
                return

    def error(self, first: int, last: int) -> DataError | None:
        """What was wrong with the lines from `first` to `last`, taken out."""
        found = [self.bad.pop(number) for number in range(first, last + 1) if number in self.bad] if self.bad else []
        return found[0] if found else None


def not_utf8(where: str, byte: int, **details: int) -> EncodingError:
    """The error of a place that is not UTF-8; `byte` counts from the beginning of the file."""
    return EncodingError(
        f"{where} is not UTF-8 (byte {byte}).",
        hint="Save the file as UTF-8, for example: iconv -f latin1 -t utf-8 in.csv > out.csv (Chinese: -f gb18030)",
        details={**details, "byte": byte},
    )


def too_long(where: str) -> DataError:
    return DataError(
        f"{where} is longer than {LONGEST >> 20} MiB.",
        hint="Is a quote or the end of a line missing? Divide long texts into several rows, or bad_rows='skip'.",
    )
