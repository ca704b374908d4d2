"""The shapes of OpenAI's Responses API over a chat; must not know the network or keys.

Nothing is stored here, so an answer cannot be asked for again, and a conversation is sent whole each time.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from llm_os.server.gateway.spool import cached_of
from llm_os.server.gateway.translation import (
    Called,
    ChatTranslation,
    Progress,
    Said,
    add_call,
    add_result,
    call,
    event,
    function,
    only,
    texts,
    wrong,
)

API = "The Responses API"
KNOWN = frozenset(
    (
        *("model", "input", "instructions", "max_output_tokens", "stream", "temperature", "top_p"),
        *("metadata", "user", "store", "safety_identifier", "prompt_cache_key", "service_tier"),
        *("tools", "tool_choice", "parallel_tool_calls", "text"),
    )
)
ALIKE = {name: name for name in ("temperature", "top_p", "stream")} | {"max_output_tokens": "max_tokens"}
PARTS = frozenset({"input_text", "output_text", "text"})
ROLES = ("user", "assistant", "system", "developer")
PLAIN = {"format": {"type": "text"}}
NEUTRAL: Mapping[str, tuple[Any, ...]] = {"truncation": ("disabled",)}
"""Parameters that are not followed, with the values that ask for nothing."""


class Response(ChatTranslation):
    """A request of `POST /v1/responses`. Raises InvalidOptionError."""

    names: ClassVar[Mapping[str, str]] = {"max_tokens": "max_output_tokens", "response_format": "text.format"}
    turns = "input"

    def __init__(self, value: Mapping[str, Any]) -> None:
        only({name: given for name, given in value.items() if given not in NEUTRAL.get(name, ())}, KNOWN, API)
        super().__init__(value, {"messages": _messages(value), **_tools(value), **_format(value)}, ALIKE)
        self._id, self._items = f"resp_{secrets.token_hex(16)}", list[str]()
        self._made = time.time()
        self._number = -1
        self._asked = {
            "model": value.get("model"),
            "instructions": value.get("instructions"),
            "max_output_tokens": value.get("max_output_tokens"),
            "temperature": value.get("temperature"),
            "top_p": value.get("top_p"),
            "metadata": _metadata(value.get("metadata")),
            "parallel_tool_calls": value.get("parallel_tool_calls") is not False,
            "text": value.get("text") or PLAIN,
            "tool_choice": value.get("tool_choice") or "auto",
            "tools": value.get("tools") or [],
        }

    def answer(self, said: Progress) -> Mapping[str, Any]:
        cut = said.finish == "length"
        status = "incomplete" if cut else "completed"
        usage = {
            "input_tokens": said.prompt_tokens,
            "input_tokens_details": {"cached_tokens": cached_of(said.usage) or 0},
            "output_tokens": said.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": said.prompt_tokens + said.completion_tokens,
        }
        output = [self._item(place, part, status) for place, part in enumerate(said.parts)]
        return self._object(status, output, usage, cut=cut)

    def begin(self) -> Iterator[bytes]:
        yield self._event("response.created", response=self._object("in_progress", [], None))
        yield self._event("response.in_progress", response=self._object("in_progress", [], None))

    def open(self, place: int, part: Said | Called) -> Iterator[bytes]:
        item = self._item(place, part, "in_progress")
        if isinstance(part, Called):
            yield self._event("response.output_item.added", output_index=place, item=item)
            return
        yield self._event("response.output_item.added", output_index=place, item={**item, "content": []})
        yield self._event("response.content_part.added", **self._at(place), content_index=0, part=_part(""))

    def piece(self, place: int, text: str) -> bytes:
        if isinstance(self._said.parts[place], Called):
            return self._event("response.function_call_arguments.delta", **self._at(place), delta=text)
        return self._event("response.output_text.delta", **self._at(place), content_index=0, delta=text, logprobs=[])

    def close(self, place: int, part: Said | Called) -> Iterator[bytes]:
        at = self._at(place)
        if isinstance(part, Called):
            done = {"name": part.name, "arguments": part.arguments}
            yield self._event("response.function_call_arguments.done", **at, **done)
        else:
            yield self._event("response.output_text.done", **at, content_index=0, text=part.text, logprobs=[])
            yield self._event("response.content_part.done", **at, content_index=0, part=_part(part.text))
        item = self._item(place, part, "incomplete" if self._said.finish == "length" else "completed")
        yield self._event("response.output_item.done", output_index=place, item=item)

    def end(self, said: Progress) -> Iterator[bytes]:
        whole = self.answer(said)
        yield self._event(f"response.{whole['status']}", response=whole)

    def error(self, error: Mapping[str, Any]) -> bytes:
        told = {"code": error.get("code"), "message": str(error.get("message")), "param": error.get("param")}
        return self._event("error", **told)

    def _event(self, kind: str, **values: Any) -> bytes:
        self._number += 1
        return event(kind, {"type": kind, "sequence_number": self._number, **values})

    def _at(self, place: int) -> dict[str, Any]:
        return {"item_id": self._identity(place), "output_index": place}

    def _identity(self, place: int) -> str:
        while len(self._items) <= place:
            self._items.append(secrets.token_hex(16))
        return f"{'fc' if isinstance(self._said.parts[place], Called) else 'msg'}_{self._items[place]}"

    def _item(self, place: int, part: Said | Called, status: str) -> dict[str, Any]:
        if isinstance(part, Called):
            told = {"call_id": part.id, "name": part.name, "arguments": part.arguments}
            return {"id": self._identity(place), "type": "function_call", "status": status, **told}
        head = {"id": self._identity(place), "type": "message", "role": "assistant", "status": status}
        return {**head, "content": [_part(part.text)]}

    def _object(
        self, status: str, output: list[Any], usage: Mapping[str, Any] | None, *, cut: bool = False
    ) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._made,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            **self._asked,
            "output": output,
            "previous_response_id": None,
            "store": False,
            "usage": usage,
        }


def _messages(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    given, hint = value.get("input"), 'Send "input": "..." or [{"role": "user", "content": "..."}].'
    instructions = value.get("instructions")
    if instructions is not None and not isinstance(instructions, str):
        raise wrong("instructions", "'instructions' must be a text.", "Leave it out for none.")
    chat: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(given, str) and given:
        return [*chat, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise wrong("input", "'input' must be a text or a list with at least one message.", hint)
    for index, item in enumerate(given):
        kind = item.get("type", "message") if isinstance(item, dict) else type(item).__name__
        place = f"input[{index}]"
        if kind == "function_call":
            _add_call(chat, item, place)
        elif kind == "function_call_output":
            told = texts(item.get("output"), f"{place}.output", PARTS)
            add_result(chat, item.get("call_id"), told, f"{place}.call_id")
        elif kind != "message":
            served = "a message, a function_call or its output"
            raise wrong(place, f"Item {index} of 'input' is of type '{kind}', not {served}.", hint)
        elif item.get("role") not in ROLES:
            raise wrong(f"{place}.role", f"Item {index} has none of the roles {', '.join(ROLES)}.", hint)
        else:
            chat.append({"role": item["role"], "content": texts(item.get("content"), f"{place}.content", PARTS)})
    return chat


def _add_call(chat: list[dict[str, Any]], item: Mapping[str, Any], place: str) -> None:
    for name in ("call_id", "name", "arguments"):
        if not isinstance(item.get(name), str):
            raise wrong(
                f"{place}.{name}", f"'{name}' of a function_call must be a text.", "Send back the item that came."
            )
    add_call(chat, call(item["call_id"], item["name"], item["arguments"]))


def _tools(value: Mapping[str, Any]) -> dict[str, Any]:
    """What a chat says of tools, as far as the caller says it. Raises InvalidOptionError."""
    chat: dict[str, Any] = {}
    if given := value.get("tools"):
        if not isinstance(given, list):
            raise wrong("tools", "'tools' must be a list.", 'Send [{"type": "function", "name": "...", ...}].')
        for index, tool in enumerate(given):
            kind = tool.get("type") if isinstance(tool, dict) else None
            if kind != "function":
                message = f"A tool of type {kind!r} runs at OpenAI's; functions of yours are served here."
                raise wrong(f"tools[{index}].type", message, "Leave it out, or describe it as a function.")
        chat["tools"] = [function(tool, f"tools[{index}]", "parameters") for index, tool in enumerate(given)]
    if (choice := value.get("tool_choice")) is not None:
        named = isinstance(choice, dict) and choice.get("type") == "function"
        chat["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}} if named else choice
    if value.get("parallel_tool_calls") is not None:
        chat["parallel_tool_calls"] = value["parallel_tool_calls"]
    return chat


def _format(value: Mapping[str, Any]) -> dict[str, Any]:
    """`response_format` of a chat, as far as `text` asks for one. Raises InvalidOptionError."""
    given = value.get("text") or {}
    if not isinstance(given, dict):
        raise wrong("text", "'text' must be an object.", 'Send {"format": {"type": "json_schema", ...}}.')
    only({f"text.{name}": one for name, one in given.items()}, frozenset({"text.format"}), API)
    form = given.get("format")
    if form in (None, PLAIN["format"]):
        return {}
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        return {"response_format": form}  # the engine says whether it can
    named = {name: one for name, one in form.items() if name != "type"}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _metadata(given: Any) -> dict[str, str]:
    found = {} if given is None else given
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise wrong("metadata", "'metadata' must be an object of texts.", 'Send "metadata": {"name": "text"}.')
    return found


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
