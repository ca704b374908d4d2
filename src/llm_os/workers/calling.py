"""How models are told of tools and how they call them: forms, their text in a prompt, and a parser of what is said.

Which form a model speaks is read off its chat template. A template that knows no tools, or a form that is not known
here, is told of them in a system message, in the form of Hermes. Must not know an engine or the network.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from llm_os.workers.backend import Piece
from llm_os.workers.conversation import Message
from llm_os.workers.requests import ChatRequest
from llm_os.workers.texts import overlap
from llm_os.workers.tools import Tool, ToolCall

MOST_CALLS = 128
"""Calls in one answer."""
MOST_ENDS = 16
"""Marks of an end inside a JSON text of a call; what has more is no call."""
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_KNOWS_TOOLS = re.compile(r"\btools\b")


@dataclass(frozen=True, slots=True)
class Form:
    """How a call is written.

    Attributes:
        begin: mark before a call.
        end: mark after it; empty: a call goes on to the end of the answer.
        key: what arguments are called.
        bare: a call is written without its mark.
        listed: calls stand in a list.
    """

    begin: str
    end: str = ""
    key: str = "arguments"
    bare: bool = False
    listed: bool = False

    def around(self, name: str) -> tuple[str, str]:
        """What stands before and after the arguments of a call, for a grammar."""
        before = f'{{"name": {json.dumps(name)}, "{self.key}": '
        if self.bare:
            return before, "}"
        if self.listed:
            return f"{self.begin}[{before}", "}]"
        return f"{self.begin}\n{before}", f"}}\n{self.end}"

    @property
    def trigger(self) -> str:
        """What an answer holds as soon as it is a call."""
        return '{"name": "' if self.bare else self.begin


HERMES = Form("<tool_call>", "</tool_call>")
"""Hermes, Qwen 2.5 and 3, SmolLM."""
LLAMA = Form("<|python_tag|>", key="parameters", bare=True)
"""Llama 3.1 to 3.3."""
MISTRAL = Form("[TOOL_CALLS]", listed=True)
FORMS = (HERMES, MISTRAL, LLAMA)


def form_of(template: str) -> tuple[Form, bool]:
    """How a model with this chat template calls tools, and whether the template tells it of them."""
    if _KNOWS_TOOLS.search(template):
        for form in FORMS:
            if form.begin in template or (form is LLAMA and '"parameters":' in template):
                if form is HERMES and "<function=" in template:  # Qwen3-Coder writes arguments as XML
                    continue
                return form, True
    return HERMES, False


def plain(messages: Sequence[Message], tools: Sequence[Tool]) -> list[dict[str, str]]:
    """Messages with texts and nothing else, for a template that knows no tools: calls and results become texts."""
    texts: list[dict[str, str]] = []
    if tools:
        texts.append({"role": "system", "content": description(tools)})
    answered = False
    for message in messages:
        role, content = str(message["role"]), str(message["content"])
        calls = [_written(call["function"]) for call in message.get("tool_calls") or ()]
        content = "\n".join([*([content] if content or not calls else []), *calls])
        result = role == "tool"
        if result:
            role, content = "user", f"<tool_response>\n{content}\n</tool_response>"
        if role == "system" and tools and len(texts) == 1:
            texts[0]["content"] = f"{content}\n\n{texts[0]['content']}"
        elif answered and role == "user":  # most templates want user and assistant to take turns
            texts[-1]["content"] += f"\n{content}"
        else:
            texts.append({"role": role, "content": content})
        answered = result or (answered and role == "user")
    return texts


def description(tools: Sequence[Tool]) -> str:
    """What a model is told that has not learnt how its template tells of tools."""
    lines = "\n".join(json.dumps(tool.told(), ensure_ascii=False) for tool in tools)
    return (
        "You can call functions. Each line below describes one as JSON.\n"
        f"<tools>\n{lines}\n</tools>\n"
        "To call one, answer with its name and arguments as JSON between these marks:\n"
        f'{HERMES.begin}\n{{"name": "...", "arguments": {{...}}}}\n{HERMES.end}\n'
        "Results come back between <tool_response> and </tool_response>. If no function helps, answer in words."
    )


def _written(function: Mapping[str, Any]) -> str:
    told = json.dumps({"name": function["name"], "arguments": function["arguments"]}, ensure_ascii=False)
    return f"{HERMES.begin}\n{told}\n{HERMES.end}"


class Calls:
    """Parts a growing answer into text and calls; holds back what may become a call.

    A call is one of an offered tool whose arguments are a JSON object. All else is text, to the letter; only white
    space around calls is dropped. Where the text is cut into pieces changes nothing. An answer that is nothing but
    JSON may be a call without its marks, whatever the form: small models forget them.

    Args:
        names: of the offered tools.
        most: calls after which all is dropped.
    """

    def __init__(self, form: Form, names: Sequence[str], *, most: int = MOST_CALLS) -> None:
        self._form, self._names, self._most = form, frozenset(names), most
        self._count = 0
        self._held = ""
        self._lead: str | None = None
        """What came before the call whose text is held, its mark included; None: no call has begun."""
        self._marked = False
        """The call has its marks; without them it goes on to the end of the answer."""
        self._begun = False
        """No call without marks can come any more."""

    @property
    def done(self) -> bool:
        """No more calls are wanted."""
        return self._count >= self._most

    def feed(self, text: str, *, last: bool = False) -> tuple[str, tuple[ToolCall, ...]]:
        """Text and calls that can be sent now."""
        self._held += text
        said: list[str] = []
        calls: list[ToolCall] = []
        while not self.done:
            if self._lead is None:
                said.append(self._before(last))
            if self._lead is None or (ended := self._ended(self._lead, last)) is None:
                break
            found, words = ended
            self._lead = None
            calls.extend(found[: self._most - self._count])
            self._count += len(found)
            said.append(words)
        if self.done:
            self._held = ""
        return "".join(said), tuple(calls)

    def _before(self, last: bool) -> str:
        """Text before what may be a call."""
        held, begin = self._held, self._form.begin
        if not self._begun:
            start = held.lstrip()
            if not start and not last:
                return ""
            self._begun = True
            if start.startswith("{"):
                self._lead, self._held = held[: len(held) - len(start)], start
                return ""
        if (at := held.find(begin)) >= 0:
            text = held[:at].rstrip()
            self._lead, self._held = held[len(text) : at + len(begin)], held[at + len(begin) :]
            self._marked = True
            return text
        if last:
            self._held = ""
            return "" if self._count and not held.strip() else held
        text = held[: len(held) - overlap(held, (begin,))].rstrip()
        self._held = held[len(text) :]
        return text

    def _ended(self, lead: str, last: bool) -> tuple[tuple[ToolCall, ...], str] | None:
        """The calls that have ended, or the text that proved to be none; None: that is not known yet."""
        held, end = self._held, self._form.end if self._marked else ""
        at = held.find(end) if end else -1
        for _ in range(MOST_ENDS):
            if at < 0:
                break
            if calls := self._read(held[:at]):
                self._held = held[at + len(end) :]
                return calls, ""
            if '"' not in _STRING.sub("", held[:at]):
                break
            at = held.find(end, at + 1)  # this one stands in a text
        if at >= 0:
            self._held = held[at + len(end) :]
            return (), lead + held[: at + len(end)]
        if not last:
            return None
        if calls := self._read(held):  # models forget the last mark
            self._held = ""
            return calls, ""
        return (), lead

    def _read(self, body: str) -> tuple[ToolCall, ...]:
        """The calls in a text that holds nothing else; none where anything is wrong."""
        try:
            calls = tuple(self._call(value) for value in _values(body))
        except (ValueError, RecursionError):
            return ()
        return calls

    def _call(self, value: Any) -> ToolCall:
        """Raises ValueError for what is no call."""
        name = value.get("name") if isinstance(value, dict) else None
        if not isinstance(name, str) or name not in self._names:
            raise ValueError("no call of an offered tool")
        arguments = value.get("arguments", value.get("parameters"))
        if isinstance(arguments, str):  # some write JSON into JSON
            (arguments,) = _values(arguments)
        if arguments is None and self._marked:
            arguments = {}
        if not isinstance(arguments, dict):
            raise ValueError("no arguments")
        text = json.dumps(arguments, ensure_ascii=False)
        text.encode()  # half a character is a ValueError, too
        return ToolCall(name, text)


def _values(text: str) -> Iterator[Any]:
    """JSON values one after another, those of a list each by itself. Raises ValueError."""
    decoder = json.JSONDecoder(parse_constant=_no_number)
    at, size = 0, len(text)
    while at < size:
        if text[at].isspace() or text[at] in ",;":
            at += 1
            continue
        value, at = decoder.raw_decode(text, at)
        yield from value if isinstance(value, list) else (value,)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


async def heard(pieces: AsyncGenerator[Piece, None], request: ChatRequest, form: Form) -> AsyncGenerator[Piece, None]:
    """The pieces of an answer with the calls in it taken out of the text (`Piece.calls`)."""
    names = [tool.name for tool in request.tools]
    parser = Calls(form, names, most=MOST_CALLS if request.parallel_calls else 1)
    called = False
    async with aclosing(pieces):
        async for piece in pieces:
            text, calls = parser.feed(piece.text, last=piece.finish is not None)
            called = called or bool(calls)
            finish = "tool_calls" if parser.done or (called and piece.finish == "stop") else piece.finish
            if calls and finish:  # clients' helpers say that a call is done when the end comes after it
                yield replace(piece, text=text, calls=calls, finish=None)
                text, calls = "", ()
            yield replace(piece, text=text, calls=calls, finish=finish)
            if parser.done:
                return
