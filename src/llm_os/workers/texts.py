"""Turns tokens into text piece by piece and ends it at stop texts; must not know an engine or the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNFINISHED = "\ufffd"
"""What a decoder writes for bytes that are no whole character yet."""


class Detokenizer:
    """Text of a growing list of tokens, whole characters only.

    It decodes a window of few tokens again, because a token's text can depend on the one before it.

    Args:
        decode: text of tokens.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._start = 0
        self._seen = 0

    def feed(self, tokens: Sequence[int], *, last: bool = False) -> str:
        """New text; with `last` also what can never become a whole character."""
        self._tokens.extend(tokens)
        before = self._decode(self._tokens[self._start : self._seen]) if self._seen > self._start else ""
        now = self._decode(self._tokens[self._start :]) if len(self._tokens) > self._start else ""
        if now.endswith(UNFINISHED) and not last:
            return ""
        self._start, self._seen = self._seen, len(self._tokens)
        return now[len(before) :]


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
