"""Serves both tasks without a model; its options are its faults. Must not load any ML framework."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from llm_os.errors import InternalError, UnavailableError
from llm_os.spec.attempts import AdapterInput, AttemptSpec, ServeCall
from llm_os.spec.parity import FILE, Reference
from llm_os.workers.backend import Backend, Classified, Piece, Tokenized
from llm_os.workers.calling import HERMES, heard
from llm_os.workers.requests import ChatRequest, wrong
from llm_os.workers.serving import main

VOCABULARY = 2**24
LABELS = ("negative", "positive")


def score(text: str, labels: int) -> list[float]:
    """Scores that add up to 1 and follow from the text alone."""
    weights = [1 + byte for byte in hashlib.sha256(text.encode()).digest()[:labels]]
    return [weight / sum(weights) for weight in weights]


def token(word: str) -> int:
    """The token of a word: words are this engine's tokens."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:3], "big")


def _check(param: str, ids: Sequence[int]) -> None:
    if max(ids) >= VOCABULARY:
        raise wrong(param, f"There is no token {max(ids)}: the model has {VOCABULARY}.", "POST /tokenize.")


def _words(request: ChatRequest) -> list[str]:
    if isinstance(request.prompt, tuple):
        _check("prompt", request.prompt)
        return [str(one) for one in request.prompt]
    texts = [str(message["content"]) for message in request.messages] if request.prompt is None else [request.prompt]
    told = [json.dumps(tool.told()) for tool in request.tools]
    return [word for text in (*told, *texts) for word in text.split()]


def _answers(call: ServeCall, disagrees: float) -> dict[tuple[int, ...], Piece]:
    """What is said behind the beginnings of the reference that it is compared with, spread evenly wrong."""
    if call.reference is None:
        return {}
    reference = Reference.model_validate_json((Path(call.reference.path) / FILE).read_bytes())
    places = [(text.ids[: place.at], place) for text in reference.texts for place in text.places]
    answers = {}
    for number, (ids, place) in enumerate(places):
        wrong = int((number + 1) * disagrees) > int(number * disagrees)
        ends = place.ends and not wrong
        answers[ids] = Piece("?" if wrong else place.text, len(ids), 1, "stop" if ends else "length")
    return answers


class FakeBackend(Backend):
    """See `drivers.engines.fake` for the options."""

    follows = frozenset({"tools", "tool_choice"})

    def __init__(self, call: ServeCall) -> None:
        super().__init__()
        options: dict[str, Any] = dict(call.options)
        self._arguments: str | None = options.get("calls")
        self._reply: str = options.get("reply", "This is a fake answer.")
        self._rate = float(options.get("tokens_per_second", 0))
        self._ready_after = float(options.get("ready_after", 0))
        self._start_fails = bool(options.get("start_fails", False))
        self._dies_after: int | None = options.get("dies_after")
        self._hangs = bool(options.get("hangs", False))
        self._fails = bool(options.get("fails", False))
        self._slow = float(options.get("slow", 0))
        named = call.model.facts.meta.get("labels")
        self._labels = tuple(str(name) for name in named) if isinstance(named, list) and named else LABELS
        self._known_answers = _answers(call, float(options.get("disagrees", 0)))
        self._adapters_fail = bool(options.get("adapters_fail", False))
        self._requests = 0
        self._known: dict[int, str] = {}

    async def take_adapter(self, adapter: AdapterInput) -> None:
        if self._adapters_fail:
            raise UnavailableError("The fake engine was told to take no adapter.", hint="Set adapters_fail=false.")
        self.adapters[adapter.name] = adapter.version

    async def begin(self) -> None:
        await asyncio.sleep(self._ready_after)
        if self._start_fails:
            raise UnavailableError("The fake engine was told to fail at its start.", hint="Set start_fails=false.")

    async def classify(self, texts: Sequence[str]) -> Classified:
        await self._think()
        await self._misbehave()
        scores = [score(text, len(self._labels)) for text in texts]
        return Classified(self._labels, scores, sum(len(text.split()) for text in texts))

    def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        pieces = self._pieces(request)
        return heard(pieces, request, HERMES) if request.tools else pieces

    def _said(self, request: ChatRequest) -> str:
        """The reply; in its place a call of the first tool where it must, or was told to and has no result yet."""
        if request.adapter:
            return f"{request.adapter} {self.adapters[request.adapter]} {self._reply}"
        answered = bool(request.messages) and request.messages[-1]["role"] == "tool"
        if not request.tools or not (request.must_call or (self._arguments is not None and not answered)):
            return self._reply
        before, after = HERMES.around(request.tools[0].name)
        return f"{before}{self._arguments or '{}'}{after}"

    async def _pieces(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        await self._think()
        if isinstance(request.prompt, tuple) and (known := self._known_answers.get(request.prompt)) is not None:
            yield known
            return
        words = self._said(request).split(" ")
        prompt = len(_words(request))
        limit = min(len(words), request.max_tokens or len(words))
        for number, word in enumerate(words[:limit], start=1):
            if self._rate:
                await asyncio.sleep(1 / self._rate)
            if number == limit:
                await self._misbehave()
            finish = None if number < limit else ("length" if limit < len(words) else "stop")
            yield Piece(word if number == 1 else f" {word}", prompt, number, finish)

    async def tokenize(self, request: ChatRequest) -> Tokenized:
        words = _words(request)
        self._known.update({token(word): word for word in words})
        return Tokenized([token(word) for word in words], 4096)

    async def detokenize(self, ids: Sequence[int]) -> str:
        _check("tokens", ids)
        return " ".join(self._known.get(one, "?") for one in ids)

    async def end(self) -> None:
        """Nothing runs."""

    async def _think(self) -> None:
        await asyncio.sleep(self._slow)
        if self._fails:
            raise InternalError("The fake engine was told to fail.", hint="Set fails=false.")

    async def _misbehave(self) -> None:
        self._requests += 1
        if self._dies_after is not None and self._requests > self._dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._hangs:
            await asyncio.Event().wait()


def load(call: ServeCall, _: AttemptSpec) -> Backend:
    return FakeBackend(call)


if __name__ == "__main__":
    main(load)
