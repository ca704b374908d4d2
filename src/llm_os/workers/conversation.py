"""What was said so far, checked: messages of a chat as templates take them; must not know engines or templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_os.workers.refusals import wrong
from llm_os.workers.tools import called

ROLES = ("system", "developer", "user", "assistant", "tool")
_LIKE = 'Send "messages": [{"role": "user", "content": "..."}].'

Message = Mapping[str, Any]
"""`role` and `content`, a text; of an assistant also `tool_calls`, of a tool `tool_call_id` and its `name`."""


def messages_of(given: Any) -> tuple[Message, ...]:
    """The messages of a request. Raises InvalidOptionError that names the wrong one."""
    if not isinstance(given, list) or not given:
        raise wrong("messages", "'messages' must be a list with at least one message.", _LIKE)
    messages: list[dict[str, Any]] = []
    asked: dict[str, str] = {}
    for index, message in enumerate(given):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise wrong(f"messages[{index}].role", f"Message {index} has no role that this engine knows.", _LIKE)
        role = "system" if message["role"] == "developer" else message["role"]
        one: dict[str, Any] = {"role": role}
        if role == "assistant" and message.get("tool_calls"):
            one["content"] = "" if message.get("content") is None else _content(message["content"], index)
            one["tool_calls"] = called(message["tool_calls"], f"messages[{index}].tool_calls")
            asked |= {call["id"]: call["function"]["name"] for call in one["tool_calls"]}
        else:
            one["content"] = _content(message.get("content"), index)
        if role == "tool":
            of = message.get("tool_call_id")
            if not isinstance(of, str) or of not in asked:
                raise wrong(
                    f"messages[{index}].tool_call_id",
                    f"Message {index} is the result of a call {of!r} that no message before it made.",
                    "Send the assistant's message with its 'tool_calls' first, then one message of role tool for each.",
                )
            one |= {"tool_call_id": of, "name": asked[of]}
        messages.append(one)
    return tuple(messages)


def _content(given: Any, index: int) -> str:
    """A text, or OpenAI's list of parts when all are texts."""
    if isinstance(given, str):
        return given
    if isinstance(given, list) and given:
        parts = [part.get("text") for part in given if isinstance(part, dict) and part.get("type") == "text"]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) == len(given):
            return "".join(texts)
    raise wrong(f"messages[{index}].content", f"The content of message {index} is not a text.", _LIKE)
