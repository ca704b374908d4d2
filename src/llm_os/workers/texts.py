"""Turns tokens into text piece by piece and ends it at stop texts; must not know an engine or the network."""

from __future__ import annotations

import codecs
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

UNFINISHED = "\ufffd"
"""What a decoder writes for bytes that are no whole character yet."""
Decode = Callable[[Sequence[int]], str]


class Growing(Protocol):
    """Text of a growing list of tokens, whole characters only."""

    def feed(self, tokens: Sequence[int], *, last: bool = False) -> str:
        """New text; with `last` also what can never become a whole character."""


class ByteText:
    """Text of tokens that each stand for bytes, whatever is around them: no engine is asked.

    Args:
        table: bytes of the tokens; one that is not in it says nothing.
    """

    def __init__(self, table: Mapping[int, bytes]) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, tokens: Sequence[int], *, last: bool = False) -> str:
        """See `Growing`."""
        return self._decoder.decode(b"".join([self._table.get(token, b"") for token in tokens]), last)


class Detokenizer:
    """Text of tokens whose text is known together only.

    It decodes a window of few tokens again, because a token's text can depend on the one before it.

    Args:
        decode: text of tokens.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._start = 0
        self._seen = 0

    def feed(self, tokens: Sequence[int], *, last: bool = False) -> str:
        """See `Growing`."""
        self._tokens.extend(tokens)
        before = self._decode(self._tokens[self._start : self._seen]) if self._seen > self._start else ""
        now = self._decode(self._tokens[self._start :]) if len(self._tokens) > self._start else ""
        if now.endswith(UNFINISHED) and not last:
            return ""
        self._start, self._seen = self._seen, len(self._tokens)
        return now[len(before) :]


def table_of(words: Mapping[int, bytes], alone: Mapping[int, str], decode: Decode) -> dict[int, bytes] | None:
    """What each token stands for, or None where the vocabulary is not of bytes.

    It is not believed but tried: on each token alone, and on all of them in a row.

    Args:
        words: the vocabulary.
        alone: text of each token alone, from the engine; it leaves out special tokens, and may leave out bytes that
            are no whole character.
        decode: text of tokens, from the engine.
    """
    table = {}
    for token, word in words.items():
        text, said = word.decode(errors="replace"), alone[token]
        if UNFINISHED not in text and said not in ("", text):
            return None
        table[token] = b"" if not said and UNFINISHED not in text else word
    row = random.Random(0).sample(sorted(table), len(table))
    together = b"".join(table[token] for token in row).decode(errors="replace")
    return table if together.replace(UNFINISHED, "") == decode(row).replace(UNFINISHED, "") else None


class StopTexts:
    """Passes text on until one of the stop texts appears; holds back what may become one.

    Attributes:
        stopped: the stop text that was found; it and all after it are dropped.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped: str | None = None

    def feed(self, text: str, *, last: bool = False) -> str:
        """Text that can be sent now."""
        if self.stopped is not None:
            return ""
        held = self._held + text
        found = [(held.find(stop), stop) for stop in self._stops if stop in held]
        if found:
            at, self.stopped = min(found)
            self._held = ""
            return held[:at]
        keep = 0 if last else overlap(held, self._stops)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]


def overlap(text: str, marks: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of the marks, and is not all of it."""
    longest = max((len(mark) - 1 for mark in marks), default=0)
    for size in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-size:]) for mark in marks):
            return size
    return 0
