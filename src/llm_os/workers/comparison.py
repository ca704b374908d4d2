"""Asks a loaded backend what the reference was asked, before it serves; must not know an engine or the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from llm_os.errors import InvalidInputError, LLMOSError, OverloadedError
from llm_os.spec.attempts import ServeCall
from llm_os.spec.parity import FILE, CheckText, Parity, Place, Reading, Reference, Share
from llm_os.workers.backend import Backend
from llm_os.workers.parity import SHOWN, Answer, Difference, agrees, first, judge, of_scores, of_tokens, share
from llm_os.workers.requests import ChatRequest

AT_ONCE = 8
"""Questions that are asked together, where the backend takes in as many."""
BUSY = 0.05
"""Seconds until one is asked again that was too many."""
TEXTS_AT_ONCE = 32
TAIL = 12
"""Tokens of a beginning that a refusal shows."""
END = "(end)"
FEWEST_TOKENS = 500
"""By which a perplexity is told."""
MOST_SECONDS = 90.0
"""After which no more texts are asked for the perplexity: an engine that tells token by token may be slow."""
MOST_LOST = 20.0
"""Nats a token, on average: worse is not told."""
Said = TypeVar("Said")
TOLD_EVERY = 2.0
"""Seconds between two reports of how far it is."""

Told = Callable[[int, int], None]
"""Is told how many of how many questions are answered."""


def _nobody(done: int, total: int) -> None:
    """Nobody wants to know how far it is."""


class Counter:
    """Counts answers and tells of them, but not of each.

    Args:
        total: questions. told: is told at the first answer, every TOLD_EVERY seconds then, and at the end.
    """

    def __init__(self, total: int, told: Told, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._told, self._clock = total, told, clock
        self._done, self._next = 0, float("-inf")

    def add(self, answers: int = 1) -> None:
        self._done += answers
        if self._done >= self._total or self._clock() >= self._next:
            self._next = self._clock() + TOLD_EVERY
            self._told(self._done, self._total)


async def compare(call: ServeCall, backend: Backend, told: Told = _nobody) -> Parity | None:
    """The figures; None: there is nothing to compare with.

    Args:
        told: is told now and then how far it is.

    Raises:
        ParityError: they are below the limits.
        LLMOSError: what the backend raises.
    """
    if call.reference is None:
        return None
    content = await asyncio.to_thread((Path(call.reference.path) / FILE).read_bytes)
    reference = Reference.model_validate_json(content)
    parity, differences = await figures(reference, backend, told)
    judge(parity, differences, call.engine, call.version)
    return parity


async def figures(reference: Reference, backend: Backend, told: Told = _nobody) -> tuple[Parity, list[Difference]]:
    """How far the backend agrees, and where it differs most; judges nothing. Raises what the backend raises."""
    if reference.scored:
        return await _scores(reference, backend, told)
    perplexity = await _perplexity(reference, backend, told)  # first: of what is cached some engines tell nothing
    parity, differences = await _tokens(reference, backend, told)
    readings = await _readings(reference.readings, backend)
    return parity.model_copy(update={"readings": readings, "perplexity": perplexity}), differences


async def _perplexity(
    reference: Reference, backend: Backend, told: Told, clock: Callable[[], float] = time.monotonic
) -> float | None:
    """How many times the reference's it is on the check texts; None: the backend, or the reference, does not tell."""
    texts = [text for text in reference.texts if text.logprobs]
    slots, ends = asyncio.Semaphore(min(AT_ONCE, backend.likelihoods_at_once)), clock() + MOST_SECONDS
    lost: list[float] = []
    tells = True

    async def ask(text: CheckText) -> None:
        nonlocal tells
        async with slots:
            if not tells or clock() > ends:
                return
            got = await _patiently(partial(backend.logprobs, text.ids))
        told(0, sum(len(text.places) for text in reference.texts))  # a sign of life: places are asked later
        tells = tells and got is not None
        pairs = zip(reversed(text.logprobs), reversed(got or ()), strict=False)
        lost.extend(its - mine for its, mine in pairs)

    await _all(map(ask, texts))
    if not tells or len(lost) < FEWEST_TOKENS:
        return None
    mean = sum(lost) / len(lost)
    return math.exp(mean if mean < MOST_LOST else MOST_LOST)  # also where it is no number


async def _patiently(ask: Callable[[], Awaitable[Said]]) -> Said:
    """The answer, when the backend has room for the question."""
    while True:
        try:
            return await ask()
        except OverloadedError:
            await asyncio.sleep(BUSY)


async def _all(questions: Iterable[Coroutine[Any, Any, Said]]) -> list[Said]:
    """The answers to all, in their order; of errors the first one, as it is."""
    asking = [asyncio.create_task(one) for one in questions]
    try:
        return await asyncio.gather(*asking)
    finally:  # then nobody wants the others
        for one in asking:
            one.cancel()


async def _tokens(reference: Reference, backend: Backend, told: Told) -> tuple[Parity, list[Difference]]:
    """One token behind each beginning; the longest beginning of each text first, for caches that know beginnings."""
    asked = [(text.ids[: place.at], place) for text in reference.texts for place in reversed(text.places)]
    firsts = {id(text.places[-1]) for text in reference.texts if text.places}
    asked.sort(key=lambda one: id(one[1]) not in firsts)
    slots, counter = asyncio.Semaphore(AT_ONCE), Counter(len(asked), told)

    async def ask(ids: Sequence[int]) -> Answer:
        async with slots:
            answer = await _next(ids, backend)
        counter.add()
        return answer

    said = await _all(ask(ids) for ids, _ in asked)
    answers = [(place, answer) for (_, place), answer in zip(asked, said, strict=True)]
    wrong = [
        (ids, place, answer)
        for (ids, place), (_, answer) in zip(asked, answers, strict=True)
        if not agrees(place, answer)
    ]
    wrong.sort(key=lambda one: -one[1].margin)  # the worst first
    return of_tokens(answers), [await _difference(*one, backend) for one in wrong[:SHOWN]]


async def _next(ids: Sequence[int], backend: Backend) -> Answer:
    """The likeliest token behind the beginning, as the backend says it."""
    request = ChatRequest(prompt=tuple(ids), max_tokens=1, temperature=0.0)

    async def ask() -> Answer:
        text, finish = "", None
        tokens: list[int] = []
        async for piece in backend.chat(request):
            text, finish = text + piece.text, piece.finish
            tokens += piece.ids
        return Answer(tokens[0] if tokens else None, text, ended=finish == "stop" and not text)

    return await _patiently(ask)


async def _difference(ids: Sequence[int], place: Place, answer: Answer, backend: Backend) -> Difference:
    behind = f"{place.at} tokens"
    with contextlib.suppress(LLMOSError):  # an engine that tells no texts
        behind = await backend.detokenize(ids[-TAIL:])
    got = END if answer.ended else answer.text
    return Difference(behind, END if place.ends else place.text, got)


async def _readings(readings: Sequence[Reading], backend: Backend) -> Share | None:
    """How many texts and chats the backend reads as the reference does."""
    same = []
    for reading in readings:
        request = ChatRequest(messages=reading.messages, prompt=reading.text)
        try:
            same.append(tuple((await backend.tokenize(request)).ids) == reading.ids)
        except InvalidInputError:  # it does not tell its tokens, or its template refuses what the model's takes
            same.append(False)
    return share(sum(same), len(same)) if any(same) else None


async def _scores(reference: Reference, backend: Backend, told: Told) -> tuple[Parity, list[Difference]]:
    """Scores of all texts, by label."""
    texts = [scored.text for scored in reference.scored]
    got: list[dict[str, float]] = []
    counter = Counter(len(texts), told)
    for begin in range(0, len(texts), TEXTS_AT_ONCE):
        answer = await backend.classify(texts[begin : begin + TEXTS_AT_ONCE])
        got += [dict(zip(answer.labels, row, strict=True)) for row in answer.scores]
        counter.add(len(answer.scores))
    wrong = [
        Difference(scored.text[-40:], first(scored.scores), first(scores))
        for scored, scores in zip(reference.scored, got, strict=True)
        if first(scored.scores) != first(scores)
    ]
    return of_scores(reference.scored, got), wrong
