"""What generated text looks like on the wire: OpenAI's chats and completions; must not know the network."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from llm_os.workers.backend import Piece


class Shape(ABC):
    """One answer.

    Args:
        model: its name for callers.
    """

    whole_kind: str
    part_kind: str
    prefix: str

    def __init__(self, model: str) -> None:
        self._head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    @abstractmethod
    def choice(self, text: str) -> Mapping[str, Any]:
        """What a choice of a whole answer holds of a text."""

    @abstractmethod
    def part(self, text: str, *, first: bool) -> Mapping[str, Any]:
        """What a choice of an event holds of a new text."""

    def whole(self, texts: Sequence[str], last: Sequence[Piece]) -> dict[str, Any]:
        """The answer to prompts whose last pieces are these."""
        choices = [
            {"index": index, **self.choice(text), **_end(piece)}
            for index, (text, piece) in enumerate(zip(texts, last, strict=True))
        ]
        return {**self._head, "object": self.whole_kind, "choices": choices, "usage": usage_of(last)}

    def event(self, piece: Piece, *, first: bool, usage: bool) -> dict[str, Any]:
        """One event; with usage asked for, those before the last hold `usage: null`."""
        choice = {"index": 0, **self.part(piece.text, first=first), **_end(piece)}
        extra = {"usage": None} if usage else {}
        return {**self._head, "object": self.part_kind, "choices": [choice], **extra}

    def counted(self, last: Piece) -> dict[str, Any]:
        """The event that holds the token counts alone."""
        return {**self._head, "object": self.part_kind, "choices": [], "usage": usage_of([last])}


class Chat(Shape):
    whole_kind, part_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def choice(self, text: str) -> Mapping[str, Any]:
        return {"message": {"role": "assistant", "content": text}}

    def part(self, text: str, *, first: bool) -> Mapping[str, Any]:
        content = {"content": text} if text or first else {}
        return {"delta": {"role": "assistant", **content} if first else content}


class Completion(Shape):
    whole_kind, part_kind, prefix = "text_completion", "text_completion", "cmpl"

    def choice(self, text: str) -> Mapping[str, Any]:
        return {"text": text, "logprobs": None}

    def part(self, text: str, *, first: bool) -> Mapping[str, Any]:
        return self.choice(text)


def _end(piece: Piece) -> dict[str, str | None]:
    """Why it ended; `stop_reason` is the stop text that was met, as vLLM names it."""
    stopped = {"stop_reason": piece.stop} if piece.stop is not None else {}
    return {"finish_reason": piece.finish, **stopped}


def usage_of(last: Sequence[Piece]) -> dict[str, int]:
    """Token counts of answers, from their last pieces."""
    prompt, completion = sum(p.prompt_tokens for p in last), sum(p.completion_tokens for p in last)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
