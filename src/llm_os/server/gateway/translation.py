"""Other APIs than OpenAI's chat: a request of theirs is asked as a chat, the answer told back; knows no network.

Engines speak one shape, OpenAI's chat completions. What another API has and a chat has not is refused by name; what a
chat has and an engine does not follow, the engine refuses itself.
"""

from __future__ import annotations

import json
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from llm_os.errors import InvalidOptionError, LLMOSError

DONE = b"[DONE]"
NOTHING: tuple[Any, ...] = (None, [], {}, False)
"""Values of parameters that ask for nothing."""
_OF_TOOL = re.compile(r"(tools\[\d+\])\.function\.(\w+)")


@dataclass(slots=True)
class Said:
    """A text in an answer."""

    text: str = ""


@dataclass(slots=True)
class Called:
    """A call of a tool in an answer; its arguments are a JSON text that may come in parts."""

    id: str
    name: str
    arguments: str = ""


@dataclass(slots=True)
class Progress:
    """What the events of a chat said so far.

    Attributes:
        parts: texts and calls, in the order in which they came; the last one may still grow.
        finish: why the answer ended (`stop`, `length`, `tool_calls`), once it has.
        stopped_at: the stop text that ended it, where the engine says so.
    """

    parts: list[Said | Called] = field(default_factory=list)
    finish: str | None = None
    stopped_at: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt_tokens(self) -> int:
        return int(self.usage.get("prompt_tokens") or 0)

    @property
    def completion_tokens(self) -> int:
        return int(self.usage.get("completion_tokens") or 0)


class Translation(ABC):
    """One request of another API.

    Attributes:
        path: where an engine is asked.
        body: what it is asked.
    """

    path = "/v1/chat/completions"
    body: bytes
    names: ClassVar[Mapping[str, str]] = {}
    """The engine's names of parameters -> what the caller calls them."""
    turns: ClassVar[str] = "messages"
    """What the caller calls the messages, which are not counted as the engine counts them."""

    def renamed(self, error: LLMOSError) -> None:
        """Let an engine's refusal name the parameter that the caller sent."""
        param = error.details.get("param")
        if isinstance(param, str) and (theirs := self._theirs(param)):
            error.details["param"] = theirs
            error.message = error.message.replace(f"'{param}'", f"'{theirs}'")

    def _theirs(self, param: str) -> str | None:
        if param == "messages" or param.startswith("messages["):
            return self.turns
        if tool := _OF_TOOL.fullmatch(param):  # other APIs have no `function` between a tool and what it has
            return f"{tool[1]}.{self.names.get(tool[2], tool[2])}"
        return self.names.get(param)

    @abstractmethod
    def whole(self, answer: bytes) -> bytes:
        """The answer to a request without a stream."""

    @abstractmethod
    def events(self, chunk: bytes) -> bytes:
        """Events for whole events of the engine."""

    @abstractmethod
    def error(self, error: Mapping[str, Any]) -> bytes:
        """The event of an error in the middle of a stream, from OpenAI's `error` object."""


class ChatTranslation(Translation):
    """A request that is asked as a chat.

    Args:
        value: what was sent.
        chat: what of it has another shape in a chat; parameters of the same shape are taken over here.
        alike: the names of these, theirs and the chat's.
    """

    def __init__(self, value: Mapping[str, Any], chat: Mapping[str, Any], alike: Mapping[str, str]) -> None:
        self.body = json.dumps(_asked(value, chat, alike)).encode()
        self._said = Progress()
        self._begun = False
        self._calls: dict[int, int] = {}
        """The engine's number of a call -> its place among the parts."""

    def whole(self, answer: bytes) -> bytes:
        value = json.loads(answer)
        choice = value["choices"][0]
        self._take(choice, value.get("usage"))
        message, parts = choice["message"], self._said.parts
        calls = [_begun(call) for call in message.get("tool_calls") or ()]
        if message.get("content") or not calls:
            parts.append(Said(message.get("content") or ""))
        parts.extend(calls)
        return json.dumps(self.answer(self._said), ensure_ascii=False).encode()

    def events(self, chunk: bytes) -> bytes:
        told: list[bytes] = []
        for line in chunk.splitlines():
            if not line.startswith(b"data:"):
                continue
            if line[5:].strip() == DONE:
                told.extend(self._ended())
            else:
                value = json.loads(line[5:])
                told.extend([self.error(value["error"])] if "error" in value else self._told(value))
        return b"".join(told)

    def _told(self, value: Mapping[str, Any]) -> Iterator[bytes]:
        if not self._begun:
            self._begun = True
            yield from self.begin()
        choices = value.get("choices") or [{}]
        self._take(choices[0], value.get("usage"))
        delta = choices[0].get("delta") or {}
        if text := delta.get("content"):
            if not isinstance(part := self._last, Said):
                yield from self._next(part := Said())
            part.text += text
            yield self.piece(self._place, text)
        for call in delta.get("tool_calls") or ():
            yield from self._calling(call)

    def _calling(self, given: Mapping[str, Any]) -> Iterator[bytes]:
        """A call, whole or in parts: the first part names it, the others say more of its arguments."""
        index = given.get("index", 0)
        more = (given.get("function") or {}).get("arguments") or ""
        if index not in self._calls:
            yield from self._next(replace(_begun(given), arguments=""))
            self._calls[index] = self._place
        part = self._said.parts[self._calls[index]]
        if more and isinstance(part, Called):
            part.arguments += more
            yield self.piece(self._calls[index], more)

    @property
    def _last(self) -> Said | Called | None:
        return self._said.parts[-1] if self._said.parts else None

    @property
    def _place(self) -> int:
        return len(self._said.parts) - 1

    def _next(self, part: Said | Called) -> Iterator[bytes]:
        if (last := self._last) is not None:
            yield from self.close(self._place, last)
        self._said.parts.append(part)
        yield from self.open(self._place, part)

    def _ended(self) -> Iterator[bytes]:
        if not self._begun:
            yield from self.begin()
        if (last := self._last) is None:
            yield from self._next(last := Said())
        yield from self.close(self._place, last)
        yield from self.end(self._said)

    def _take(self, choice: Mapping[str, Any], usage: Mapping[str, Any] | None) -> None:
        said = self._said
        said.finish = choice.get("finish_reason") or said.finish
        said.stopped_at = choice.get("stop_reason") or said.stopped_at
        said.usage = usage or said.usage

    @abstractmethod
    def answer(self, said: Progress) -> Mapping[str, Any]:
        """A whole answer."""

    @abstractmethod
    def begin(self) -> Iterator[bytes]:
        """Events before the first part."""

    @abstractmethod
    def open(self, place: int, part: Said | Called) -> Iterator[bytes]:
        """Events that begin a part, with its number; it is empty as yet."""

    @abstractmethod
    def piece(self, place: int, text: str) -> bytes:
        """The event of more text of a part, or of more of the arguments of a call."""

    @abstractmethod
    def close(self, place: int, part: Said | Called) -> Iterator[bytes]:
        """Events that end a part."""

    @abstractmethod
    def end(self, said: Progress) -> Iterator[bytes]:
        """Events after the last part."""


def _asked(value: Mapping[str, Any], chat: Mapping[str, Any], alike: Mapping[str, str]) -> dict[str, Any]:
    """The chat that is asked, with the model's name and the parameters that are `alike`.

    A stream is asked for its counts, which a chat tells only on request and other APIs always tell.
    """
    same = {ours: value[theirs] for theirs, ours in alike.items() if value.get(theirs) is not None}
    counted = {"stream_options": {"include_usage": True}} if value.get("stream") is True else {}
    return {"model": value.get("model"), **chat, **same, **counted}


def _begun(given: Mapping[str, Any]) -> Called:
    function = given.get("function") or {}
    identity = given.get("id") or f"call_{secrets.token_hex(12)}"
    return Called(str(identity), str(function.get("name") or ""), function.get("arguments") or "")


def event(name: str, value: Mapping[str, Any]) -> bytes:
    """A server-sent event with a name."""
    return f"event: {name}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def wrong(param: str, message: str, hint: str) -> LLMOSError:
    """A refusal that names its parameter."""
    return InvalidOptionError(message, hint=hint, details={"param": param})


def only(value: Mapping[str, Any], known: frozenset[str], api: str) -> None:
    """Raises InvalidOptionError for a parameter that is neither known nor empty."""
    for name, given in value.items():
        if name not in known and given not in NOTHING:
            raise wrong(name, f"{api} here does not follow '{name}'.", f"It follows: {', '.join(sorted(known))}.")


def texts(given: Any, place: str, kinds: frozenset[str], *, first: int = 0) -> str:
    """A text, or the texts of a list of parts of these types, counted from `first`. Raises InvalidOptionError."""
    if isinstance(given, str):
        return given
    if isinstance(given, list):
        parts = []
        for index, part in enumerate(given, first):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            if not (isinstance(kind, str) and kind in kinds and isinstance(part.get("text"), str)):
                raise wrong(
                    f"{place}[{index}]",
                    f"Part {index} of '{place}' is of type '{kind}', which is not served here.",
                    f"Send texts: {', '.join(sorted(kinds))}.",
                )
            parts.append(part["text"])
        return "".join(parts)
    raise wrong(place, f"'{place}' must be a text or a list of parts.", 'Send "content": "...".')


def function(given: Any, place: str, schema: str) -> dict[str, Any]:
    """A tool of another API as a chat has it; `schema` is what that API calls the parameters.

    What is wrong inside, the engine says. Raises InvalidOptionError for what is no tool, or says what a chat cannot.
    """
    hint = f'Send {{"name": "...", "description": "...", "{schema}": {{"type": "object", ...}}}}.'
    if not isinstance(given, dict):
        raise wrong(place, f"'{place}' is no tool.", hint)
    for name, value in given.items():
        if name not in ("type", "name", "description", "strict", "cache_control", schema) and value not in NOTHING:
            raise wrong(f"{place}.{name}", f"'{name}' of a tool is not followed here.", hint)
    names = {"name": "name", "description": "description", "strict": "strict", schema: "parameters"}
    told = {ours: given[theirs] for theirs, ours in names.items() if given.get(theirs) is not None}
    return {"type": "function", "function": told}


def call(identity: Any, name: Any, arguments: Any) -> dict[str, Any]:
    """A call of a tool as a chat has it."""
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def add_call(chat: list[dict[str, Any]], one: Mapping[str, Any]) -> None:
    """Say that the assistant made a call: as part of its last message, if that came last."""
    if not chat or chat[-1]["role"] != "assistant":
        chat.append({"role": "assistant", "content": None})
    chat[-1].setdefault("tool_calls", []).append(one)


def add_result(chat: list[dict[str, Any]], of: Any, text: str, place: str) -> None:
    """Say what a call gave. Raises InvalidOptionError when no message before made it."""
    made = [one["id"] for message in chat for one in message.get("tool_calls") or ()]  # of any kind, as they came
    if not isinstance(of, str) or of not in made:
        raise wrong(place, f"'{place}' is {of!r}: no call before has this id.", "Send the call back, too, before it.")
    chat.append({"role": "tool", "tool_call_id": of, "content": text})
