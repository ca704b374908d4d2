"""A chat backend on a stepped pipeline: takes requests in, counts, turns tokens into text; must not know an engine."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import ChainMap
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, ClassVar

from llm_os.workers.backend import Backend, Piece, Tokenized, TokenScore
from llm_os.workers.calling import Form, form_of, heard, plain
from llm_os.workers.conversation import Message
from llm_os.workers.requests import ChatRequest, wrong
from llm_os.workers.room import Seats, Window
from llm_os.workers.stepping import Pipeline, Stepper, Tokens
from llm_os.workers.texts import ByteText, Detokenizer, Growing
from llm_os.workers.tools import Tool

QUEUE = 8
"""So many times its batch a worker takes requests in; more are refused."""
LONG = 32_768
"""Characters of a prompt; a longer one is read beside the steps."""


class ChatBackend(Backend):
    """See the module.

    Args:
        context: tokens of prompt and answer together, at most.
        most: requests in the worker, at most.
        vocabulary: number of tokens.
        pause: see `Stepper`.

    Attributes:
        cached_tokens: of any prompt, those that it does not read because it knows them; None: it cannot tell.
        table: bytes of each token (`texts.table_of`); None: the text of tokens is known together only.
    """

    cached_tokens: ClassVar[int | None] = None

    def __init__(self, pipeline: Pipeline, *, context: int, most: int, vocabulary: int, pause: float = 0.0) -> None:
        super().__init__()
        self.table: dict[int, bytes] | None = None
        self._stepper = Stepper(pipeline, self.lose, pause=pause)
        self._window = Window(context, vocabulary)
        self._seats = Seats(most)
        self._texts: dict[int, str] = {}
        self._form: tuple[Form, bool] | None = None
        self._marks: dict[int, str] = {}

    @property
    def form(self) -> Form:
        """How the model calls tools."""
        return self._known_form()[0]

    def _known_form(self) -> tuple[Form, bool]:
        if self._form is None:
            form, _ = self._form = form_of(self.chat_template())
            marks = ((mark, self.token(mark)) for mark in (form.begin, form.end) if mark)
            self._marks = {token: mark for mark, token in marks if token is not None}
        return self._form

    @abstractmethod
    def chat_template(self) -> str:
        """The model's template, in Jinja."""

    @abstractmethod
    def template(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        """Token ids of messages in the model's template, which is told of tools where there are any.

        Raises InvalidInputError when it refuses them.
        """

    @abstractmethod
    def token(self, text: str) -> int | None:
        """The token that stands for this text by itself, where there is one."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it is, with what the model puts around every text."""

    def prompt(self, ids: list[int]) -> Any:
        """Token ids as the pipeline takes them."""
        return ids

    @abstractmethod
    def sampling(self, request: ChatRequest, most: int) -> Any:
        """How the pipeline shall draw at most so many tokens."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens."""

    async def begin(self) -> None:
        self._stepper.begin()
        hello = ChatRequest(messages=({"role": "user", "content": "Hi"},), max_tokens=2, temperature=0.0)
        async for _ in self.chat(hello):
            pass

    def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        pieces = self._pieces(request)
        return heard(pieces, request, self.form) if request.tools else pieces

    async def _pieces(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        with self._seats.one():
            size = 0
            known = await asyncio.to_thread(self._ids, request) if _is_long(request) else None

            def ready() -> tuple[Any, Any]:
                nonlocal size
                ids = self._ids(request) if known is None else known
                size = len(ids)
                if not size:
                    raise wrong("prompt", "The text has no token that this model knows.", "Send another text.")
                return self.prompt(ids), self.sampling(request, self._window.answer(request, size))

            ends = bool(request.stop or request.tools)  # what is said may end it
            async with aclosing(self._stepper.generate(ready, at_once=ends)) as tokens:
                text, count = self._growing(marks=bool(request.tools)), 0
                async for new in tokens:
                    count += len(new.ids)
                    said = text.feed(new.ids, last=new.finish is not None)
                    scores = self._scores(new) if request.logprobs is not None else ()
                    cached = self.cached_tokens
                    yield Piece(said, size, count, new.finish, scores=scores, ids=new.ids, cached_tokens=cached)

    def _growing(self, *, marks: bool) -> Growing:
        if self.table is None:
            return Detokenizer(self._with_marks if marks else self.decode)
        shown = {token: mark.encode() for token, mark in self._marks.items()} if marks else {}
        return ByteText(ChainMap(shown, self.table) if shown else self.table)

    def _with_marks(self, ids: Sequence[int]) -> str:
        """Text of ids with the marks of calls, which many models have as special tokens."""
        parts, begin = [], 0
        for at, token in enumerate(ids):
            if (mark := self._marks.get(token)) is not None:
                parts += [self.decode(ids[begin:at]) if at > begin else "", mark]
                begin = at + 1
        return "".join([*parts, self.decode(ids[begin:]) if begin < len(ids) else ""])

    def _scores(self, new: Tokens) -> tuple[TokenScore, ...]:
        tops = new.tops or ((),) * len(new.ids)
        return tuple(
            TokenScore(self._text(one), logprob, tuple((self._text(other), x) for other, x in top))
            for one, logprob, top in zip(new.ids, new.logprobs, tops, strict=True)
        )

    def _text(self, token: int) -> str:
        """Text of a token by itself."""
        if (found := self._texts.get(token)) is None:
            found = self._texts[token] = self.decode([token])
        return found

    def _ids(self, request: ChatRequest) -> list[int]:
        if isinstance(request.prompt, tuple):
            self._window.check("prompt", request.prompt)
            return list(request.prompt)
        if request.prompt is not None:
            return self.encode(request.prompt)
        messages, tools = request.messages, request.tools
        if (tools or any(_of_tools(message) for message in messages)) and not self._known_form()[1]:
            messages, tools = tuple(plain(messages, tools)), ()
        return self.template(messages, tools)

    async def tokenize(self, request: ChatRequest) -> Tokenized:
        return Tokenized(await asyncio.to_thread(self._ids, request), self._window.context)

    async def detokenize(self, ids: Sequence[int]) -> str:
        self._window.check("tokens", ids)
        return await asyncio.to_thread(self.decode, ids)

    async def end(self) -> None:
        await self._stepper.end()


def _is_long(request: ChatRequest) -> bool:
    """Whether it is read so long that the answers of others must not wait for it."""
    prompt = request.prompt if isinstance(request.prompt, str) else ""
    size = len(prompt) + sum(len(str(message)) for message in request.messages)
    return size + sum(len(str(tool.parameters)) for tool in request.tools) > LONG


def _of_tools(message: Message) -> bool:
    return message["role"] == "tool" or "tool_calls" in message
