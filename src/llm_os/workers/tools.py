"""The tools that a request offers a model, and the calls of them, checked; must not know engines or templates.

The shapes are OpenAI's. `tool_choice` leaves no trace but two flags: `none` offers nothing, and a named tool is the one
that is offered and must be called, once.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_os.spec.base import half_characters, too_deep
from llm_os.workers.refusals import wrong
from llm_os.workers.schemas import MOST_BYTES, vetted

MOST_TOOLS = 128
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
OBJECT: Mapping[str, Any] = {"type": "object", "properties": {}}
"""Parameters of a tool that names none."""
CHOICES = ("none", "auto", "required")
FORCING = "openvino"
"""Engines that can hold a call to its tool."""
_LIKE = 'Send "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", ...}}}].'


@dataclass(frozen=True, slots=True)
class Tool:
    """A function of the caller's that a model may ask for.

    Attributes:
        parameters: JSON Schema of its arguments, an object.
        strict: arguments must keep the schema.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: dict(OBJECT))
    strict: bool = False

    def told(self) -> dict[str, Any]:
        """As chat templates take it."""
        about = {"description": self.description} if self.description else {}
        return {"type": "function", "function": {"name": self.name, **about, "parameters": dict(self.parameters)}}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model asks for a tool.

    Attributes:
        arguments: a JSON object, as text.
    """

    name: str
    arguments: str
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")


@dataclass(frozen=True, slots=True)
class Offer:
    """See `requests.ChatRequest`."""

    tools: tuple[Tool, ...] = ()
    must_call: bool = False
    parallel: bool = True


def offer(value: Mapping[str, Any], engine: str, follows: frozenset[str]) -> Offer:
    """What `tools`, `tool_choice` and `parallel_tool_calls` of a request say. Raises InvalidOptionError."""
    tools = _tools(value.get("tools"))
    parallel = value.get("parallel_tool_calls")
    if not isinstance(parallel, bool | None):
        raise wrong("parallel_tool_calls", "'parallel_tool_calls' must be true or false.", "Leave it out for true.")
    choice = "auto" if (given := value.get("tool_choice")) is None else given
    if choice in ("none", "auto"):
        offered, must = (tools if choice == "auto" else ()), False
    else:
        offered, must = _forced(choice, tools), True
    grammar = "tool_choice" in follows
    if must and not grammar:
        message = f"The engine {engine} cannot hold an answer to a call: 'tool_choice' is auto or none there."
        raise wrong("tool_choice", message, f"It is followed by the engine {FORCING}. Or leave it out.")
    size = 0
    for index, tool in enumerate(tools):
        place = f"tools[{index}].function"
        if tool.strict and tool in offered and not grammar:
            message = f"The engine {engine} cannot hold the arguments of '{tool.name}' to their schema."
            raise wrong(f"{place}.strict", message, f"'strict' is followed by the engine {FORCING}. Or leave it out.")
        if tool in offered and (must or tool.strict):
            size += len(vetted(tool.parameters, f"{place}.parameters"))
    if size > MOST_BYTES:
        message = f"The parameters of all tools that a call is held to have {size} bytes, {MOST_BYTES} at most."
        raise wrong("tools", message, "Offer fewer tools, or name one of them in 'tool_choice'.")
    named = must and choice != "required"
    return Offer(offered, must, (parallel is not False) and not named)


def _tools(given: Any) -> tuple[Tool, ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > MOST_TOOLS:
        raise wrong("tools", f"'tools' must be a list of at most {MOST_TOOLS} tools.", _LIKE)
    tools = tuple(_tool(one, f"tools[{index}]") for index, one in enumerate(given))
    names = [tool.name for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise wrong(f"tools[{index}].function.name", f"Two tools are called '{name}'.", "Give each its own name.")
    return tools


def _tool(given: Any, place: str) -> Tool:
    kind = given.get("type") if isinstance(given, dict) else None
    if kind != "function":
        raise wrong(f"{place}.type", f"A tool of type {kind!r} is not served: functions are.", _LIKE)
    about = given.get("function")
    if not isinstance(about, dict):
        raise wrong(f"{place}.function", "A tool needs its function.", _LIKE)
    if unknown := sorted(set(about) - {"name", "description", "parameters", "strict"}):
        raise wrong(f"{place}.function.{unknown[0]}", f"A function has no '{unknown[0]}'.", _LIKE)
    name, description = about.get("name"), about.get("description") or ""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        hint = "Letters, digits, '_' and '-', 64 at most."
        raise wrong(f"{place}.function.name", "The name of a tool is missing, or no name.", hint)
    if not isinstance(description, str):
        raise wrong(f"{place}.function.description", f"The description of '{name}' is not a text.", _LIKE)
    parameters = about.get("parameters") or OBJECT
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        hint = 'Send {"type": "object", "properties": {...}}.'
        message = f"The parameters of '{name}' are no JSON Schema of an object."
        raise wrong(f"{place}.function.parameters", message, hint)
    if not isinstance(strict := about.get("strict"), bool | None):
        raise wrong(f"{place}.function.strict", "'strict' must be true or false.", "Leave it out for false.")
    return Tool(name, description, dict(parameters), bool(strict))


def _forced(choice: Any, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    """The tools of which one must be called."""
    hint = 'Send "auto", "none", "required", or {"type": "function", "function": {"name": "..."}} of an offered tool.'
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    if choice != "required" and not isinstance(name, str):
        raise wrong("tool_choice", f"'tool_choice' is none of {', '.join(CHOICES)}, and names no function.", hint)
    chosen = tools if choice == "required" else tuple(tool for tool in tools if tool.name == name)
    if not chosen:
        what = "no tool is offered" if not tools else f"no tool is called '{name}'"
        raise wrong("tool_choice", f"'tool_choice' cannot be followed: {what}.", hint)
    return chosen


def called(given: Any, place: str) -> list[dict[str, Any]]:
    """The calls of an assistant's message as chat templates take them, arguments as objects."""
    if not isinstance(given, list):
        raise wrong(place, f"'{place}' must be a list of calls.", 'Send back what the answer\'s "tool_calls" was.')
    return [_call(one, f"{place}[{index}]") for index, one in enumerate(given)]


def _call(given: Any, place: str) -> dict[str, Any]:
    call = given if isinstance(given, dict) and given.get("type", "function") == "function" else {}
    function = found if isinstance(found := call.get("function"), dict) else {}
    name = function.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name) or not isinstance(call.get("id"), str):
        hint = 'Send {"id": "...", "type": "function", "function": {"name": "...", "arguments": "{...}"}}.'
        raise wrong(place, f"'{place}' is no call of a function with its id.", hint)
    try:
        arguments = json.loads(text := function.get("arguments") or "{}")
        spoilt = too_deep(text.encode(), arguments) or half_characters(text.encode(), arguments)
    except (ValueError, TypeError, RecursionError):
        spoilt = True
    if spoilt or not isinstance(arguments, dict):
        raise wrong(
            f"{place}.function.arguments", "The arguments of a call must be a JSON object, as text.", "Mend it."
        )
    return {"id": call["id"], "type": "function", "function": {"name": name, "arguments": arguments}}
