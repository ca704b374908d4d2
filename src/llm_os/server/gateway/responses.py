"""The shapes of OpenAI's Responses API over a chat; must not know the network or keys.

Nothing is stored here, so an answer cannot be asked for again, and a conversation is sent whole each time.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from llm_os.server.gateway.translation import ChatTranslation, Progress, event, only, texts, wrong

API = "The Responses API"
KNOWN = frozenset(
    (
        *("model", "input", "instructions", "max_output_tokens", "stream", "temperature", "top_p"),
        *("metadata", "user", "store", "safety_identifier", "prompt_cache_key", "service_tier"),
    )
)
PARTS = frozenset({"input_text", "output_text", "text"})
ROLES = ("user", "assistant", "system", "developer")
PLAIN = {"format": {"type": "text"}}
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "text": (PLAIN,),
    "truncation": ("disabled",),
    "tool_choice": ("none", "auto"),
}
"""Parameters that are not followed, with the values that ask for nothing."""


class Response(ChatTranslation):
    """A request of `POST /v1/responses`. Raises InvalidOptionError."""

    names: ClassVar[Mapping[str, str]] = {"max_tokens": "max_output_tokens"}

    def __init__(self, value: Mapping[str, Any]) -> None:
        super().__init__()
        only({name: given for name, given in value.items() if given not in NEUTRAL.get(name, ())}, KNOWN, API)
        chat: dict[str, Any] = {"model": value.get("model"), "messages": _messages(value)}
        for theirs, ours in (
            *(("max_output_tokens", "max_tokens"), ("temperature", "temperature"), ("top_p", "top_p")),
            ("stream", "stream"),
        ):
            if value.get(theirs) is not None:
                chat[ours] = value[theirs]
        if value.get("stream") is True:
            chat["stream_options"] = {"include_usage": True}
        self.body = json.dumps(chat).encode()
        self._id, self._item = f"resp_{secrets.token_hex(16)}", f"msg_{secrets.token_hex(16)}"
        self._made = time.time()
        self._number = -1
        self._asked = {
            "model": value.get("model"),
            "instructions": value.get("instructions"),
            "max_output_tokens": value.get("max_output_tokens"),
            "temperature": value.get("temperature"),
            "top_p": value.get("top_p"),
            "metadata": _metadata(value.get("metadata")),
        }

    def answer(self, said: Progress) -> Mapping[str, Any]:
        cut = said.finish == "length"
        status = "incomplete" if cut else "completed"
        usage = {
            "input_tokens": said.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": said.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": said.prompt_tokens + said.completion_tokens,
        }
        return self._object(status, [self._message(said.text, status)], usage, cut=cut)

    def begin(self) -> Iterator[bytes]:
        yield self._event("response.created", response=self._object("in_progress", [], None))
        yield self._event("response.in_progress", response=self._object("in_progress", [], None))
        item = {**self._message("", "in_progress"), "content": []}
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._event("response.content_part.added", **self._place(), part=_part(""))

    def piece(self, text: str) -> bytes:
        return self._event("response.output_text.delta", **self._place(), delta=text, logprobs=[])

    def end(self, said: Progress) -> Iterator[bytes]:
        yield self._event("response.output_text.done", **self._place(), text=said.text, logprobs=[])
        yield self._event("response.content_part.done", **self._place(), part=_part(said.text))
        whole = self.answer(said)
        yield self._event("response.output_item.done", output_index=0, item=whole["output"][0])
        yield self._event(f"response.{whole['status']}", response=whole)

    def error(self, error: Mapping[str, Any]) -> bytes:
        told = {"code": error.get("code"), "message": str(error.get("message")), "param": error.get("param")}
        return self._event("error", **told)

    def _event(self, kind: str, **values: Any) -> bytes:
        self._number += 1
        return event(kind, {"type": kind, "sequence_number": self._number, **values})

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item, "output_index": 0, "content_index": 0}

    def _message(self, text: str, status: str) -> dict[str, Any]:
        head = {"id": self._item, "type": "message", "role": "assistant", "status": status}
        return {**head, "content": [_part(text)]}

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
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "text": PLAIN,
            "tool_choice": "none",
            "tools": [],
            "usage": usage,
        }


def _messages(value: Mapping[str, Any]) -> list[dict[str, str]]:
    given, hint = value.get("input"), 'Send "input": "..." or [{"role": "user", "content": "..."}].'
    instructions = value.get("instructions")
    if instructions is not None and not isinstance(instructions, str):
        raise wrong("instructions", "'instructions' must be a text.", "Leave it out for none.")
    chat = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(given, str) and given:
        return [*chat, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise wrong("input", "'input' must be a text or a list with at least one message.", hint)
    for index, item in enumerate(given):
        kind = item.get("type", "message") if isinstance(item, dict) else type(item).__name__
        if kind != "message":
            raise wrong(f"input[{index}]", f"Item {index} of 'input' is of type '{kind}', not a message.", hint)
        if item.get("role") not in ROLES:
            raise wrong(f"input[{index}].role", f"Item {index} has none of the roles {', '.join(ROLES)}.", hint)
        content = texts(item.get("content"), f"input[{index}].content", PARTS)
        chat.append({"role": item["role"], "content": content})
    return chat


def _metadata(given: Any) -> dict[str, str]:
    found = {} if given is None else given
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise wrong("metadata", "'metadata' must be an object of texts.", 'Send "metadata": {"name": "text"}.')
    return found


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
