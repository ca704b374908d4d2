"""Backends for models that read whole texts and answer each with a vector, tagged pieces or a text; must not know HTTP.

All three put texts of different callers into one batch (see `batching`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from llm_os.models.embedding import Encoder, load_encoder
from llm_os.models.padding import read
from llm_os.models.tagging import Span, Tagger, load_tagger
from llm_os.models.translation import Translator, load_translator
from llm_os.workers.backend import Backend, Embedded, Piece, Tagged
from llm_os.workers.batching import Batcher
from llm_os.workers.requests import ChatRequest, wrong

BATCH_TOKENS = 4096
"""Tokens of a batch with its padding; the driver's footprint counts on it."""
Answer = TypeVar("Answer")
Prepare = Callable[[Any], str]
log = logging.getLogger("llm_os.worker")


class Reading(Backend, Generic[Answer]):
    """See the module.

    Args:
        runnable: a model of `llm_os.models`.
        batcher: what becomes of a text, and its tokens as the model sees them, cut at its longest.
        prepare: makes `runnable` the one to serve with and says why; called in the thread that will run it.
    """

    def __init__(self, runnable: Any, batcher: Batcher[tuple[Answer, int]], prepare: Prepare | None = None) -> None:
        super().__init__()
        self._runnable, self._batcher, self._prepare = runnable, batcher, prepare

    async def begin(self) -> None:
        if self._prepare is not None:
            log.info("precision %s", await self._batcher.on_thread(self._prepare, self._runnable))
        await self._batcher.warm("A first text warms the model up.")

    async def answers(self, texts: Sequence[str]) -> tuple[list[Answer], int]:
        """What becomes of the texts, and how many tokens they have together."""
        found = await self._batcher.scores(texts)
        return [answer for answer, _ in found], sum(tokens for _, tokens in found)

    async def end(self) -> None:
        await self._batcher.end()


def of_texts(runnable: Any, run: Callable[[list[str]], Sequence[Answer]], most: int) -> Batcher[tuple[Answer, int]]:
    """A batcher for models that read texts themselves: their tokens are counted once more, on its thread."""
    longest = int(runnable.max_length)

    def answers(texts: list[str]) -> list[tuple[Answer, int]]:
        return list(zip(run(texts), map(len, read(runnable.tokenizer, texts, longest)), strict=True))

    def weigh(text: str) -> int:
        return min(len(text) + 2, longest)  # a token has one character at least

    return Batcher(answers, most=most, weigh=weigh, budget=BATCH_TOKENS)


def streams_of(asked: Any, threads: int, longest: int) -> int:
    """Batches that run side by side: so many as were asked for, or one for every two threads; two where there are two.

    A short text is no quicker on many threads than on few, but two callers wait for each other no more. The longest
    text (tokens) on each of them is no more than the driver's footprint counts on.
    """
    if asked is None:
        asked = 2 if threads in (2, 3) else threads // 2
    return max(1, min(int(asked), threads, BATCH_TOKENS // longest))


class Embedding(Reading[list[float]]):
    """Texts become vectors."""

    def __init__(self, encoder: Encoder, most: int, prepare: Prepare | None = None, lanes: int = 1) -> None:
        def answers(ids: list[list[int]]) -> list[tuple[list[float], int]]:
            return list(zip(encoder.vectors(ids), map(len, ids), strict=True))

        budget = BATCH_TOKENS // lanes
        super().__init__(
            encoder,
            Batcher(answers, read=encoder.read, lanes=lanes, most=max(1, most // lanes), budget=budget),
            prepare,
        )

    async def embed(self, texts: Sequence[str]) -> Embedded:
        return Embedded(*await self.answers(texts))


class Tagging(Reading[list[Span]]):
    """Texts become spans."""

    def __init__(self, tagger: Tagger, most: int, prepare: Prepare | None = None) -> None:
        super().__init__(tagger, of_texts(tagger, lambda texts: tagger.spans(texts, most), most), prepare)

    async def tag(self, texts: Sequence[str]) -> Tagged:
        return Tagged(*await self.answers(texts))


class Writing(Reading[list[int]]):
    """The last message is the text that an encoder-decoder reads; what it writes is the likeliest, token by token."""

    def __init__(self, translator: Translator, most: int) -> None:
        super().__init__(translator, of_texts(translator, lambda texts: translator.generate(texts, most), most))
        self._text, self._longest = translator.text, translator.max_length

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        if request.prompt is not None:
            raise wrong("prompt", "This model reads a text and writes another, it completes none.", "POST a chat.")
        last = request.messages[-1]
        if last["role"] != "user":
            raise wrong("messages", "The last message is not the user's.", "Put the text to read last.")
        (ids,), tokens = await self.answers([last["content"]])
        kept = ids[: request.max_tokens] if request.max_tokens else ids
        finish = "length" if len(kept) < len(ids) or len(ids) >= self._longest else "stop"
        yield Piece(self._text(kept), tokens, len(kept), finish)


def load(task: str, folder: Path, dtype: str, most: int, lanes: Callable[[int], int]) -> Backend:
    """The backend for a task, in fp32 unless bf16 is asked for. Raises what the loaders in `models` raise.

    Args:
        lanes: batches of an embedder that run side by side, by the tokens of its longest text.
    """
    if task == "token-classification":
        tagger = load_tagger(folder)
        _cast(tagger.model, dtype)
        return Tagging(tagger, most)
    if task == "text2text-generation":
        translator = load_translator(folder)
        _cast(translator.model, dtype)
        return Writing(translator, most)
    encoder = load_encoder(folder)
    _cast(encoder.model, dtype)
    return Embedding(encoder, most, lanes=lanes(encoder.max_length))


def _cast(model: Any, dtype: str) -> None:
    import torch

    if dtype == "bf16":
        model.to(torch.bfloat16)
