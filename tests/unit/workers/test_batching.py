"""Texts of many callers share batches, and each caller gets his own answers."""

from __future__ import annotations

import asyncio
import threading

import pytest

from llm_os.errors import OverloadedError
from llm_os.workers.batching import Batcher


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
    assert [[len(text) for text in batch] for batch in model.batches] == [[1, 1], [4, 4], [20]]
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
