"""Other APIs than OpenAI's chat: a request of theirs is asked as a chat, the answer told back; knows no network.

Engines speak one shape, OpenAI's chat completions. What another API has and a chat has not is refused by name; what a
chat has and an engine does not follow, the engine refuses itself.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from llm_os.errors import InvalidOptionError, LLMOSError

DONE = b"[DONE]"


@dataclass(slots=True)
class Progress:
    """What the events of a chat said so far.

    Attributes:
        finish: why the answer ended (`stop`, `length`), once it has.
        stopped_at: the stop text that ended it, where the engine says so.
    """

    text: str = ""
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

    def renamed(self, error: LLMOSError) -> None:
        """Let an engine's refusal name the parameter that the caller sent."""
        param = error.details.get("param")
        if isinstance(param, str) and (theirs := self.names.get(param)):
            error.details["param"] = theirs
            error.message = error.message.replace(f"'{param}'", f"'{theirs}'")

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
    """A request that is asked as a chat."""

    def __init__(self) -> None:
        self._said = Progress()
        self._begun = False

    def whole(self, answer: bytes) -> bytes:
        value = json.loads(answer)
        choice = value["choices"][0]
        self._take(choice, value.get("usage"))
        self._said.text = choice["message"].get("content") or ""
        return json.dumps(self.answer(self._said), ensure_ascii=False).encode()

    def events(self, chunk: bytes) -> bytes:
        told: list[bytes] = []
        for line in chunk.splitlines():
            if not line.startswith(b"data:"):
                continue
            if line[5:].strip() == DONE:
                told.extend(self.end(self._said))
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
        text = (choices[0].get("delta") or {}).get("content")
        if text:
            self._said.text += text
            yield self.piece(text)

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
        """Events before the first text."""

    @abstractmethod
    def piece(self, text: str) -> bytes:
        """The event of a new text."""

    @abstractmethod
    def end(self, said: Progress) -> Iterator[bytes]:
        """Events after the last text."""


def event(name: str, value: Mapping[str, Any]) -> bytes:
    """A server-sent event with a name."""
    return f"event: {name}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def wrong(param: str, message: str, hint: str) -> LLMOSError:
    """A refusal that names its parameter."""
    return InvalidOptionError(message, hint=hint, details={"param": param})


def only(value: Mapping[str, Any], known: frozenset[str], api: str) -> None:
    """Raises InvalidOptionError for a parameter that is neither known nor empty."""
    for name, given in value.items():
        if name not in known and given not in (None, [], {}, False):
            raise wrong(name, f"{api} here does not follow '{name}'.", f"It follows: {', '.join(sorted(known))}.")


def texts(given: Any, place: str, kinds: frozenset[str]) -> str:
    """A text, or the texts of a list of parts of these types. Raises InvalidOptionError."""
    if isinstance(given, str):
        return given
    if isinstance(given, list):
        parts = []
        for index, part in enumerate(given):
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
