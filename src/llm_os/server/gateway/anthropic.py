"""The shapes of Anthropic's Messages API over a chat; must not know the network or keys."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from llm_os.errors import LLMOSError
from llm_os.server.gateway.translation import (
    Called,
    ChatTranslation,
    Progress,
    Said,
    Translation,
    add_call,
    add_result,
    call,
    event,
    function,
    only,
    texts,
    wrong,
)

API = "Anthropic's API"
KNOWN = frozenset(
    (
        *("model", "messages", "system", "max_tokens", "stop_sequences", "stream", "temperature", "top_p", "top_k"),
        *("metadata", "service_tier", "cache_control", "tools", "tool_choice", "output_config"),
    )
)
COUNTED = frozenset({"model", "messages", "system", "cache_control", "tools", "tool_choice"})
CHOICES = {"auto": "auto", "any": "required", "none": "none", "tool": ""}
NAMES: Mapping[str, str] = {
    "stop": "stop_sequences",
    "parameters": "input_schema",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "response_format": "output_config.format",
}
ALIKE = {name: name for name in ("max_tokens", "temperature", "top_p", "top_k", "stream")} | {"stop_sequences": "stop"}
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


def messages_of(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of a chat, the system's first. Raises InvalidOptionError."""
    given = value.get("messages")
    hint = 'Send "messages": [{"role": "user", "content": "..."}].'
    if not isinstance(given, list) or not given:
        raise wrong("messages", "'messages' must be a list with at least one message.", hint)
    system = value.get("system")
    chat: list[dict[str, Any]] = [{"role": "system", "content": texts(system, "system", PARTS)}] if system else []
    for index, message in enumerate(given):
        if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
            raise wrong(f"messages[{index}].role", f"Message {index} is neither the user's nor the assistant's.", hint)
        _add(chat, message["role"], message.get("content"), f"messages[{index}].content")
    if chat[-1]["role"] == "assistant":
        raise wrong("messages", "The last message is not the user's: no answer is gone on with here.", hint)
    return chat


def _add(chat: list[dict[str, Any]], role: str, content: Any, place: str) -> None:
    """Add what one message says: texts, calls, and results of calls, which are messages of their own in a chat."""
    of = {"assistant": "tool_use", "user": "tool_result"}[role]
    blocks = content if isinstance(content, list) else ()
    if not any(isinstance(block, dict) and block.get("type") == of for block in blocks):
        _say(chat, role, texts(content, place, PARTS))
        return
    before = len(chat)
    for number, block in enumerate(content):
        where = f"{place}[{number}]"
        if not isinstance(block, dict) or block.get("type") != of:
            # Texts of one message are one text; of two messages, two paragraphs.
            text = texts([block], place, PARTS, first=number)
            if len(chat) > before and chat[-1]["role"] == role and not chat[-1].get("tool_calls"):
                chat[-1]["content"] += text
            else:
                _say(chat, role, text)
        elif role == "assistant":
            if not isinstance(block.get("input"), dict):
                raise wrong(f"{where}.input", "The input of a call is no object.", "Send back the block that came.")
            add_call(chat, call(block.get("id"), block.get("name"), json.dumps(block["input"], ensure_ascii=False)))
        else:
            told = texts(block.get("content") or "", f"{where}.content", PARTS)
            # A chat has no mark for a tool that failed: its result says so.
            told = f"Error: {told}" if block.get("is_error") else told
            add_result(chat, block.get("tool_use_id"), told, f"{where}.tool_use_id")


def _say(chat: list[dict[str, Any]], role: str, text: str) -> None:
    if chat and chat[-1]["role"] == role:  # Anthropic joins neighbours of one role
        said = chat[-1]["content"]
        chat[-1]["content"] = f"{said}\n\n{text}" if said else text
    else:
        chat.append({"role": role, "content": text})


def tools_of(value: Mapping[str, Any]) -> dict[str, Any]:
    """What a chat says of tools, as far as the caller says it. Raises InvalidOptionError."""
    chat: dict[str, Any] = {}
    if given := value.get("tools"):
        if not isinstance(given, list):
            raise wrong("tools", "'tools' must be a list.", 'Send [{"name": "...", "input_schema": {...}}].')
        for index, tool in enumerate(given):
            if isinstance(tool, dict) and tool.get("type") not in (None, "custom"):
                message = f"A tool of type {tool['type']!r} runs at Anthropic's; functions of yours are served here."
                raise wrong(f"tools[{index}].type", message, "Leave it out, or describe it with an 'input_schema'.")
        chat["tools"] = [function(tool, f"tools[{index}]", "input_schema") for index, tool in enumerate(given)]
    if (choice := value.get("tool_choice")) is not None:
        kind = choice.get("type") if isinstance(choice, dict) else None
        if not isinstance(kind, str) or kind not in CHOICES:
            raise wrong("tool_choice", f"'tool_choice' is none of {', '.join(CHOICES)}.", 'Send {"type": "auto"}.')
        named = {"type": "function", "function": {"name": choice.get("name")}}
        chat["tool_choice"] = CHOICES[kind] or named
        if choice.get("disable_parallel_tool_use") is not None:
            alone = choice["disable_parallel_tool_use"]
            chat["parallel_tool_calls"] = not alone if isinstance(alone, bool) else alone
    return chat


def format_of(value: Mapping[str, Any]) -> dict[str, Any]:
    """`response_format` of a chat, as far as `output_config` asks for one. Raises InvalidOptionError."""
    given = value.get("output_config") or {}
    if not isinstance(given, dict):
        raise wrong("output_config", "'output_config' must be an object.", "Leave it out.")
    only({f"output_config.{name}": one for name, one in given.items()}, frozenset({"output_config.format"}), API)
    if (form := given.get("format")) is None:
        return {}
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        message = "'output_config.format' must be of type json_schema."
        raise wrong("output_config.format", message, 'Send {"type": "json_schema", "schema": {...}}.')
    schema = {"name": "answer", "schema": form.get("schema")}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _asked(value: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that ask for something."""
    return {name: given for name, given in value.items() if given != DISABLED}


class Count(Translation):
    """A request of `POST /v1/messages/count_tokens`. Raises InvalidOptionError."""

    path = "/tokenize"
    names = NAMES

    def __init__(self, value: Mapping[str, Any]) -> None:
        only(_asked(value), COUNTED, API)
        asked = {"model": value.get("model"), "messages": messages_of(value)}
        self.body = json.dumps(asked | {name: one for name, one in tools_of(value).items() if name == "tools"}).encode()

    def whole(self, answer: bytes) -> bytes:
        return json.dumps({"input_tokens": json.loads(answer)["count"]}).encode()

    def events(self, chunk: bytes) -> bytes:
        return chunk  # a count has no events

    def error(self, error: Mapping[str, Any]) -> bytes:
        return error_event(error)


class Message(ChatTranslation):
    """A request of `POST /v1/messages`. Raises InvalidOptionError."""

    names: ClassVar[Mapping[str, str]] = NAMES

    def __init__(self, value: Mapping[str, Any]) -> None:
        only(_asked(value), KNOWN, API)
        if value.get("max_tokens") is None:
            raise wrong("max_tokens", "'max_tokens' is missing.", 'Send "max_tokens": 1024, or what you need at most.')
        super().__init__(value, {"messages": messages_of(value), **tools_of(value), **format_of(value)}, ALIKE)
        self._model = value.get("model")
        self._id = f"msg_{secrets.token_hex(12)}"

    def answer(self, said: Progress) -> Mapping[str, Any]:
        return {
            **self._head(),
            "content": [_block(part) for part in said.parts],
            **_ending(said),
            "usage": {"input_tokens": said.prompt_tokens, "output_tokens": said.completion_tokens},
        }

    def begin(self) -> Iterator[bytes]:
        # How many tokens the prompt has is known when the engine says it, at the end: `message_delta` tells it.
        empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
        message = {**self._head(), **empty, "usage": {"input_tokens": 0, "output_tokens": 0}}
        yield event("message_start", {"type": "message_start", "message": message})

    def open(self, place: int, part: Said | Called) -> Iterator[bytes]:
        block = {"type": "text", "text": ""} if isinstance(part, Said) else {**_block(part), "input": {}}
        yield event("content_block_start", {"type": "content_block_start", "index": place, "content_block": block})

    def piece(self, place: int, text: str) -> bytes:
        said = isinstance(self._said.parts[place], Said)
        delta = {"type": "text_delta", "text": text} if said else {"type": "input_json_delta", "partial_json": text}
        return event("content_block_delta", {"type": "content_block_delta", "index": place, "delta": delta})

    def close(self, place: int, part: Said | Called) -> Iterator[bytes]:
        yield event("content_block_stop", {"type": "content_block_stop", "index": place})

    def end(self, said: Progress) -> Iterator[bytes]:
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
    if said.finish == "tool_calls":
        return {"stop_reason": "tool_use", "stop_sequence": None}
    reason = "stop_sequence" if said.stopped_at is not None else "end_turn"
    return {"stop_reason": reason, "stop_sequence": said.stopped_at}


def _block(part: Said | Called) -> dict[str, Any]:
    if isinstance(part, Said):
        return {"type": "text", "text": part.text}
    try:
        given = json.loads(part.arguments or "{}")
    except ValueError:  # an answer that was cut in the middle of a call
        given = {}
    return {"type": "tool_use", "id": part.id, "name": part.name, "input": given if isinstance(given, dict) else {}}
