"""Several answers side by side, and the order of documents."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from llm_os.errors import InvalidOptionError
from llm_os.workers.backend import Embedded, Piece, TokenScore
from llm_os.workers.choices import choices_of, merged, paced
from llm_os.workers.ranking import Rerank, Score
from llm_os.workers.requests import ChatRequest
from llm_os.workers.server import _stopped_at
from llm_os.workers.shapes import Chat, Completion


def test_each_answer_has_a_seed_of_its_own() -> None:
    assert [one.seed for one in choices_of(ChatRequest(n=3, seed=7))] == [7, 8, 9]
    assert [(one.seed, one.n) for one in choices_of(ChatRequest(n=2))] == [(None, 1)] * 2


class Streams:
    """Counting generators that tell when they are closed."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    async def of(self, name: str, items: int, *, fails: bool = False) -> AsyncGenerator[str, None]:
        try:
            for number in range(items):
                await asyncio.sleep(0)
                yield f"{name}{number}"
            if fails:
                raise InvalidOptionError("no more")
            if items > 99:
                await asyncio.Event().wait()
        finally:
            self.closed.append(name)


async def test_items_of_all_streams_come_with_their_number() -> None:
    streams = Streams()
    found = [item async for item in merged([streams.of("a", 3), streams.of("b", 1), streams.of("c", 0)])]
    assert sorted(found) == [(0, "a0"), (0, "a1"), (0, "a2"), (1, "b0")]
    assert sorted(streams.closed) == ["a", "b", "c"]
    assert [item async for item in merged([streams.of("d", 2)])] == [(0, "d0"), (0, "d1")]


async def test_one_that_fails_ends_the_others() -> None:
    streams = Streams()
    with pytest.raises(InvalidOptionError, match="no more"):
        async for _ in merged([streams.of("a", 2, fails=True), streams.of("b", 100)]):
            pass
    assert sorted(streams.closed) == ["a", "b"]


@pytest.mark.parametrize("number", [1, 2])
async def test_closing_closes_them_all(number: int) -> None:
    streams = Streams()
    both = merged([streams.of(name, 100) for name in "ab"[:number]])
    await anext(both)
    await both.aclose()
    assert len(streams.closed) == number


def scored(*texts: str, finish: str | None = None) -> Piece:
    return Piece("".join(texts), 3, 1, finish, scores=tuple(TokenScore(text, -1.0) for text in texts))


async def cut(stop: tuple[str, ...], *pieces: Piece) -> list[Piece]:
    async def all_of_them() -> AsyncGenerator[Piece, None]:
        for piece in pieces:
            yield piece

    return [piece async for piece in _stopped_at(all_of_them(), ChatRequest(stop=stop))]


async def test_probabilities_go_with_the_text_that_they_belong_to() -> None:
    found = await cut(("END",), scored("one ", "E"), scored("ND", " never"), scored("more", finish="stop"))
    assert "".join(piece.text for piece in found) == "one "
    assert [score.text for piece in found for score in piece.scores] == ["one "]
    assert found[-1].finish == "stop"
    whole = await cut((), scored("one "), scored(""), scored("two", "", finish="length"))
    assert [score.text for piece in whole for score in piece.scores] == ["one ", "", "two", ""]


def test_offsets_of_a_streamed_completion_go_on() -> None:
    shape = Completion("m")
    first = shape.event(scored("ab", "c"), 0, first=True, usage=False)["choices"][0]["logprobs"]
    second = shape.event(scored("de"), 0, first=False, usage=False)["choices"][0]["logprobs"]
    other = shape.event(scored("x"), 1, first=True, usage=False)["choices"][0]["logprobs"]
    assert (first["text_offset"], second["text_offset"], other["text_offset"]) == ([0, 2], [3], [0])


def test_bytes_that_are_not_known_are_not_made_up() -> None:
    part = Chat("m").event(scored("\ufffd", "é"), 0, first=True, usage=False)["choices"][0]["logprobs"]["content"]
    assert [one["bytes"] for one in part] == [None, [195, 169]]


VECTORS = {"q": (1.0, 0.0), "same": (2.0, 0.0), "apart": (0.0, 1.0), "between": (1.0, 1.0), "none": (0.0, 0.0)}


def embedded(texts: list[str]) -> Embedded:
    return Embedded([VECTORS[text] for text in texts], 9)


def rerank(**body: Any) -> dict[str, Any]:
    asked = Rerank(json.dumps({"model": "m", **body}).encode(), "toy")
    return asked.answer(embedded(asked.texts), "m")


def score(first: Any, second: Any) -> list[float]:
    asked = Score(json.dumps({"model": "m", "text_1": first, "text_2": second}).encode(), "toy")
    answer = asked.answer(embedded(asked.texts), "m")
    assert [one["index"] for one in answer["data"]] == list(range(len(answer["data"])))
    return [round(one["score"], 3) for one in answer["data"]]


def test_the_nearest_document_is_first() -> None:
    answer = rerank(query="q", documents=["apart", {"text": "same"}, "between", "none"])
    assert [one["index"] for one in answer["results"]] == [1, 2, 0, 3]
    assert answer["results"][0] == {"index": 1, "relevance_score": 1.0, "document": {"text": "same"}}
    assert answer["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    few = rerank(query="q", documents=["apart", "same"], top_n=1, return_documents=False)
    assert few["results"] == [{"index": 1, "relevance_score": 1.0}]


def test_pairs_are_scored_in_their_order() -> None:
    assert score("q", ["same", "between"]) == [1.0, 0.707]
    assert score(["q", "apart"], ["apart", "apart"]) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": "", "documents": ["a"]}, "query"),
        ({"query": "q", "documents": []}, "documents"),
        ({"query": "q", "documents": [{"image": 1}]}, "documents"),
        ({"query": "q", "documents": ["a"], "top_n": 0}, "top_n"),
        ({"query": "q", "documents": ["a"], "return_documents": "no"}, "return_documents"),
        ({"query": "q", "documents": ["a"], "max_chunks": 3}, "max_chunks"),
    ],
)
def test_a_wrong_order_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        rerank(**body)
    assert caught.value.details["param"] == param


@pytest.mark.parametrize(("first", "second", "param"), [(["a", "b"], ["c"], "text_1"), ("a", 3, "text_2")])
def test_a_wrong_pair_is_refused_by_name(first: Any, second: Any, param: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        score(first, second)
    assert caught.value.details["param"] == param


async def _told(pieces: list[Piece]) -> AsyncGenerator[Piece, None]:
    for piece in pieces:
        yield piece


async def test_pieces_that_come_too_soon_go_with_the_next_but_the_first_and_the_last_never_wait() -> None:
    times = iter([0.0, 0.01, 0.02, 0.03, 0.04, 0.05])
    given = [Piece(f"{n} ", 3, n + 1, ids=(n,)) for n in range(5)] + [Piece("end", 3, 6, "stop", ids=(5,))]
    found = [piece async for piece in paced(_told(given), 0.025, lambda: next(times))]
    assert [(one.text, one.completion_tokens, one.ids) for one in found] == [
        ("0 ", 1, (0,)),
        ("1 2 3 ", 4, (1, 2, 3)),
        ("4 end", 6, (4, 5)),
    ]
    assert [one.finish for one in found] == [None, None, "stop"]


async def test_with_no_pause_every_piece_goes_by_itself() -> None:
    given = [Piece("a", 1, 1), Piece("b", 1, 2), Piece("", 1, 2, "length")]
    assert [piece async for piece in paced(_told(given), 0.0)] == given


async def test_what_is_held_when_a_stream_ends_without_saying_so_is_not_lost() -> None:
    given = [Piece("a", 1, 1), Piece("b", 1, 2)]
    assert [piece.text async for piece in paced(_told(given), 60.0)] == ["a", "b"]


async def test_what_is_held_when_a_stream_breaks_is_told_before_the_error() -> None:
    async def breaking() -> AsyncGenerator[Piece, None]:
        yield Piece("a", 1, 1)
        yield Piece("b", 1, 2)
        raise InvalidOptionError("broken", hint="x")

    pieces = paced(breaking(), 60.0)
    assert [(await anext(pieces)).text, (await anext(pieces)).text] == ["a", "b"]
    with pytest.raises(InvalidOptionError):
        await anext(pieces)
