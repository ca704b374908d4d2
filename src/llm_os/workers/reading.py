"""Backends for models that read whole texts and answer each with a vector, tagged pieces or a text; must not know HTTP.

All three put texts of different callers into one batch (see `batching`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from llm_os.models.embedding import load_encoder
from llm_os.models.tagging import Span, load_tagger
from llm_os.models.translation import load_translator
from llm_os.workers.backend import Backend, Embedded, Piece, Tagged
from llm_os.workers.batching import Batcher
from llm_os.workers.requests import ChatRequest, wrong

BATCH_TOKENS = 4096
"""Tokens of a batch with its padding; the driver's footprint counts on it."""
Answer = TypeVar("Answer")


class Reading(Backend, Generic[Answer]):
    """See the module.

    Args:
        runnable: a model of `llm_os.models` with a `tokenizer` and a `max_length`.
        run: answers of texts. most: texts in a batch.
    """

    def __init__(self, runnable: Any, run: Callable[[list[str]], Sequence[Answer]], most: int) -> None:
        super().__init__()
        self._tokenizer, self._longest = runnable.tokenizer, int(runnable.max_length)
        self._batcher = Batcher(
            run, most=most, weigh=lambda text: min(len(text) + 2, self._longest), budget=BATCH_TOKENS
        )

    async def begin(self) -> None:
        await self._batcher.scores(["A first text warms the model up."])

    async def end(self) -> None:
        await self._batcher.end()

    def count(self, texts: Sequence[str]) -> int:
        """Tokens of the texts as the model sees them, that is, cut at its longest."""
        read = self._tokenizer(list(texts), truncation=True, max_length=self._longest)
        return sum(len(ids) for ids in read["input_ids"])


class Embedding(Reading[list[float]]):
    """Texts become vectors."""

    async def embed(self, texts: Sequence[str]) -> Embedded:
        return Embedded(await self._batcher.scores(texts), self.count(texts))


class Tagging(Reading[list[Span]]):
    """Texts become spans."""

    async def tag(self, texts: Sequence[str]) -> Tagged:
        return Tagged(await self._batcher.scores(texts), self.count(texts))


class Writing(Reading[list[int]]):
    """The last message is the text that an encoder-decoder reads; what it writes is the likeliest, token by token."""

    def __init__(self, runnable: Any, run: Callable[[list[str]], Sequence[list[int]]], most: int) -> None:
        super().__init__(runnable, run, most)
        self._text = runnable.text

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        if request.prompt is not None:
            raise wrong("prompt", "This model reads a text and writes another, it completes none.", "POST a chat.")
        last = request.messages[-1]
        if last["role"] != "user":
            raise wrong("messages", "The last message is not the user's.", "Put the text to read last.")
        ids = (await self._batcher.scores([last["content"]]))[0]
        kept = ids[: request.max_tokens] if request.max_tokens else ids
        finish = "length" if len(kept) < len(ids) or len(ids) >= self._longest else "stop"
        yield Piece(self._text(kept), self.count([last["content"]]), len(kept), finish)


def load(task: str, folder: Path, dtype: str, most: int) -> Backend:
    """The backend for a task, in fp32 unless bf16 is asked for. Raises what the loaders in `models` raise."""
    if task == "token-classification":
        tagger = load_tagger(folder)
        _cast(tagger.model, dtype)
        return Tagging(tagger, lambda texts: tagger.spans(texts, most), most)
    if task == "text2text-generation":
        translator = load_translator(folder)
        _cast(translator.model, dtype)
        return Writing(translator, lambda texts: translator.generate(texts, most), most)
    encoder = load_encoder(folder)
    _cast(encoder.model, dtype)
    return Embedding(encoder, lambda texts: encoder.predict(texts, most), most)


def _cast(model: Any, dtype: str) -> None:
    import torch

    if dtype == "bf16":
        model.to(torch.bfloat16)
