"""Texts of many callers share batches, and each caller gets his own answers."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.errors import OverloadedError, UnavailableError
from llm_os.workers.batching import (
    CALL,
    EACH,
    KNOWN_AFTER,
    LEAST_CALL,
    LONG,
    MOST_CALL,
    MOST_PATIENCE,
    PATIENCE,
    Batcher,
    Pace,
    pieces,
)


class Model:
    """Scores a text by its length; waits at a gate while one is set."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()

    def run(self, texts: list[str]) -> list[list[float]]:
        self.batches.append(texts)
        self.began.set()
        assert self.gate.wait(10)
        if "bad" in texts:
            raise ValueError("a bad text")
        return [[float(len(text))] for text in texts]


async def _hold(model: Model, batcher: Batcher) -> asyncio.Task[list[list[float]]]:
    """A batch that runs until the gate opens."""
    model.gate.clear()
    first = asyncio.create_task(batcher.scores(["first"]))
    assert await asyncio.to_thread(model.began.wait, 10)
    return first


async def test_answers_come_in_the_order_of_the_texts() -> None:
    batcher = Batcher(Model().run, most=2)
    assert await batcher.scores(["aaa", "a", "aa"]) == [[3.0], [1.0], [2.0]]
    await batcher.end()


async def test_what_gathers_during_a_batch_makes_the_next_one() -> None:
    model = Model()
    batcher = Batcher(model.run)
    first = await _hold(model, batcher)
    others = [asyncio.create_task(batcher.scores(["x" * n])) for n in (1, 2, 3)]
    await asyncio.sleep(0)
    model.gate.set()
    assert await asyncio.gather(*others) == [[[1.0]], [[2.0]], [[3.0]]]
    await first
    assert model.batches == [["first"], ["x", "xx", "xxx"]]
    await batcher.end()


async def test_no_batch_is_larger_than_allowed() -> None:
    model = Model()
    batcher = Batcher(model.run, most=3)
    await batcher.scores(["x"] * 8)
    assert [len(batch) for batch in model.batches] == [3, 3, 2]
    await batcher.end()


async def test_long_texts_make_small_batches_and_one_text_always_runs() -> None:
    model = Model()
    batcher = Batcher(model.run, budget=10)
    await batcher.scores(["x" * 20, "x" * 4, "x" * 4, "x", "x"])
    assert [[len(text) for text in batch] for batch in model.batches] == [[20], [4, 4], [1, 1]]
    await batcher.end()


async def test_texts_of_a_caller_who_left_are_not_run() -> None:
    model = Model()
    batcher = Batcher(model.run)
    first = await _hold(model, batcher)
    gone, stays = asyncio.create_task(batcher.scores(["gone"])), asyncio.create_task(batcher.scores(["stays"]))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    model.gate.set()
    assert await stays == [[5.0]]
    await first
    assert model.batches == [["first"], ["stays"]]
    await batcher.end()


async def test_a_failed_batch_is_told_and_the_next_one_runs() -> None:
    batcher = Batcher(Model().run)
    with pytest.raises(ValueError, match="a bad text"):
        await batcher.scores(["bad"])
    assert await batcher.scores(["ok"]) == [[2.0]]
    await batcher.end()


@pytest.mark.parametrize("where", ["read", "run"])
async def test_a_text_that_fails_is_an_error_of_its_own_caller_alone(where: str) -> None:
    model = Model()

    def read(texts: list[str]) -> list[str]:
        if where == "read" and "bad" in texts:
            raise ValueError("a bad text")
        return texts

    batcher = Batcher(model.run, read=read)
    first = await _hold(model, batcher)
    asked = [asyncio.create_task(batcher.scores(texts)) for texts in (["a"], ["bad", "bbb"], ["cc"])]
    await asyncio.sleep(0)
    model.gate.set()
    one, bad, two = await asyncio.gather(*asked, return_exceptions=True)
    assert (one, two) == ([[1.0]], [[2.0]])
    assert isinstance(bad, ValueError)
    assert await batcher.scores(["ok"]) == [[2.0]]
    await first
    await batcher.end()


async def test_texts_of_callers_who_left_take_no_place_in_the_queue() -> None:
    model = Model()
    batcher = Batcher(model.run, queue=2)
    first = await _hold(model, batcher)
    left = asyncio.create_task(batcher.scores(["a", "b"]))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    stays = asyncio.create_task(batcher.scores(["cc", "dd"]))
    await asyncio.sleep(0)
    model.gate.set()
    assert await stays == [[2.0], [2.0]]
    await first
    assert model.batches == [["first"], ["cc", "dd"]]
    await batcher.end()


async def test_a_full_queue_refuses_at_once() -> None:
    model = Model()
    batcher = Batcher(model.run, queue=2)
    first = await _hold(model, batcher)
    waiting = asyncio.create_task(batcher.scores(["a", "b"]))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError) as caught:
        await batcher.scores(["c"])
    assert caught.value.details["retry_after"] == 1
    model.gate.set()
    await asyncio.gather(first, waiting)
    await batcher.end()


def test_pieces_are_of_like_length_and_the_short_ones_come_first() -> None:
    assert pieces([200, 10, 11, 210, 12], budget=4096) == [[1, 2, 4], [0, 3]]
    assert pieces([10, 10 + CALL], budget=4096) == [[0, 1]], "a further piece would cost more than the padding"


def test_a_piece_is_closed_when_more_texts_make_it_no_faster() -> None:
    assert pieces([100] * 5, budget=4096, enough=200) == [[0, 1], [2, 3], [4]]


@given(st.lists(st.integers(1, 600), max_size=40), st.integers(1, 5000))
def test_each_text_is_in_one_piece_and_no_piece_of_several_exceeds_the_budget(sizes: list[int], budget: int) -> None:
    found = pieces(sizes, budget)
    assert sorted(at for piece in found for at in piece) == list(range(len(sizes)))
    for piece in found:
        assert len(piece) == 1 or max(sizes[at] for at in piece) * len(piece) <= budget


async def test_a_piece_is_answered_before_the_next_one_has_run() -> None:
    model = Model()
    batcher = Batcher(model.run)
    first = await _hold(model, batcher)
    short, long = (asyncio.create_task(batcher.scores(["x" * n])) for n in (1, 500))
    await asyncio.sleep(0)
    model.began.clear()
    held = threading.Event()
    run, batcher._run = batcher._run, lambda texts: (held.wait(10) if len(texts[0]) == 500 else None, run(texts))[1]
    model.gate.set()
    await first
    assert await short == [[1.0]]
    assert not long.done()
    held.set()
    assert await long == [[500.0]]
    await batcher.end()


async def test_texts_are_read_once_a_batch_and_an_unreadable_one_is_told() -> None:
    read: list[list[str]] = []

    def words(texts: list[str]) -> list[list[str]]:
        read.append(texts)
        if "unreadable" in texts:
            raise ValueError("unreadable")
        return [text.split() for text in texts]

    batcher = Batcher(lambda items: [len(words) for words in items], read=words)
    assert await batcher.scores(["a b c", "a"]) == [3, 1]
    assert read == [["a b c", "a"]]
    with pytest.raises(ValueError, match="unreadable"):
        await batcher.scores(["unreadable"])
    assert await batcher.scores(["a b"]) == [2]
    await batcher.end()


async def test_too_few_answers_are_an_error_of_all_callers_of_the_piece() -> None:
    batcher: Batcher[int] = Batcher(lambda items: [1])
    with pytest.raises(RuntimeError, match="1 answers to 2 texts"):
        await batcher.scores(["a", "b"])
    await batcher.end()


async def test_lanes_work_side_by_side_and_leave_each_other_a_share() -> None:
    model, both = Model(), threading.Barrier(2)
    reads: list[int] = []

    reading = threading.Lock()

    def read(texts: list[str]) -> list[str]:
        assert reading.acquire(blocking=False), "two read at once"
        time.sleep(0.005)
        reads.append(len(texts))
        reading.release()
        return texts

    def run(texts: list[str]) -> list[list[float]]:
        if texts[0].startswith("first"):
            both.wait(10)  # each of the two is at work while the other one is
        return model.run(texts)

    model.gate.clear()
    batcher = Batcher(run, read=read, lanes=2)
    held = [asyncio.create_task(batcher.scores([f"first {n}"])) for n in range(2)]
    assert await asyncio.to_thread(model.began.wait, 10)
    others = [asyncio.create_task(batcher.scores(["x" * n])) for n in range(1, 7)]
    await asyncio.sleep(0)
    model.gate.set()
    assert await asyncio.gather(*others) == [[[float(n)]] for n in range(1, 7)]
    assert await asyncio.gather(*held) == [[[7.0]], [[7.0]]]
    assert sorted(reads, reverse=True) == [3, 2, 1, 1, 1]
    assert await batcher.scores(["again"] * 3) == [[5.0]] * 3
    await batcher.end()


@pytest.mark.parametrize(("call", "believed"), [(30, 30), (2, LEAST_CALL), (5000, MOST_CALL)])
def test_what_a_call_costs_is_learned_from_calls(call: int, believed: int) -> None:
    pace = Pace()
    for number in range(KNOWN_AFTER):
        assert pace.call == CALL
        pace.note(64 * (1 + number % 4), 0.001 * (call + 64 * (1 + number % 4)), ())
    assert pace.call == pytest.approx(believed)


def test_calls_of_one_size_teach_nothing() -> None:
    pace = Pace()
    for _ in range(100):
        pace.note(63, 0.01, ())
    assert pace.call == CALL
    for number in range(200):  # longer ones that are quicker: nothing that can be believed
        pace.note(64 + number, 0.01 / (1 + number), ())
    assert pace.call == CALL


async def test_calls_whose_callers_have_left_teach_nothing() -> None:
    model = Model()
    batcher = Batcher(model.run)
    noted: list[tuple[int, list[str]]] = []
    batcher._pace.note = lambda tokens, seconds, texts: noted.append((tokens, [*texts]))  # type: ignore[method-assign]
    first = await _hold(model, batcher)
    gone, stays = asyncio.create_task(batcher.scores(["gone" * 100])), asyncio.create_task(batcher.scores(["four"]))
    await asyncio.sleep(0)
    gone.cancel()
    model.gate.set()
    await asyncio.gather(first, stays)
    assert noted == [(5, ["first"]), (4, ["four"])]
    await batcher.end()


def _paced(batcher: Batcher, seconds: float) -> None:
    """Let it have seen that an empty text takes so long."""
    for _ in range(KNOWN_AFTER):
        batcher._pace.note(1, seconds, [""])


async def test_short_texts_wait_for_no_long_one_and_a_long_one_not_for_ever() -> None:
    model = Model()
    batcher = Batcher(model.run, most=1)
    _paced(batcher, 0.05)  # so an empty text is due after 0.15 s, and ...
    first = await _hold(model, batcher)
    long = asyncio.create_task(batcher.scores(["x" * 3_000_000]))  # ... any after no more than 1.35 s
    await asyncio.sleep(0)
    short = asyncio.create_task(batcher.scores(["short"]))
    await asyncio.sleep(1.4)
    late = asyncio.create_task(batcher.scores(["late"]))
    await asyncio.sleep(0)
    model.gate.set()
    await asyncio.gather(first, long, short, late)
    assert [batch[0][:5] for batch in model.batches] == ["first", "short", "xxxxx", "late"]
    await batcher.end()


async def test_few_texts_run_one_by_one_where_calls_cost_little_and_many_in_pieces() -> None:
    model = Model()
    batcher = Batcher(model.run)
    for number in range(KNOWN_AFTER):  # a call takes as long as ten tokens
        batcher._pace.note(10 * (1 + number), 0.001 * (10 + 10 * (1 + number)), ["x"])
    batcher._pace.note = lambda *given: None  # type: ignore[method-assign]
    for texts, lengths in ((2, [1, 1]), (8, [4, 2, 1, 1])):
        first = await _hold(model, batcher)
        model.batches.clear()
        asked = [asyncio.create_task(batcher.scores(["x" * 100])) for _ in range(texts)]
        await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(first, *asked)
        assert [len(batch) for batch in model.batches] == lengths
        model.began.clear()
    await batcher.end()


async def test_a_single_text_does_not_wait_for_all_of_a_request_with_many() -> None:
    model = Model()
    batcher = Batcher(model.run, most=1)
    _paced(batcher, 0.05)
    first = await _hold(model, batcher)
    many = asyncio.create_task(batcher.scores([f"many {n}" for n in range(5)]))  # due after 0.15, 0.3, ... s
    await asyncio.sleep(0.1)
    single = asyncio.create_task(batcher.scores(["single"]))
    await asyncio.sleep(0)
    model.gate.set()
    await asyncio.gather(first, many, single)
    assert [batch[0] for batch in model.batches].index("single") == 2
    await batcher.end()


def test_when_texts_are_due_is_learned_from_calls_and_bounded() -> None:
    pace = Pace()
    for _ in range(KNOWN_AFTER):
        assert list(pace.dues(7.0, ["a", "b"])) == [7.0, 7.0]
        pace.note(1, 0.2 * (2 * EACH + 100) / EACH, ["x" * 40, "x" * 60])
    assert list(pace.dues(7.0, ["", "x" * EACH])) == pytest.approx([7.0 + 0.2 * PATIENCE, 7.0 + 0.6 * PATIENCE])
    assert list(pace.dues(7.0, ["x"] * 1000))[-1] == 7.0 + MOST_PATIENCE
    for _ in range(1000):  # newer calls count more, and what a model cuts is no work
        pace.note(1, 0.1 * (EACH + LONG) / EACH, ["x" * 10 * LONG])
    assert list(pace.dues(0.0, [""])) == pytest.approx([0.1 * PATIENCE], rel=1e-3)


async def test_first_calls_teach_nothing_of_later_ones() -> None:
    batcher = Batcher(Model().run, lanes=2)
    _paced(batcher, 5.0)
    await batcher.warm("a first text")
    assert list(batcher._pace.dues(7.0, ["a"])) == [7.0]
    await batcher.end()


async def test_an_unreadable_text_beside_one_that_was_read_already() -> None:
    def read(texts: list[str]) -> list[str]:
        if "bad" in texts:
            raise ValueError("a bad text")
        return texts

    model = Model()
    batcher = Batcher(model.run, read=read, most=2)
    first = await _hold(model, batcher)
    asked = [asyncio.create_task(batcher.scores([text])) for text in ("a", "x" * 500, "bad")]
    await asyncio.sleep(0)
    model.gate.set()
    short, long, bad = await asyncio.gather(*asked, return_exceptions=True)
    assert (short, long) == ([[1.0]], [[500.0]])
    assert isinstance(bad, ValueError)
    await first
    await batcher.end()


async def test_too_few_readings_are_nobodys_answer() -> None:
    batcher = Batcher(Model().run, read=lambda texts: texts[1:])
    found = await asyncio.gather(batcher.scores(["a"]), batcher.scores(["bb"]), return_exceptions=True)
    assert all(isinstance(one, ValueError) for one in found), found
    await batcher.end()


def _let_one_take_all(batcher: Batcher) -> None:
    """A second thread is free when the first one has taken all that waits."""
    take = batcher._take

    def take_all() -> list:
        batcher._lanes = 1
        try:
            return take()
        finally:
            batcher._lanes = 2

    batcher._lanes, batcher._take = 2, take_all  # type: ignore[method-assign]


async def test_what_goes_back_is_read_once_and_a_free_thread_takes_it() -> None:
    reads: list[str] = []

    def read(texts: list[str]) -> list[str]:
        reads.extend(texts)
        return texts

    model, long = Model(), "x" * 500
    both = threading.Barrier(2)

    def run(texts: list[str]) -> list[list[float]]:
        if texts[0] in {long, "short"}:
            both.wait(10)  # neither ends before the other one has begun
        return model.run(texts)

    batcher = Batcher(run, read=read, lanes=2)
    batcher._lanes, held = 1, await _hold(model, batcher)
    asked = [asyncio.create_task(batcher.scores([text])) for text in ("short", long)]
    await asyncio.sleep(0)
    _let_one_take_all(batcher)
    model.gate.set()
    assert await asyncio.gather(*asked) == [[[5.0]], [[500.0]]]
    await held
    assert reads == ["first", "short", long]
    await batcher.end()


async def test_what_was_taken_is_answered_although_the_end_has_come() -> None:
    model = Model()
    batcher = Batcher(model.run)
    first = await _hold(model, batcher)
    asked = [asyncio.create_task(batcher.scores(["x" * n])) for n in (1, 500)]
    await asyncio.sleep(0)
    _let_one_take_all(batcher)
    reading, read = threading.Event(), threading.Event()

    def slowly(texts: list[str]) -> list[str]:
        reading.set()
        assert read.wait(10)
        return texts

    batcher._read = slowly
    model.gate.set()
    await first
    assert await asyncio.to_thread(reading.wait, 10)
    end = asyncio.create_task(batcher.end())
    await asyncio.sleep(0.01)
    read.set()
    assert await asyncio.gather(*asked) == [[[1.0]], [[500.0]]]
    await end
    with pytest.raises(UnavailableError, match="takes no more texts"):
        await batcher.scores(["more"])


async def test_who_waits_when_the_end_comes_is_told() -> None:
    model = Model()
    batcher = Batcher(model.run)
    first = await _hold(model, batcher)
    waits = asyncio.create_task(batcher.scores(["one", "two"]))
    await asyncio.sleep(0)
    end = asyncio.create_task(batcher.end())
    with pytest.raises(UnavailableError, match="takes no more texts"):
        await asyncio.wait_for(waits, 10)
    assert not end.done(), "what runs is waited for"
    model.gate.set()
    await asyncio.gather(first, end)
    assert model.batches == [["first"]]


async def test_a_thread_that_broke_is_free_again() -> None:
    batcher: Batcher[str] = Batcher(lambda items: items, lanes=2)
    begin, batcher._begin = batcher._begin, lambda batch: (_ for _ in ()).throw(SystemError("a defect"))  # type: ignore[method-assign,assignment]
    lost = [asyncio.create_task(batcher.scores([str(n)])) for n in range(4)]
    async with asyncio.timeout(10):
        while batcher._busy or batcher._waiting:  # noqa: ASYNC110 - threads change it
            await asyncio.sleep(0.01)
    batcher._begin = begin  # type: ignore[method-assign]
    assert await batcher.scores(["again", "twice"]) == ["again", "twice"]
    for task in lost:
        task.cancel()
    await batcher.end()
