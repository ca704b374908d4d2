"""A backend in front of a server that speaks OpenAI's API; must not know which server, nor who started it.

Two kinds: `Bridge` sends chats as they are (a server far away, whose tokens nobody here knows), `TokenBridge` has the
server turn them into tokens first, so that lengths are known and refused as by every other engine.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from llm_os.errors import InvalidInputError, UpstreamError
from llm_os.workers.backend import Backend, Piece, Tokenized, TokenScore
from llm_os.workers.calling import HERMES, plain
from llm_os.workers.calling import heard as called
from llm_os.workers.requests import ChatRequest
from llm_os.workers.room import Seats, Window
from llm_os.workers.tools import Tool, ToolCall
from llm_os.workers.upstream import Upstream

CHAT, COMPLETIONS = "/chat/completions", "/completions"


@dataclass(frozen=True, slots=True)
class Heard:
    """What one event says; None and empty where it says nothing of it."""

    text: str = ""
    finish: str | None = None
    stop: str | None = None
    scores: tuple[TokenScore, ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    calls: tuple[Mapping[str, Any], ...] = ()
    """Parts of calls of tools: the first of each has its name, all have its index."""


def heard(event: Mapping[str, Any]) -> Heard:
    """Read an event of a chat or a completion, as OpenAI, vLLM and llama.cpp write them."""
    usage, timings = event.get("usage") or {}, event.get("timings") or {}
    details = usage.get("prompt_tokens_details") or {}
    counts = Heard(
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens", timings.get("predicted_n")),
        cached_tokens=_count(details.get("cached_tokens", timings.get("cache_n"))),
    )
    choices = event.get("choices") or []
    if not choices:
        return counts
    choice = choices[0]
    delta = choice.get("delta") or choice.get("message") or {}
    finish, stop = choice.get("finish_reason"), choice.get("stop_reason")
    return replace(
        counts,
        text=choice.get("text") or delta.get("content") or "",
        finish=None if finish is None else finish if finish in ("length", "tool_calls") else "stop",
        calls=tuple(delta.get("tool_calls") or ()),
        stop=stop if isinstance(stop, str) else None,
        scores=_scores(choice.get("logprobs") or {}),
    )


def _count(given: Any) -> int | None:
    """A number of tokens; None where a server tells something else."""
    return given if isinstance(given, int) and not isinstance(given, bool) and given >= 0 else None


def _scores(told: Mapping[str, Any]) -> tuple[TokenScore, ...]:
    """Both shapes: a list of tokens, and the completions' lists side by side."""
    if told.get("content"):
        return tuple(
            TokenScore(
                one["token"],
                one["logprob"],
                tuple((other["token"], other["logprob"]) for other in one.get("top_logprobs") or ()),
            )
            for one in told["content"]
        )
    tokens = told.get("tokens") or ()
    tops = told.get("top_logprobs") or [None] * len(tokens)
    ranked = [tuple(sorted((top or {}).items(), key=lambda item: -item[1])) for top in tops]
    return tuple(
        TokenScore(token, logprob or 0.0, top)
        for token, logprob, top in zip(tokens, told.get("token_logprobs") or (), ranked, strict=True)
    )


def gathered(parts: Sequence[Mapping[str, Any]]) -> tuple[ToolCall, ...]:
    """Whole calls from their parts, by index. Raises KeyError, TypeError for what is none."""
    calls: dict[int, dict[str, str]] = {}
    for part in parts:
        one = calls.setdefault(int(part.get("index") or 0), {"id": "", "name": "", "arguments": ""})
        function = part.get("function") or {}
        one["id"] = part.get("id") or one["id"]
        one["name"] += function.get("name") or ""
        one["arguments"] += function.get("arguments") or ""
    return tuple(
        ToolCall(one["name"], one["arguments"] or "{}", **({"id": one["id"]} if one["id"] else {}))
        for _, one in sorted(calls.items())
    )


class Bridge(Backend):
    """See the module.

    Args:
        model: its name there.
        most: requests that are there at once; more are refused.
        version: begin of the paths of OpenAI's API.
    """

    follows = frozenset(
        {"logprobs", "top_logprobs", "response_format", "frequency_penalty", "presence_penalty", "tools", "tool_choice"}
    )

    def __init__(self, upstream: Upstream, *, model: str, most: int, version: str = "") -> None:
        super().__init__()
        self.upstream = upstream
        self._model = model
        self._seats = Seats(most)
        self._version = version

    async def begin(self) -> None:
        self.upstream.begin()
        await self.first_token()

    async def first_token(self) -> None:
        """The probe: an answer of one token, which proves more than that somebody listens. Raises LLMOSError."""
        hello = ChatRequest(messages=({"role": "user", "content": "Hi"},), max_tokens=1, temperature=0.0)
        async with aclosing(self.chat(hello)) as pieces:
            async for _ in pieces:
                pass

    async def end(self) -> None:
        await self.upstream.end()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        with self._seats.one():
            path = COMPLETIONS if request.prompt is not None else CHAT
            prompt: dict[str, Any] = (
                {"messages": [_sent(message) for message in request.messages]}
                if request.prompt is None
                else {"prompt": list(request.prompt) if isinstance(request.prompt, tuple) else request.prompt}
            )
            async with aclosing(self.pieces(path, {**self.asked(request, path), **prompt}, request)) as pieces:
                async for piece in pieces:
                    yield piece

    async def pieces(
        self, path: str, body: Mapping[str, Any], request: ChatRequest, size: int = 0
    ) -> AsyncGenerator[Piece, None]:
        """The answer piece by piece. The last one waits for the counts, which servers tell after it.

        Args:
            size: tokens of the prompt, where they are known before.
        """
        written, last, cached, parts = 0, None, None, list[Mapping[str, Any]]()
        async with aclosing(self.upstream.events(self._version + path, body)) as events:
            async for event in events:
                said = self._heard(event)
                size = said.prompt_tokens if said.prompt_tokens is not None else size
                known, cached = said.completion_tokens, cached if said.cached_tokens is None else said.cached_tokens
                written = known if known is not None else written + bool(said.text)
                scores = said.scores if request.logprobs is not None else ()
                parts.extend(said.calls)
                top = request.logprobs or 0
                scores = tuple(replace(score, top=score.top[:top]) for score in scores)
                if said.finish is not None:
                    last = Piece(said.text, size, written, said.finish, said.stop, scores)
                elif (said.text or scores) and last is None:
                    yield Piece(said.text, size, written, scores=scores)
        if parts:
            yield Piece("", size, written, calls=self._gathered(parts))
        last = last or Piece("", size, written, "stop")
        yield replace(last, prompt_tokens=size, completion_tokens=written, cached_tokens=cached)

    def _gathered(self, parts: Sequence[Mapping[str, Any]]) -> tuple[ToolCall, ...]:
        try:
            return gathered(parts)
        except (AttributeError, TypeError, ValueError) as error:
            raise UpstreamError(
                f"{self.upstream.who} sent a call of a tool that cannot be read: {error}.",
                hint="Check that it speaks OpenAI's API.",
            ) from error

    def _heard(self, event: Mapping[str, Any]) -> Heard:
        try:
            return heard(event)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UpstreamError(
                f"{self.upstream.who} sent an event that cannot be read: {type(error).__name__} {error}.",
                hint="Check that it speaks OpenAI's API.",
            ) from error

    def asked(self, request: ChatRequest, path: str) -> dict[str, Any]:
        """The parameters of a request, but for its prompt. One answer is asked for, and always as a stream."""
        body: dict[str, Any] = {
            "model": self._model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        given = {
            "max_tokens": request.max_tokens,
            "seed": request.seed,
            "stop": list(request.stop),
            "frequency_penalty": request.frequency_penalty,
            "presence_penalty": request.presence_penalty,
        }
        body |= {name: value for name, value in given.items() if value or (name == "seed" and value is not None)}
        if request.logprobs is not None:
            body |= {"logprobs": request.logprobs} if path == COMPLETIONS else {"logprobs": True}
            if path == CHAT and request.logprobs:
                body["top_logprobs"] = request.logprobs
        if request.tools and path == CHAT:
            body |= {"tools": [_offered(tool) for tool in request.tools]}
            body |= {"tool_choice": "required" if request.must_call else "auto"}
            body |= {} if request.parallel_calls else {"parallel_tool_calls": False}
        if request.schema is not None:
            form = {"name": "answer", "schema": json.loads(request.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body


def _offered(tool: Tool) -> dict[str, Any]:
    told = tool.told()
    return {**told, "function": {**told["function"], "strict": True}} if tool.strict else told


def _sent(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as OpenAI's API takes it: arguments of calls as JSON texts."""
    sent = {name: value for name, value in message.items() if name != "name"}
    if calls := message.get("tool_calls"):
        sent["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
            for call in calls
        ]
    return sent


class TokenBridge(Bridge):
    """The server tells tokens. Chats are put into the model's template and gone on with as completions.

    So the server parses no calls of tools: models are told of tools in words, and their calls are found here.

    Args:
        context: tokens of a prompt and its answer, at most.
        vocabulary: number of tokens; 0 where it is not known.
    """

    follows = Bridge.follows - {"tool_choice"} | {"top_k", "repetition_penalty"}

    def __init__(
        self, upstream: Upstream, *, model: str, most: int, context: int, vocabulary: int, version: str = ""
    ) -> None:
        super().__init__(upstream, model=model, most=most, version=version)
        self._window = Window(context, vocabulary)

    @abstractmethod
    async def template(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of messages in the model's template. Raises InvalidInputError when it refuses them."""

    @abstractmethod
    async def encode(self, text: str) -> list[int]:
        """Token ids of a text as it is, with what the model puts around every text."""

    @abstractmethod
    async def decode(self, ids: Sequence[int]) -> str:
        """Text of ids."""

    def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        pieces = self._told(request)
        return called(pieces, request, HERMES) if request.tools else pieces

    async def _told(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        with self._seats.one():
            ids = await self._ids(request)
            asked = replace(request, max_tokens=self._window.answer(request, len(ids)))
            body = {**self.asked(asked, COMPLETIONS), "prompt": ids}
            async with aclosing(self.pieces(COMPLETIONS, body, request, len(ids))) as pieces:
                async for piece in pieces:
                    yield piece

    def asked(self, request: ChatRequest, path: str) -> dict[str, Any]:
        # Stop texts are looked for here, so that the answer can say which of them was met.
        return {name: value for name, value in super().asked(request, path).items() if name != "stop"}

    async def _ids(self, request: ChatRequest) -> list[int]:
        if isinstance(request.prompt, tuple):
            self._window.check("prompt", request.prompt)
            return list(request.prompt)
        if request.prompt is not None:
            return await self.encode(request.prompt)
        try:
            return await self.template(plain(request.messages, request.tools))  # tools in words: any template does
        except InvalidInputError as error:
            raise InvalidInputError(
                f"The model's chat template refuses these messages: {error.message}",
                hint="Check their roles and order.",
            ) from error

    async def tokenize(self, request: ChatRequest) -> Tokenized:
        return Tokenized(await self._ids(request), self._window.context)

    async def detokenize(self, ids: Sequence[int]) -> str:
        self._window.check("tokens", ids)
        return await self.decode(ids)
