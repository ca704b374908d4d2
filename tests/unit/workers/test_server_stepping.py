"""One thread steps the pipeline; callers get their tokens, and leave without harm to the others."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from llm_os.errors import (
    BrokenWeightsError,
    CapacityError,
    InternalError,
    InvalidInputError,
    LLMOSError,
    UnavailableError,
)
from llm_os.workers.stepping import MANY, Stepper, Tokens


@dataclass
class Handle:
    left: int
    status: str = "RUNNING"
    out: deque[Any] = field(default_factory=deque)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def can_read(self) -> bool:
        return bool(self.out)

    def read(self) -> Any:
        return {0: self.out.popleft()}

    def cancel(self) -> None:
        self.left = 0
        self.cancelled.set()

    def get_status(self) -> Any:
        return SimpleNamespace(name=self.status)


class Pipeline:
    """Gives each request one token a step, `config` in all; the token is the request's prompt."""

    def __init__(self) -> None:
        self.handles: list[tuple[int, Handle]] = []
        self.breaks = False

    def add_request(self, number: int, prompt: Any, config: Any) -> Handle:
        if config == "refuse":
            raise RuntimeError("no such config")
        handle = Handle(0, "IGNORED") if config == "ignore" else Handle(config)
        self.handles.append((prompt, handle))
        return handle

    def has_non_finished_requests(self) -> bool:
        return any(handle.left for _, handle in self.handles)

    def step(self) -> None:
        if self.breaks:
            raise RuntimeError("out of luck")
        for prompt, handle in self.handles:
            if handle.left:
                handle.left -= 1
                reason = "BROKEN" if prompt < 0 else "NONE" if handle.left else "LENGTH"
                output = SimpleNamespace(generated_ids=[prompt], finish_reason=SimpleNamespace(name=reason))
                handle.out.append(output)


async def _all(stepper: Stepper, prompt: int, config: Any) -> list[int]:
    return [token async for tokens in stepper.generate(lambda: (prompt, config)) for token in tokens.ids]


async def test_each_caller_gets_his_own_tokens() -> None:
    stepper = Stepper(Pipeline(), lambda _: None)
    stepper.begin()
    assert await _all(stepper, 7, 3) == [7, 7, 7]
    assert await _all(stepper, 8, 1) == [8]
    await stepper.end()


async def test_a_burst_goes_into_one_step() -> None:
    pipeline, sizes = Pipeline(), list[int]()
    step = pipeline.step

    def counted() -> None:
        sizes.append(sum(handle.left > 0 for _, handle in pipeline.handles))
        step()

    pipeline.step = counted  # type: ignore[method-assign]
    stepper = Stepper(pipeline, lambda _: None)
    stepper.begin()
    assert await asyncio.gather(*(_all(stepper, number, 2) for number in range(8))) == [[n, n] for n in range(8)]
    assert sizes == [8, 8]
    await stepper.end()


async def test_what_is_found_wrong_between_steps_is_told_to_its_caller_alone() -> None:
    stepper = Stepper(Pipeline(), lambda _: None)
    stepper.begin()

    def refused() -> tuple[Any, Any]:
        raise InvalidInputError("too long", hint="Shorten it.")

    with pytest.raises(InvalidInputError, match="too long"):
        await anext(stepper.generate(refused))
    assert await _all(stepper, 8, 1) == [8]
    await stepper.end()


async def test_an_unexpected_error_in_one_request_harms_no_other() -> None:
    stepper = Stepper(Pipeline(), lambda _: None)
    stepper.begin()

    def broken() -> tuple[Any, Any]:
        raise TypeError("a template's own")

    with pytest.raises(InternalError, match="TypeError"):
        await anext(stepper.generate(broken))
    assert await _all(stepper, 8, 1) == [8]
    await stepper.end()


async def test_a_pipeline_that_breaks_over_a_request_tells_its_caller_too() -> None:
    pipeline = Pipeline()

    def raises(number: int, prompt: Any, config: Any) -> Any:
        raise MemoryError("bad_alloc")

    pipeline.add_request = raises  # type: ignore[method-assign]
    stepper = Stepper(pipeline, lambda _: None)
    stepper.begin()
    with pytest.raises(UnavailableError, match="bad_alloc"):
        await asyncio.wait_for(_all(stepper, 7, 1), 10)


async def test_who_ends_by_what_is_said_gets_each_token_by_itself_and_nothing_held_is_lost_in_a_break() -> None:
    pipeline = Pipeline()
    stepper = Stepper(pipeline, lambda _: None, pause=60.0)
    stepper.begin()
    at_once = stepper.generate(lambda: (9, 10), at_once=True)

    async def each() -> list[tuple[int, ...]]:
        return [tokens.ids async for tokens in at_once]

    told, *_ = await asyncio.gather(each(), *(_parts(stepper, number, 10) for number in range(MANY)))
    assert told == [(9,)] * 10

    step, steps = pipeline.step, iter(range(3))

    def breaking() -> None:
        pipeline.breaks = next(steps, None) is None
        step()

    pipeline.step = breaking  # type: ignore[method-assign]
    heard: list[int] = []

    async def until_it_breaks(number: int) -> None:
        async for tokens in stepper.generate(lambda: (number, 100)):
            heard.extend(tokens.ids)

    ended = await asyncio.gather(*(until_it_breaks(n) for n in range(MANY)), return_exceptions=True)
    assert [type(one) for one in ended] == [UnavailableError] * MANY
    assert sorted(heard) == sorted(list(range(MANY)) * 3), "of three steps that went well"


async def test_streams_go_on_while_many_requests_are_made_ready() -> None:
    pipeline, stepped, seen = Pipeline(), [0], list[int]()
    step = pipeline.step

    def counted() -> None:
        stepped[0] += 1
        step()

    def slow() -> tuple[Any, Any]:
        seen.append(stepped[0])
        time.sleep(0.015)
        return 1, 1

    pipeline.step = counted  # type: ignore[method-assign]
    stepper = Stepper(pipeline, lambda _: None)
    stepper.begin()
    running = stepper.generate(lambda: (7, 10**9))
    await anext(running)
    await asyncio.gather(*(anext(stepper.generate(slow)) for _ in range(8)))
    assert len(set(seen)) > 2, "the stream had steps between them"
    await running.aclose()
    await stepper.end()


async def _parts(stepper: Stepper, prompt: int, size: int) -> list[tuple[int, ...]]:
    return [tokens.ids async for tokens in stepper.generate(lambda: (prompt, size))]


async def test_tokens_of_many_are_told_together_but_never_the_first_or_the_last_ones_late() -> None:
    stepper = Stepper(Pipeline(), lambda _: None, pause=60.0)
    stepper.begin()
    told = await asyncio.gather(*(_parts(stepper, number, 10) for number in range(MANY)))
    for number, parts in enumerate(told):
        assert parts[0] == (number,)
        assert sum(parts, ()) == (number,) * 10
        assert len(parts) == 2
    assert await _parts(stepper, 7, 5) == [(7,)] * 5  # alone, it gets each by itself
    await stepper.end()


async def test_the_last_tokens_say_why_they_are_the_last() -> None:
    stepper = Stepper(Pipeline(), lambda _: None)
    stepper.begin()
    assert [tokens.finish async for tokens in stepper.generate(lambda: (7, 2))] == [None, "length"]
    await stepper.end()


async def test_a_caller_who_leaves_is_taken_out_of_the_batch() -> None:
    pipeline = Pipeline()
    stepper = Stepper(pipeline, lambda _: None)
    stepper.begin()
    tokens = stepper.generate(lambda: (7, 10**9))
    await anext(tokens)
    await tokens.aclose()
    assert pipeline.handles[0][1].cancelled.wait(10)
    assert await _all(stepper, 8, 2) == [8, 8]
    await stepper.end()


async def test_what_the_pipeline_does_not_take_yet_waits_for_a_step_and_may_leave_meanwhile() -> None:
    pipeline, asked = Pipeline(), list[int]()
    add = pipeline.add_request

    def later(number: int, prompt: Any, config: Any) -> Any:
        asked.append(prompt)
        waits = prompt > 7 and (prompt == 9 or asked.count(prompt) < 3)
        return None if waits else add(number, prompt, config)

    pipeline.add_request = later  # type: ignore[method-assign]
    stepper = Stepper(pipeline, lambda _: None)
    stepper.begin()
    running = asyncio.create_task(_all(stepper, 7, 50))
    never = asyncio.create_task(_all(stepper, 9, 2))
    assert await _all(stepper, 8, 2) == [8, 8]
    assert asked.count(8) == 3
    never.cancel()
    assert await running == [7] * 50
    assert await _all(stepper, 6, 3) == [6] * 3
    tries = asked.count(9)
    assert await _all(stepper, 6, 3) == [6] * 3
    assert asked.count(9) == tries, "who left is asked no more"
    await stepper.end()


async def test_a_request_that_the_engine_refuses_harms_no_other() -> None:
    stepper = Stepper(Pipeline(), lambda _: None)
    stepper.begin()
    with pytest.raises(InvalidInputError, match="no such config"):
        await _all(stepper, 7, "refuse")
    assert await _all(stepper, 8, 1) == [8]
    await stepper.end()


async def test_a_prompt_that_the_cache_cannot_hold_is_told() -> None:
    stepper = Stepper(Pipeline(), lambda _: None)
    stepper.begin()
    with pytest.raises(CapacityError, match="cache"):
        await _all(stepper, 7, "ignore")
    await stepper.end()


async def test_a_broken_pipeline_is_told_to_all_and_to_those_who_come_later() -> None:
    pipeline, told = Pipeline(), list[LLMOSError]()
    stepper = Stepper(pipeline, told.append)
    stepper.begin()
    pipeline.breaks = True
    for _ in range(2):
        with pytest.raises(UnavailableError, match="out of luck"):
            await _all(stepper, 7, 3)
    assert [type(error) for error in told] == [UnavailableError]
    await stepper.end()


async def test_an_answer_whose_numbers_are_none_is_an_error_of_its_own() -> None:
    stepper = Stepper(Pipeline(), lambda _: None)
    stepper.begin()
    with pytest.raises(BrokenWeightsError, match="no number"):
        await _all(stepper, -1, 1)
    assert await _all(stepper, 7, 2) == [7, 7]
    await stepper.end()


def test_tokens_that_are_told_together_keep_what_belongs_to_them() -> None:
    first = Tokens((1,), None, (-0.5,), (((1, -0.5),),))
    assert first + Tokens((2, 3), "stop", (-1.0, -2.0), ((), ())) == Tokens(
        (1, 2, 3), "stop", (-0.5, -1.0, -2.0), (((1, -0.5),), (), ())
    )
