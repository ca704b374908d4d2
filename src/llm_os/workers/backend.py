"""What the HTTP face of a worker needs of an engine: two calls and an end; must not know HTTP or a framework."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from llm_os.errors import LLMOSError, UnsupportedModelError
from llm_os.spec.attempts import AdapterInput
from llm_os.workers.requests import ChatRequest, wrong
from llm_os.workers.tools import ToolCall

if TYPE_CHECKING:
    from llm_os.models.tagging import Span


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token of an answer, with natural logarithms of probabilities.

    Attributes:
        top: the likeliest tokens in its place, likeliest first, as many as were asked for.
    """

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer.

    Attributes:
        text: new text, may be empty.
        prompt_tokens, completion_tokens: counts so far.
        finish: `stop`, `length` or `tool_calls` in the last piece, else None.
        stop: the stop text that ended the answer, if one did.
        scores: of its tokens, where they were asked for.
        calls: whole calls of tools, which are not part of the text.
        ids: its tokens, where the engine tells them; the one that ends an answer may be among them.
        cached_tokens: of the prompt, those that the engine knew already and did not read again, as it told by now;
            None: it does not tell.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: str | None = None
    stop: str | None = None
    scores: tuple[TokenScore, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    ids: tuple[int, ...] = ()
    cached_tokens: int | None = None

    def __add__(self, more: Piece) -> Piece:
        """Both as one; counts are those of the later one."""
        return replace(
            more,
            text=self.text + more.text,
            scores=self.scores + more.scores,
            calls=self.calls + more.calls,
            ids=self.ids + more.ids,
        )


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A text, or messages in the model's template, as the model reads them.

    Attributes:
        context: most tokens that the model takes, with its answer.
    """

    ids: Sequence[int]
    context: int


@dataclass(frozen=True, slots=True)
class Classified:
    """Scores of texts by label, in the order of the texts.

    Attributes:
        chosen: of a multi-label classifier, the labels that each text has; else None.
    """

    labels: tuple[str, ...]
    scores: Sequence[Sequence[float]]
    prompt_tokens: int
    chosen: Sequence[Sequence[str]] | None = None


@dataclass(frozen=True, slots=True)
class Tagged:
    """Tagged pieces of texts, in the order of the texts."""

    spans: Sequence[Sequence[Span]]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of texts, in the order of the texts."""

    vectors: Sequence[Sequence[float]]
    prompt_tokens: int


class Backend(ABC):
    """A loaded model.

    Attributes:
        broken: why it can serve no more; set with `lost`, which wakes the server to end the process.
        adapters: that it holds, by name.
        follows: parameters of OpenAI's that it follows and not every engine does (`requests.FOLLOWED_BY`).
        reads_anew: prompts that come together are each read, though what was read before is used again: of several
            answers to one prompt the first one reads, and the others begin at its first token.
        likelihoods_at_once: texts that `logprobs` is asked for side by side.
    """

    follows: ClassVar[frozenset[str]] = frozenset()
    reads_anew: ClassVar[bool] = False

    def __init__(self) -> None:
        self.broken: LLMOSError | None = None
        self.likelihoods_at_once = 1
        self.adapters: dict[str, Any] = {}
        self._lost = asyncio.Event()

    def lose(self, error: LLMOSError) -> None:
        """Say that no request can be answered any more. Call it on the server's loop."""
        self.broken = error
        self._lost.set()

    async def lost(self) -> LLMOSError:
        """Waits until the backend is broken."""
        await self._lost.wait()
        assert self.broken is not None  # noqa: S101 - `lose` sets both
        return self.broken

    @abstractmethod
    async def begin(self) -> None:
        """Start threads, answer a first request of its own (a warm-up). Raises LLMOSError."""

    async def classify(self, texts: Sequence[str]) -> Classified:
        """Scores of all texts. Raises InvalidOptionError when the model generates."""
        raise wrong("model", "This model generates text, it does not classify.", "POST /v1/chat/completions.")

    async def logprobs(self, ids: Sequence[int]) -> Sequence[float] | None:
        """Natural logarithms of the probabilities of given tokens, each behind those before it.

        Returns: those of the last ones, all but the first at most: what was read before may be left out. None: it
            cannot tell.
        """
        return None

    async def tag(self, texts: Sequence[str]) -> Tagged:
        """Tagged pieces of all texts. Raises InvalidOptionError when the model tags no words."""
        raise wrong("model", "This model tags no words.", "See /health.")

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Vectors of all texts. Raises InvalidOptionError when the model makes none."""
        raise wrong("model", "This model makes no embeddings.", "See /health.")

    def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        """Pieces of an answer; closing the iterator stops the work. Raises LLMOSError before the first piece."""
        raise wrong("model", "This model classifies, it does not generate text.", "POST /classify.")

    async def take_adapter(self, adapter: AdapterInput) -> None:
        """Hold it under its name, in the place of one that has it. Requests that run go on. Raises LLMOSError."""
        raise UnsupportedModelError(
            "This engine holds no adapters beside its model.", hint="Serve the adapter merged: llm-os update."
        )

    async def drop_adapter(self, name: str) -> None:
        """Hold it no more; answers that have begun with it end with it. Raises nothing, also where there is none."""
        self.adapters.pop(name, None)

    async def tokenize(self, request: ChatRequest) -> Tokenized:
        """Token ids of its messages or prompt. Raises InvalidOptionError when the engine does not tell them."""
        raise wrong("model", "The engine of this model does not tell its tokens.", "See 'llm-os show'.")

    async def detokenize(self, ids: Sequence[int]) -> str:
        """Text of token ids. Raises InvalidOptionError for ids that are no tokens, or an engine that does not tell."""
        raise wrong("model", "The engine of this model does not tell its tokens.", "See 'llm-os show'.")

    @abstractmethod
    async def end(self) -> None:
        """Stop threads. No request runs any more."""
