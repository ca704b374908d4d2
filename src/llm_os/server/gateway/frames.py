"""Server-sent events on their way through: whole events only, and what they say of their end; knows no network."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from llm_os.spec.base import from_json

_EVENTS = re.compile(rb".+?(?:\r?\n\r?\n|\Z)", re.DOTALL)
_COUNTS = re.compile(rb"\ntokens: (\d+)(?=\n)")
"""What our workers add to their events: the tokens of the answer so far."""
_LONGEST = 2**20
"""Bytes of one event; a longer one is passed on in parts."""


class Frames:
    """Cuts a byte stream into whole events, so that an error event can follow at any time.

    Attributes:
        done: the stream said that it is complete (`data: [DONE]`).
        failed: the last event tells of an error.
        usage: token counts, when an event had them.
        events: how many there were; tokens, where the replica counts them.

    Args:
        hides_usage: leave out the event that holds nothing but token counts: its reader did not ask for them.
    """

    def __init__(self, *, hides_usage: bool = False) -> None:
        self._held = b""
        self._hides = hides_usage
        self.events = 0
        self.done = False
        self.failed = False
        self.usage: Mapping[str, Any] = {}

    def feed(self, chunk: bytes) -> bytes:
        """The whole events that are there now; the rest is held."""
        held = self._held + chunk
        cuts = [held.rfind(mark) + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if mark in held]
        end = max(cuts, default=len(held) if len(held) >= _LONGEST else 0)
        whole, self._held = held[:end], held[end:]
        return self._look(whole) if whole else whole

    def _look(self, whole: bytes) -> bytes:
        """Learn from whole events; what is passed on of them."""
        self.events += whole.count(b"\ndata:") + whole.startswith(b"data:")
        if counts := _COUNTS.findall(whole):
            whole, self.events = _COUNTS.sub(b"", whole), int(counts[-1])
        tail = whole.rstrip()
        last = tail[tail.rfind(b"\n") + 1 :]
        self.done = self.done or last.replace(b" ", b"") == b"data:[DONE]"
        self.failed = last.startswith(b"data:") and last[5:].lstrip().startswith(b'{"error"')
        if b'"usage"' not in whole:
            return whole
        for line in whole.splitlines():
            if line.startswith(b"data:") and b'"usage"' in line:
                self.usage = usage_of(line[5:]) or self.usage
        if not self._hides:
            return whole
        return b"".join(event for event in _EVENTS.findall(whole) if not _counts_alone(event))


def _counts_alone(event: bytes) -> bool:
    """Whether an event holds token counts and no part of an answer."""
    for line in event.splitlines():
        if line.startswith(b"data:") and b'"usage"' in line:
            try:
                value = json.loads(line[5:])
            except ValueError:
                return False
            return isinstance(value, dict) and value.get("choices") == []
    return False


def usage_of(body: bytes) -> Mapping[str, Any]:
    """The `usage` object of a JSON answer; empty when there is none."""
    try:
        answer = from_json(body)
    except (ValueError, RecursionError):
        return {}
    usage = answer.get("usage") if isinstance(answer, dict) else None
    return usage if isinstance(usage, dict) else {}


def error_event(body: Mapping[str, Any]) -> bytes:
    """An event that OpenAI's clients raise as an error."""
    return b"data: " + json.dumps(body).encode() + b"\n\n"
