"""The worker: a process of its own. It gives a `Backend` to the HTTP face that all engines share. Words are tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from llm_os.spec.attempts import AttemptSpec, ServeCall
from llm_os.workers.backend import Backend, Piece, Tokenized
from llm_os.workers.requests import ChatRequest, wrong
from llm_os.workers.serving import main

CONTEXT = 4096


class EchoBackend(Backend):
    def __init__(self, greeting: str) -> None:
        super().__init__()
        self._greeting = greeting
        self._words: list[str] = []

    async def begin(self) -> None:
        async for _ in self.chat(ChatRequest(prompt="Hi")):  # a first answer proves that it can
            pass

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        given = self._given(request)
        if len(given) >= CONTEXT:
            param = "messages" if request.prompt is None else "prompt"
            raise wrong(param, f"It has {len(given)} tokens, the context has room for {CONTEXT}.", "Send less.")
        words = [*self._greeting.split(), *given]
        kept = words[: request.max_tokens]
        for number, word in enumerate(kept, start=1):
            await asyncio.sleep(0)  # a caller who leaves ends the work here
            finish = None if number < len(kept) else "stop" if kept == words else "length"
            yield Piece(word if number == 1 else f" {word}", len(given), number, finish)

    async def tokenize(self, request: ChatRequest) -> Tokenized:
        return Tokenized([self._token(word) for word in self._given(request)], CONTEXT)

    async def detokenize(self, ids: Sequence[int]) -> str:
        return " ".join(self._word("tokens", one) for one in ids)

    async def end(self) -> None:
        """Nothing runs."""

    def _given(self, request: ChatRequest) -> list[str]:
        if isinstance(request.prompt, tuple):
            return [self._word("prompt", one) for one in request.prompt]
        texts = [request.prompt] if request.prompt is not None else [m["content"] for m in request.messages]
        return " ".join(texts).split()

    def _token(self, word: str) -> int:
        if word not in self._words:
            self._words.append(word)
        return self._words.index(word)

    def _word(self, param: str, token: int) -> str:
        if token >= len(self._words):
            raise wrong(param, f"There is no token {token}.", "POST /tokenize.")
        return self._words[token]


def load(call: ServeCall, _spec: AttemptSpec) -> Backend:
    """Called once. An engine with a model reads `call.model.path` and runs `_spec.threads` threads."""
    return EchoBackend(str(call.options["greeting"]))


if __name__ == "__main__":
    main(load)
