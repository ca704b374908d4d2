"""What generated text looks like on the wire: OpenAI's chats and completions; must not know the network."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from llm_os.workers.backend import Piece
from llm_os.workers.texts import UNFINISHED
from llm_os.workers.tools import ToolCall


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
    def choice(self, piece: Piece, index: int) -> Mapping[str, Any]:
        """What a choice of a whole answer holds of its text."""

    @abstractmethod
    def part(self, piece: Piece, index: int, *, first: bool) -> Mapping[str, Any]:
        """What a choice of an event holds of a new text."""

    def whole(self, answers: Sequence[Piece], n: int) -> dict[str, Any]:
        """The answers to prompts, `n` to each, each as one piece."""
        choices = [{"index": index, **self.choice(piece, index), **_end(piece)} for index, piece in enumerate(answers)]
        return {**self._head, "object": self.whole_kind, "choices": choices, "usage": usage_of(answers, n)}

    def event(self, piece: Piece, index: int, *, first: bool, usage: bool) -> dict[str, Any]:
        """One event; with usage asked for, those before the last hold `usage: null`."""
        choice = {"index": index, **self.part(piece, index, first=first), **_end(piece)}
        extra = {"usage": None} if usage else {}
        return {**self._head, "object": self.part_kind, "choices": [choice], **extra}

    def counted(self, last: Sequence[Piece]) -> dict[str, Any]:
        """The event that holds the token counts alone, from the last pieces of all answers to one prompt."""
        return {**self._head, "object": self.part_kind, "choices": [], "usage": usage_of(last, len(last))}


class Chat(Shape):
    whole_kind, part_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._called: dict[int, int] = {}

    def choice(self, piece: Piece, index: int) -> Mapping[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": piece.text}
        if piece.calls:
            message |= {"content": piece.text or None, "tool_calls": [_called(call) for call in piece.calls]}
        return {"message": message, **self._told(piece)}

    def part(self, piece: Piece, index: int, *, first: bool) -> Mapping[str, Any]:
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        if piece.text or (first and not piece.calls):
            delta["content"] = piece.text
        if piece.calls:
            begin = self._called.get(index, 0)
            delta["tool_calls"] = [{"index": at, **_called(call)} for at, call in enumerate(piece.calls, begin)]
            self._called[index] = begin + len(piece.calls)
        return {"delta": delta, **self._told(piece)}

    def _told(self, piece: Piece) -> Mapping[str, Any]:
        if not piece.scores:
            return {}
        content = [
            {**_token(one.text, one.logprob), "top_logprobs": [_token(*other) for other in one.top]}
            for one in piece.scores
        ]
        return {"logprobs": {"content": content, "refusal": None}}


class Completion(Shape):
    whole_kind, part_kind, prefix = "text_completion", "text_completion", "cmpl"

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._offsets: dict[int, int] = {}

    def choice(self, piece: Piece, index: int) -> Mapping[str, Any]:
        if not piece.scores:
            return {"text": piece.text, "logprobs": None}
        offset = self._offsets.get(index, 0)
        texts = [one.text for one in piece.scores]
        ends = list(accumulate(map(len, texts)))
        told = {
            "tokens": texts,
            "token_logprobs": [one.logprob for one in piece.scores],
            "top_logprobs": [dict(reversed(one.top)) for one in piece.scores],  # of equal texts the likeliest
            "text_offset": [offset, *(offset + end for end in ends[:-1])],
        }
        self._offsets[index] = offset + ends[-1]
        return {"text": piece.text, "logprobs": told}

    def part(self, piece: Piece, index: int, *, first: bool) -> Mapping[str, Any]:
        return self.choice(piece, index)


def _called(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _token(text: str, logprob: float) -> dict[str, Any]:
    # A part of a character has no text of its own, and its bytes are not known here.
    return {"token": text, "logprob": logprob, "bytes": None if UNFINISHED in text else list(text.encode())}


def _end(piece: Piece) -> dict[str, str | None]:
    """Why it ended; `stop_reason` is the stop text that was met, as vLLM names it."""
    stopped = {"stop_reason": piece.stop} if piece.stop is not None else {}
    return {"finish_reason": piece.finish, **stopped}


def usage_of(last: Sequence[Piece], n: int) -> dict[str, Any]:
    """Token counts of answers, `n` to each prompt, from their last pieces; a prompt counts once.

    `prompt_tokens_details.cached_tokens` is there only where the engine told of every prompt: 0 is a number, too.
    """
    prompt, completion = sum(p.prompt_tokens for p in last[::n]), sum(p.completion_tokens for p in last)
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    cached = [piece.cached_tokens for piece in last[::n]]
    known = [
        min(tokens, piece.prompt_tokens) for tokens, piece in zip(cached, last[::n], strict=True) if tokens is not None
    ]
    return counts | ({"prompt_tokens_details": {"cached_tokens": sum(known)}} if len(known) == len(cached) else {})
