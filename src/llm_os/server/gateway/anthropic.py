"""The shapes of Anthropic's Messages API over a chat; must not know the network or keys."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from llm_os.errors import LLMOSError
from llm_os.server.gateway.translation import ChatTranslation, Progress, Translation, event, only, texts, wrong

API = "Anthropic's API"
KNOWN = frozenset(
    (
        *("model", "messages", "system", "max_tokens", "stop_sequences", "stream", "temperature", "top_p"),
        *("metadata", "service_tier", "cache_control"),
    )
)
COUNTED = frozenset({"model", "messages", "system", "cache_control"})
PARTS = frozenset({"text"})
DISABLED = {"type": "disabled"}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_body(error: LLMOSError, status: int, request_id: str) -> dict[str, Any]:
    """`{"type": "error", ...}` as Anthropic's clients read it; our code, parameter and hint stand beside."""
    told = {"type": _TYPES.get(status, "api_error"), "message": error.message}
    more = {"code": error.code, "param": error.details.get("param"), "hint": error.hint}
    return {"type": "error", "error": {**told, **more}, "request_id": request_id}


def error_event(error: Mapping[str, Any]) -> bytes:
    """The event that ends a stream which failed."""
    told = {"type": "api_error", "message": str(error.get("message"))}
    return event("error", {"type": "error", "error": told})


def messages_of(value: Mapping[str, Any]) -> list[dict[str, str]]:
    """The messages of a chat, the system's first. Raises InvalidOptionError."""
    given = value.get("messages")
    hint = 'Send "messages": [{"role": "user", "content": "..."}].'
    if not isinstance(given, list) or not given:
        raise wrong("messages", "'messages' must be a list with at least one message.", hint)
    system = value.get("system")
    chat = [{"role": "system", "content": texts(system, "system", PARTS)}] if system else []
    for index, message in enumerate(given):
        if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
            raise wrong(f"messages[{index}].role", f"Message {index} is neither the user's nor the assistant's.", hint)
        content = texts(message.get("content"), f"messages[{index}].content", PARTS)
        if index and chat[-1]["role"] == message["role"]:  # Anthropic joins neighbours of one role
            chat[-1]["content"] += f"\n\n{content}"
        else:
            chat.append({"role": message["role"], "content": content})
    if chat[-1]["role"] != "user":
        raise wrong("messages", "The last message is not the user's: no answer is gone on with here.", hint)
    return chat


def _asked(value: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that ask for something."""
    return {name: given for name, given in value.items() if given != DISABLED}


class Count(Translation):
    """A request of `POST /v1/messages/count_tokens`. Raises InvalidOptionError."""

    path = "/tokenize"

    def __init__(self, value: Mapping[str, Any]) -> None:
        only(_asked(value), COUNTED, API)
        self.body = json.dumps({"model": value.get("model"), "messages": messages_of(value)}).encode()

    def whole(self, answer: bytes) -> bytes:
        return json.dumps({"input_tokens": json.loads(answer)["count"]}).encode()

    def events(self, chunk: bytes) -> bytes:
        return chunk  # a count has no events

    def error(self, error: Mapping[str, Any]) -> bytes:
        return error_event(error)


class Message(ChatTranslation):
    """A request of `POST /v1/messages`. Raises InvalidOptionError."""

    names: ClassVar[Mapping[str, str]] = {"stop": "stop_sequences"}

    def __init__(self, value: Mapping[str, Any]) -> None:
        super().__init__()
        only(_asked(value), KNOWN, API)
        if value.get("max_tokens") is None:
            raise wrong("max_tokens", "'max_tokens' is missing.", 'Send "max_tokens": 1024, or what you need at most.')
        chat: dict[str, Any] = {"model": value.get("model"), "messages": messages_of(value)}
        for theirs, ours in (
            *(("max_tokens", "max_tokens"), ("temperature", "temperature"), ("top_p", "top_p")),
            *(("stop_sequences", "stop"), ("stream", "stream")),
        ):
            if value.get(theirs) is not None:
                chat[ours] = value[theirs]
        if value.get("stream") is True:
            chat["stream_options"] = {"include_usage": True}
        self.body = json.dumps(chat).encode()
        self._model = value.get("model")
        self._id = f"msg_{secrets.token_hex(12)}"

    def answer(self, said: Progress) -> Mapping[str, Any]:
        return {
            **self._head(),
            "content": [{"type": "text", "text": said.text}],
            **_ending(said),
            "usage": {"input_tokens": said.prompt_tokens, "output_tokens": said.completion_tokens},
        }

    def begin(self) -> Iterator[bytes]:
        # How many tokens the prompt has is known when the engine says it, at the end: `message_delta` tells it.
        empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
        message = {**self._head(), **empty, "usage": {"input_tokens": 0, "output_tokens": 0}}
        yield event("message_start", {"type": "message_start", "message": message})
        block = {"type": "text", "text": ""}
        yield event("content_block_start", {"type": "content_block_start", "index": 0, "content_block": block})

    def piece(self, text: str) -> bytes:
        delta = {"type": "text_delta", "text": text}
        return event("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta})

    def end(self, said: Progress) -> Iterator[bytes]:
        yield event("content_block_stop", {"type": "content_block_stop", "index": 0})
        usage = {"input_tokens": said.prompt_tokens, "output_tokens": said.completion_tokens}
        yield event("message_delta", {"type": "message_delta", "delta": _ending(said), "usage": usage})
        yield event("message_stop", {"type": "message_stop"})

    def error(self, error: Mapping[str, Any]) -> bytes:
        return error_event(error)

    def _head(self) -> dict[str, Any]:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self._model}


def _ending(said: Progress) -> dict[str, str | None]:
    if said.finish == "length":
        return {"stop_reason": "max_tokens", "stop_sequence": None}
    reason = "stop_sequence" if said.stopped_at is not None else "end_turn"
    return {"stop_reason": reason, "stop_sequence": said.stopped_at}
