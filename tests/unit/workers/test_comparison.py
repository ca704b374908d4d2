"""A backend is asked what the reference was asked; one that says something else is refused, and shown where."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from llm_os.errors import OverloadedError, ParityError, UnavailableError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import Input, ServeCall
from llm_os.spec.parity import FILE, CheckText, Parity, Place, Reading, Reference, ScoredText
from llm_os.workers import comparison
from llm_os.workers.backend import Backend, Classified, Piece, Tokenized
from llm_os.workers.comparison import AT_ONCE, MOST_SECONDS, TOLD_EVERY, Counter, compare
from llm_os.workers.requests import ChatRequest
from llm_os.workers.serving import _before

END = 2
TEXTS = 40
PLACES = 25


def following(ids: Sequence[int]) -> int:
    """The token that the model says behind a beginning: sometimes the end."""
    return END if sum(ids) % 10 == 0 else 100 + sum(ids) % 50


def reference() -> Reference:
    texts = []
    for number in range(TEXTS):
        ids = tuple(3 + (number * 7 + i) % 90 for i in range(40))
        places = []
        for at in range(5, 5 + PLACES):
            token = following(ids[:at])
            ends = token == END
            text = "" if ends else f" w{token}"
            places.append(Place(at=at, token=token, text=text, ends=ends, margin=at / 10))
        texts.append(CheckText(ids=ids, places=tuple(places)))
    readings = (Reading(text="a b", ids=(1, 2)), Reading(messages=({"role": "user", "content": "a"},), ids=(9, 1)))
    return Reference(texts=tuple(texts), readings=readings)


class Hand(Backend):
    """Answers as the reference does, but for every `wrong_every`-th question; remembers what it was asked.

    Args:
        tells_ids: whether its pieces hold the ids of tokens.
    """

    def __init__(self, wrong_every: int = 0, *, tells_ids: bool = True) -> None:
        super().__init__()
        self.asked: list[tuple[int, ...]] = []
        self.inside = self.most_inside = 0
        self._wrong_every = wrong_every
        self._tells_ids = tells_ids

    async def begin(self) -> None: ...

    async def end(self) -> None: ...

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        assert isinstance(request.prompt, tuple)
        assert (request.max_tokens, request.temperature) == (1, 0.0)
        self.asked.append(request.prompt)
        wrong = self._wrong_every and len(self.asked) % self._wrong_every == 0
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        await asyncio.sleep(0)
        self.inside -= 1
        token = 60 if wrong else following(request.prompt)
        ids = (token,) if self._tells_ids else ()
        ends = token == END
        yield Piece("" if ends else f" w{token}", len(request.prompt), 1, "stop" if ends else "length", ids=ids)

    async def tokenize(self, request: ChatRequest) -> Tokenized:
        return Tokenized([1, 2] if request.prompt == "a b" else [9, 9, 1], 100)

    async def detokenize(self, ids: Sequence[int]) -> str:
        return " ".join(f"t{one}" for one in ids)

    async def classify(self, texts: Sequence[str]) -> Classified:
        return Classified(("bad", "good"), [[0.9, 0.1] for _ in texts], 1)


def call(folder: Path, given: Reference | None) -> ServeCall:
    facts = ArtifactFacts(digest="sha256:" + "0" * 64, kind="report", size=1, meta={})
    if given is not None:
        (folder / FILE).write_text(given.model_dump_json())
    return ServeCall(
        engine="hand",
        deployment="chat",
        model=Input(path=str(folder), facts=facts),
        version="toy@1",
        task="text-generation",
        options={},
        socket="unused",
        reference=None if given is None else Input(path=str(folder), facts=facts),
    )


async def compared(folder: Path, backend: Backend, given: Reference) -> Parity:
    parity = await compare(call(folder, given), backend)
    assert parity is not None
    return parity


class Small(Hand):
    """Takes in two requests and refuses more."""

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        if self.inside >= 2:
            raise OverloadedError("2 requests are in this replica already.")
        async for piece in super().chat(request):
            yield piece


async def test_a_backend_that_takes_in_few_is_asked_few(tmp_path: Path) -> None:
    backend = Small()
    parity = await compared(tmp_path, backend, reference())
    assert parity.everywhere.value == 1.0
    assert backend.most_inside <= 2


class Telling(Hand):
    """Finds each token less likely than the reference, and tells of so many of the last ones; busy at first."""

    def __init__(self, lost: float, tells: int | None) -> None:
        super().__init__()
        self.lost, self.tells, self.tries = lost, tells, 0

    async def logprobs(self, ids: Sequence[int]) -> Sequence[float] | None:
        assert not self.asked, "before anything of the texts is in a cache"
        self.tries += 1
        if self.tries % 2:
            raise OverloadedError("1 request is in this replica already.")
        return None if self.tells is None else [-at / 100 - self.lost for at in range(1, len(ids))][-self.tells :]


def telling(given: Reference) -> Reference:
    """It tells how likely it finds the tokens, each less so than the one before."""
    texts = [
        text.model_copy(update={"logprobs": tuple(-at / 100 for at in range(1, len(text.ids)))}) for text in given.texts
    ]
    return given.model_copy(update={"texts": tuple(texts)})


@pytest.mark.parametrize(
    ("lost", "tells", "perplexity"),
    [
        (0.01, 39, 1.01005),
        (-0.01, 20, 0.99005),
        (0.0, 39, 1.0),
        (math.inf, 39, math.exp(20)),
        (math.nan, 39, math.exp(20)),
        (0.5, 5, None),
        (0.5, None, None),
    ],
)
async def test_how_likely_the_texts_are_is_compared_where_the_engine_tells(
    tmp_path: Path, lost: float, tells: int | None, perplexity: float | None
) -> None:
    parity = await compared(tmp_path, Telling(lost, tells), telling(reference()))
    assert parity.perplexity == (None if perplexity is None else pytest.approx(perplexity, rel=1e-4))
    assert ("perplexity" in parity.sentence) == (perplexity is not None)


@pytest.mark.parametrize("at_once", [1, 3, 99])
async def test_as_many_texts_are_asked_side_by_side_as_the_backend_takes(tmp_path: Path, at_once: int) -> None:
    inside = most = 0

    class Slow(Hand):
        async def logprobs(self, ids: Sequence[int]) -> Sequence[float]:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.001)
            inside -= 1
            return [-at / 100 - 0.01 for at in range(1, len(ids))]

    backend = Slow()
    backend.likelihoods_at_once = at_once
    parity = await compared(tmp_path, backend, telling(reference()))
    assert most == min(at_once, AT_ONCE, TEXTS)
    assert parity.perplexity == pytest.approx(1.01005, rel=1e-4)


async def test_a_backend_that_does_not_tell_is_asked_for_one_text(tmp_path: Path) -> None:
    backend = Telling(0.0, None)
    assert (await compared(tmp_path, backend, telling(reference()))).perplexity is None
    assert backend.tries == 2, "it was busy at first"


@pytest.mark.parametrize(("each", "perplexity"), [(1.0, 1.0), (10.0, None)])
async def test_a_slow_backend_is_asked_for_as_many_texts_as_there_is_time(
    each: float, perplexity: float | None
) -> None:
    now, signs = 0.0, []

    class Slow(Hand):
        async def logprobs(self, ids: Sequence[int]) -> Sequence[float]:
            nonlocal now
            now += each
            return [-at / 100 for at in range(1, len(ids))]

    given = telling(reference())
    found = await comparison._perplexity(given, Slow(), lambda *told: signs.append(told), lambda: now)
    assert found == perplexity, "of too few tokens nothing is told"
    assert now == min(TEXTS, MOST_SECONDS // each + 1) * each
    assert set(signs) == {(0, TEXTS * PLACES)}


async def test_of_a_reference_that_does_not_tell_nothing_is_said(tmp_path: Path) -> None:
    assert (await compared(tmp_path, Telling(0.1, 39), reference())).perplexity is None


async def test_without_a_reference_nothing_is_asked(tmp_path: Path) -> None:
    backend = Hand()
    assert await compare(call(tmp_path, None), backend) is None
    assert backend.asked == []


@pytest.mark.parametrize("tells_ids", [True, False])
async def test_an_engine_that_says_the_same_agrees_everywhere(tmp_path: Path, tells_ids: bool) -> None:
    backend = Hand(tells_ids=tells_ids)
    parity = await compared(tmp_path, backend, reference())
    assert (parity.everywhere.count, parity.everywhere.agreed) == (TEXTS * PLACES, TEXTS * PLACES)
    assert parity.sure.count == TEXTS * (PLACES - 1), "a margin of 0.5 is not above 0.5"
    assert parity.readings is not None
    assert (parity.readings.agreed, parity.readings.count) == (1, 2), "its template writes one token more"


async def test_each_beginning_is_asked_once_the_longest_first_and_few_at_a_time(tmp_path: Path) -> None:
    backend = Hand()
    await compared(tmp_path, backend, reference())
    wanted = {(text.ids[: place.at]) for text in reference().texts for place in text.places}
    assert len(backend.asked) == TEXTS * PLACES
    assert set(backend.asked) == wanted
    assert {len(ids) for ids in backend.asked[:TEXTS]} == {5 + PLACES - 1}
    assert 1 < backend.most_inside <= AT_ONCE


@pytest.mark.parametrize("tells_ids", [True, False])
async def test_an_engine_that_differs_at_every_tenth_place_is_refused_by_name(tmp_path: Path, tells_ids: bool) -> None:
    with pytest.raises(ParityError) as caught:
        await compare(call(tmp_path, reference()), Hand(wrong_every=10, tells_ids=tells_ids))
    assert "hand does not say what toy@1 says in PyTorch" in caught.value.message
    assert "90.0% of 1000 all places agree" in caught.value.message
    found = caught.value.details["differences"]
    assert len(found) == 5
    assert all(got == " w60" and expected != got for _, expected, got in found)
    assert found[0][0].startswith("t"), "the end of the beginning, as the engine writes it"


async def test_an_engine_that_differs_at_every_hundredth_place_may_serve(tmp_path: Path) -> None:
    parity = await compared(tmp_path, Hand(wrong_every=100), reference())
    assert parity.everywhere.agreed == TEXTS * PLACES - 10


async def test_a_classifier_is_asked_for_its_scores(tmp_path: Path) -> None:
    same = Reference(scored=tuple(ScoredText(text=f"t{i}", scores={"bad": 0.9, "good": 0.1}) for i in range(70)))
    parity = await compared(tmp_path, Hand(), same)
    assert (parity.everywhere.agreed, parity.mean_difference) == (70, 0.0)
    turned = Reference(scored=tuple(ScoredText(text=f"t{i}", scores={"bad": 0.1, "good": 0.9}) for i in range(70)))
    with pytest.raises(ParityError, match="behind 't0' it says 'bad' instead of 'good'"):
        await compare(call(tmp_path, turned), Hand())


class Broken(Hand):
    """Breaks at every question."""

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        raise UnavailableError("The engine broke.")
        yield


async def test_an_engine_that_breaks_is_told_as_such_and_not_as_one_that_differs(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="The engine broke"):
        await compare(call(tmp_path, reference()), Broken())


async def test_a_worker_that_shall_stop_gives_its_comparison_up() -> None:
    stop, work = asyncio.Event(), asyncio.create_task(asyncio.Event().wait())
    stop.set()
    assert not await _before(work, stop)
    assert work.cancelled()
    done = asyncio.create_task(asyncio.sleep(0, result=7))
    assert await _before(done, asyncio.Event())
    assert done.result() == 7


async def test_how_far_it_is_is_told_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    await compare(call(tmp_path, reference()), Hand(), lambda done, total: told.append((done, total)))
    assert told[0] == (1, TEXTS * PLACES), "a first sign of life at once"
    assert told[-1] == (TEXTS * PLACES, TEXTS * PLACES)
    assert len(told) < TEXTS * PLACES / 10
    same = Reference(scored=tuple(ScoredText(text=f"t{i}", scores={"bad": 0.9, "good": 0.1}) for i in range(70)))
    told.clear()
    await compare(call(tmp_path, same), Hand(), lambda done, total: told.append((done, total)))
    assert told[-1] == (70, 70)


def test_a_slow_engine_is_told_of_at_each_answer_and_a_quick_one_is_not() -> None:
    now, told = [0.0], list[int]()
    counter = Counter(1000, lambda done, total: told.append(done), lambda: now[0])
    for _ in range(10):
        counter.add()
    assert told == [1]
    for _ in range(5):
        now[0] += TOLD_EVERY
        counter.add()
    assert told == [1, 11, 12, 13, 14, 15]
