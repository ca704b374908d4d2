"""Of requests that would write into one block of the cache one goes on at a time; nobody leaves half a prompt."""

from __future__ import annotations

import itertools
import os
import random
from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_os.workers.beginnings import Ends, parts_of
from llm_os.workers.one_writer import OneWriter
from llm_os.workers.stepping import Handle

BLOCK = 4
GAMES = max(4, int(os.environ.get("LLM_OS_SEEDS", "400")))


class CorruptError(AssertionError):
    """A request computes with what is not its own."""


@dataclass(eq=False)
class Block:
    """A block of the cache: what it is said to hold, and what it holds."""

    tokens: list[int]
    label: tuple[int, ...] = ()
    users: int = 0
    used: int = 0


@dataclass(frozen=True)
class Config:
    """How much a request wants said, and whether its prompt before that."""

    most: int
    echo: bool = False


@dataclass(eq=False)
class Sequence:
    """A request in the engine."""

    prompt: list[int]
    most: int
    echo: bool = False
    blocks: list[Block] = field(default_factory=list)
    computed: int = 0
    said: list[int] = field(default_factory=list)
    out: deque[Any] = field(default_factory=deque)
    cancelled: bool = False
    status: str = "RUNNING"

    @property
    def ids(self) -> list[int]:
        return self.prompt + self.said

    def can_read(self) -> bool:
        return bool(self.out)

    def read(self) -> Any:
        output = self.out.popleft()
        return {0: output} if output else {}

    def cancel(self) -> None:
        self.cancelled = True

    def get_status(self) -> Any:
        return SimpleNamespace(name=self.status)


class Engine:
    """Takes care of blocks as openvino-genai 2026.4 does, with its flaws; raises CorruptError where they show.

    Args:
        blocks: of the cache. budget: tokens of a step, over all requests.
    """

    def __init__(self, blocks: int, budget: int, seed: int = 0) -> None:
        self.free = [Block([-1] * BLOCK) for _ in range(blocks)]
        self.budget = budget
        self.live: list[Sequence] = []
        self.left: dict[tuple[int, ...], Block] = {}
        self.known: dict[tuple[int, ...], Block] = {}
        self.clock = itertools.count(1)
        self.random = random.Random(seed)
        self.size = blocks

    def used(self) -> float:
        return 1 - (len(self.free) + len(self.left)) / self.size

    def has_room(self) -> bool:
        """Whether nobody needs to be put back: what happens then is not what is tested here."""
        return len(self.free) + len(self.left) >= sum(-(-(len(s.prompt) + s.most) // BLOCK) for s in self.live) + 8

    def add_request(self, number: int, prompt: Any, config: Any) -> Handle:
        sequence = Sequence(list(prompt), config.most, config.echo)
        at = 0
        while at < len(prompt):
            whole = min(at + BLOCK, len(prompt))
            sizes = [whole, *range(at + 1, whole)]
            size = next((size for size in sizes if self._has(tuple(prompt[:size]))), None)
            if size is None:
                break
            sequence.blocks.append(self._take(tuple(prompt[:size])))
            sequence.computed = size - (size == len(prompt))
            at = size
            if size < whole:
                break
        self.live.append(sequence)
        return sequence

    def _has(self, label: tuple[int, ...]) -> bool:
        return label in self.left or label in self.known

    def _take(self, label: tuple[int, ...]) -> Block:
        block = self.left.pop(label, None) or self.known[label]
        block.users += 1
        block.used = next(self.clock)
        return block

    def step(self) -> None:
        budget, now = self.budget, list[tuple[Sequence, int]]()
        for sequence in self.live:  # whose blocks are more than is computed: the prompt was known to its end
            while len(sequence.blocks) > -(-sequence.computed // BLOCK):
                self._release(sequence.blocks.pop())
        for sequence in [one for one in self.live if one.said and not one.cancelled][:budget]:
            self._append(sequence)
            now.append((sequence, 1))
            budget -= 1
        for sequence in [one for one in self.live if not one.said and not one.cancelled]:
            if count := min(budget, len(sequence.prompt) - sequence.computed):
                self._allocate(sequence, sequence.computed + count)
                now.append((sequence, count))
                budget -= count
        self._compute(now)
        for sequence in [one for one in self.live if one.cancelled or len(one.said) >= one.most]:
            self.live.remove(sequence)
            sequence.status = "FINISHED"
            for block in sequence.blocks:
                self._release(block)

    def _compute(self, now: list[tuple[Sequence, int]]) -> None:
        writers: dict[int, Sequence] = {}
        for sequence, count in now:
            for place in range(sequence.computed, sequence.computed + count):
                block = sequence.blocks[place // BLOCK]
                if writers.setdefault(id(block), sequence) is not sequence:
                    raise CorruptError("two write into one block")
                block.tokens[place % BLOCK] = sequence.ids[place]
            sequence.computed += count
        for sequence, _ in now:
            held = [token for block in sequence.blocks for token in block.tokens]
            if held[: sequence.computed] != sequence.ids[: sequence.computed]:
                raise CorruptError(f"{held} is not {sequence.ids}")
            if sequence.computed == len(sequence.ids):
                sequence.said.append(self.random.randrange(2))
                reason = "LENGTH" if len(sequence.said) >= sequence.most else "NONE"
                told = [*(sequence.prompt if sequence.echo and len(sequence.said) == 1 else []), sequence.said[-1]]
                output = SimpleNamespace(generated_ids=told, finish_reason=SimpleNamespace(name=reason))
                sequence.out.append(output)

    def _append(self, sequence: Sequence) -> None:
        size = sequence.computed + 1
        if len(sequence.blocks) * BLOCK < size:
            self._allocate(sequence, size)
            return
        last, label = sequence.blocks[-1], tuple(sequence.ids[:size])
        if last.users > 1:
            sequence.blocks[-1] = copy = self._new(label)
            copy.tokens = list(last.tokens)
            self._release(last)
            return
        self._rename(last, label)

    def _allocate(self, sequence: Sequence, size: int) -> None:
        if len(sequence.blocks) * BLOCK >= size:
            return
        if sequence.blocks:
            label = tuple(sequence.ids[: len(sequence.blocks) * BLOCK])
            if sequence.blocks[-1].label != label:
                self._rename(sequence.blocks[-1], label)
        while len(sequence.blocks) * BLOCK < size:
            through = min((len(sequence.blocks) + 1) * BLOCK, len(sequence.ids))
            sequence.blocks.append(self._new(tuple(sequence.ids[:through])))

    def _rename(self, block: Block, label: tuple[int, ...]) -> None:
        self.known.pop(block.label, None)
        block.label = label
        self.known[label] = block

    def _new(self, label: tuple[int, ...]) -> Block:
        if self.free:
            block = self.free.pop(0)
        else:
            block = min(self.left.values(), key=lambda one: one.used)
            del self.left[block.label]
            self.known.pop(block.label, None)
        block.label, block.users, block.used = label, 1, next(self.clock)
        self.known[label] = block
        return block

    def _release(self, block: Block) -> None:
        block.users -= 1
        if block.users:
            return
        if (other := self.left.get(block.label)) is not None:
            self.free.append(other)
            if self.known.get(block.label) is other:
                self.known[block.label] = block
        self.left[block.label] = block

    def ignore(self) -> None:
        """Give up on all, as where the cache is too small."""
        for sequence in self.live:
            sequence.status = "IGNORED"
            sequence.out.append({})
            for block in sequence.blocks:
                self._release(block)
        self.live = []

    def has_non_finished_requests(self) -> bool:
        return bool(self.live)


def careful(engine: Engine, blocks: int) -> OneWriter:
    return OneWriter(engine, lambda prompt: prompt, engine.used, block=BLOCK, blocks=blocks)


def run(pipeline: Any, *asked: tuple[list[int], int]) -> int:
    """Steps until all that is asked is answered, as soon as it can be; how often something had to wait."""
    waiting, waited = deque(enumerate(asked)), 0
    here: list[Handle] = []
    while waiting or pipeline.has_non_finished_requests():
        while waiting and (handle := _add(pipeline, *waiting[0])) is not None:
            here.append(handle)
            waiting.popleft()
        waited += bool(waiting)
        pipeline.step()
        read(here)
    return waited


def _add(pipeline: Any, number: int, asked: tuple[list[int], int]) -> Handle | None:
    handle: Handle | None = pipeline.add_request(number, asked[0], Config(asked[1]))
    return handle


def read(handles: list[Handle]) -> None:
    for handle in handles:
        while handle.can_read():
            handle.read()


SAME = [1, 1, 1, 0, 0]
"""A whole block and a part."""
TWO = ([*SAME, 1, 1, 1, 1], 1), ([*SAME, 0, 0, 0, 1], 1)


def test_the_engine_lets_two_requests_write_into_one_block() -> None:
    engine = Engine(32, 64)
    run(engine, (SAME, 1))
    with pytest.raises(CorruptError, match="two write"):
        run(engine, *TWO)


def test_such_requests_go_on_one_after_the_other_and_then_no_more() -> None:
    engine = careful(Engine(32, 64), 32)
    run(engine, (SAME, 1))
    assert run(engine, *TWO) == 1
    assert run(engine, ([*SAME, 1, 0, 1, 1], 1), ([*SAME, 0, 1, 0, 1], 1)) == 0, (
        "the part is full, nobody can go on from it"
    )


def test_requests_with_nothing_in_common_or_only_whole_blocks_do_not_wait() -> None:
    engine = careful(Engine(32, 64), 32)
    run(engine, (SAME, 3))
    assert run(engine, *(([1, 1, 1, 0, *rest], 2) for rest in ([1, 1], [1, 0, 1], [1, 1, 1]))) == 0
    assert run(engine, *(([0, 0, number % 2, 1, number], 2) for number in range(8))) == 0


def test_equal_prompts_do_not_wait_where_nobody_ended_there() -> None:
    engine = careful(Engine(64, 64), 64)
    assert run(engine, *((SAME, 3) for _ in range(6))) == 0


def test_who_leaves_while_his_prompt_is_read_leaves_no_block_that_only_seems_full() -> None:
    flawed, sound = Engine(32, 6), Engine(32, 6)
    for engine in (flawed, careful(sound, 32)):
        request = engine.add_request(0, [1, 0] * 6, Config(1))
        assert request is not None
        engine.step()
        request.cancel()
    assert len(flawed.live) == len(sound.live) == 1
    flawed.step()
    with pytest.raises(CorruptError, match="is not"):
        run(flawed, ([1, 0] * 5, 1))
    run(careful(sound, 32), ([1, 0] * 5, 1))


def test_who_leaves_before_his_prompt_is_begun_is_not_read() -> None:
    engine = Engine(64, 6)
    pipeline = careful(engine, 64)
    handles = [pipeline.add_request(number, [number] * 12, Config(1)) for number in range(2, 7)]
    pipeline.step()
    for handle in handles:
        assert handle is not None
        handle.cancel()
    pipeline.step()
    assert not engine.live, "the first one was read to its end, the others were not begun"


def test_what_an_echo_says_of_the_prompt_is_no_answer() -> None:
    engine = Engine(32, 64)
    pipeline = careful(engine, 32)
    handle = pipeline.add_request(0, SAME, Config(1, echo=True))
    assert handle is not None
    pipeline.step()
    read([handle])
    assert run(pipeline, *TWO) == 1


def test_what_the_engine_gives_up_on_took_nothing_away() -> None:
    engine = Engine(32, 64)
    pipeline = careful(engine, 32)
    run(pipeline, (SAME, 1))
    assert pipeline.add_request(0, TWO[0][0], Config(1)) is not None
    engine.ignore()
    pipeline.step()
    assert run(pipeline, *TWO) == 1


FULL = [*SAME, 1, 1, 1]
"""Goes on from it just to the end of the block."""


def test_nobody_waits_for_one_that_was_given_up() -> None:
    engine = Engine(32, 64)
    pipeline = careful(engine, 32)
    run(pipeline, (SAME, 1))
    assert pipeline.add_request(0, FULL, Config(1)) is not None
    engine.ignore()
    pipeline.step()
    begun = pipeline.add_request(1, FULL, Config(9))
    assert begun is not None, "the first one is over"
    pipeline.step()
    assert pipeline.add_request(2, FULL, Config(1)) is None
    engine.ignore()
    read([begun])
    begun.get_status()
    assert pipeline.add_request(2, FULL, Config(1)) is not None


def test_nobody_waits_for_one_who_left_and_had_nothing_to_say() -> None:
    engine = Engine(32, 2)
    pipeline = careful(engine, 32)
    run(pipeline, (SAME, 1))
    handle = pipeline.add_request(0, FULL, Config(1))
    assert handle is not None
    pipeline.step()
    handle.cancel()
    pipeline.step()
    assert not pipeline.has_non_finished_requests()
    assert pipeline.add_request(1, FULL, Config(1)) is not None


def test_what_is_there_as_a_whole_leaves_the_part() -> None:
    """Found by another reader of the code: an answer had filled the block, so the part was not taken."""
    engine = Engine(34, 15, 384)
    pipeline = careful(engine, 34)
    here: list[Handle | None] = []
    for asked in (
        [([1, 0, 1, 0], 4), ([1], 1)],
        [([1, 0, 1, 0, 1, 0, 1, 1, 1], 5)],
        [([1, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1], 6), ([1, 0], 1)],
    ):
        here += [_add(pipeline, len(here) + number, one) for number, one in enumerate(asked)]
        pipeline.step()
        read([handle for handle in here if handle is not None])
    assert [handle is not None for handle in here] == [True, True, True, True, False], "the part is still there"


def test_an_empty_prompt_is_the_engines_to_refuse() -> None:
    engine = Engine(8, 8)
    engine.add_request = _refuse  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="empty"):
        careful(engine, 8).add_request(0, [], Config(1))


def _refuse(number: int, prompt: Any, config: Any) -> Handle:
    raise RuntimeError("empty")


def test_it_keeps_the_latest_ends_of_those_who_are_over() -> None:
    ends = Ends(BLOCK, 1)
    for token in range(5):
        ends.add((0, (token,)))
        assert ends.of(parts_of([token, 9], BLOCK))
        ends.rest((0, (token,)))
    assert [bool(ends.of(parts_of([token], BLOCK))) for token in range(5)] == [False, False, False, True, True]
    ends.lose((0, (4,)), 0)
    assert ends.of(parts_of([4], BLOCK)), "it was left later"
    ends.lose((0, (4,)), ends.tick())
    assert not ends.of(parts_of([4], BLOCK))


def test_a_whole_block_hides_a_part_that_was_used_before_it_when_nobody_has_it() -> None:
    ends, parts = Ends(BLOCK, 8), parts_of([1, 1, 1, 0, 0], BLOCK)
    end = parts[0].before, (1, 1)
    ends.add(end)
    ends.rest(end)
    for _ in range(2):
        ends.come(parts)
        assert ends.of(parts) == {end: False}, "of two equal blocks one may have lost its name, as long as they are had"
        ends.go(parts, ends.tick())
        assert not ends.of(parts)
    ends.add(end)
    assert ends.of(parts) == {end: False}, "used later than the whole"


def test_a_part_is_surely_taken_away_only_where_all_before_it_is_surely_there() -> None:
    ends, before, behind = Ends(BLOCK, 8), [1, 1, 1, 0], [0, 0, 0, 0, 1]
    end = parts_of([*before, 0], BLOCK)[1].end
    ends.add(end)
    ends.rest(end)
    assert ends.of(parts_of([*before, *behind], BLOCK)) == {end: False}
    ends.come(parts_of([*before, 1], BLOCK))
    ends.go(parts_of([*before, 1], BLOCK), ends.tick())
    assert ends.of(parts_of([*before, *behind], BLOCK)) == {end: True}


def test_where_the_cache_is_almost_full_any_prompt_may_be_half_read() -> None:
    cancelled = []
    for used in (0.5, 0.99):
        engine = Engine(64, 6)
        pipeline = OneWriter(engine, lambda prompt: prompt, lambda used=used: used, block=BLOCK, blocks=64)  # type: ignore[misc]
        for number in range(2):
            assert pipeline.add_request(number, [number + 2] * 12, Config(1)) is not None
        pipeline.step()
        for request in list(pipeline._writing):
            request.cancel()
        cancelled.append([sequence.cancelled for sequence in engine.live])
    assert cancelled == [[False, True], [False, False]]


@pytest.mark.parametrize("seed", [2663, 42874, 92828])
def test_games_that_once_went_wrong(seed: int) -> None:
    play(*_game(seed))


tokens = st.lists(st.integers(0, 1), min_size=1, max_size=14)
moves = st.lists(st.one_of(st.none(), st.integers(0, 9), st.tuples(tokens, st.integers(1, 7))), max_size=60)
"""None: a step; a number: one leaves; else a prompt and the size of its answer."""


def play(moved: list[Any], blocks: int, budget: int, seed: int) -> None:
    """Raises CorruptError where a request computes with what is not its own."""
    engine = Engine(blocks, budget, seed)
    pipeline, waiting, here = careful(engine, blocks), deque[tuple[int, Any]](), list[Any]()
    for number, move in enumerate([*moved, *[None] * 40]):
        while waiting and (not engine.live or engine.has_room()):
            if (handle := _add(pipeline, *waiting[0])) is None:
                break
            waiting.popleft()
            here.append(handle)
        if isinstance(move, tuple):
            waiting.append((number, move))
        elif move is not None and here:
            here.pop(move % len(here)).cancel()
        else:
            pipeline.step()
            read(here)
            here = [handle for handle in here if handle.get_status().name == "RUNNING"]


@settings(max_examples=300, deadline=None)
@given(moves, st.integers(14, 40), st.integers(3, 20), st.integers(0, 9))
def test_no_request_computes_with_what_is_not_its_own(moved: list[Any], blocks: int, budget: int, seed: int) -> None:
    play(moved, blocks, budget, seed)


@pytest.mark.parametrize("begin", range(0, GAMES, GAMES // 4))
def test_nor_does_one_in_longer_games(begin: int) -> None:
    for seed in range(begin, begin + GAMES // 4):
        play(*_game(seed))


def _game(seed: int) -> tuple[list[Any], int, int, int]:
    dice = random.Random(seed)
    prompt = lambda: [dice.randrange(2) for _ in range(dice.randint(1, 14))]  # noqa: E731
    moved: list[Any] = []
    for _ in range(100):
        x = dice.random()
        moved.append((prompt(), dice.randint(1, 7)) if x < 0.35 else dice.randrange(10) if x < 0.4 else None)
    return moved, dice.randint(14, 40), dice.randint(3, 20), seed
