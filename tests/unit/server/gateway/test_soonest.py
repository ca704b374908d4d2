"""Which engine a request is sent to where several stand side by side, on a machine that they share, in virtual time."""

import asyncio
import heapq
import random
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from llm_os.server.gateway.abilities import able, missed, needs
from llm_os.server.gateway.estimates import Estimates
from llm_os.server.gateway.soonest import HALF_LIFE, IDLE_HALF_LIFE, READ, Load, Soonest, Work, at, seconds
from llm_os.server.gateway.upstream import Upstreams
from llm_os.spec.calibration import Speed
from llm_os.spec.routing import Endpoint, Route, RoutingTable


def speeds(*rows: tuple[int, float, float]) -> tuple[Speed, ...]:
    return tuple(Speed(streams=streams, per_second=rate, first=first) for streams, rate, first in rows)


FEW = speeds((1, 108, 0.21), (8, 157, 1.95), (32, 179, 3.57))
"""llama.cpp with a model of 135 million weights, on two cores."""
MANY = speeds((1, 61, 0.11), (8, 262, 0.78), (32, 387, 1.99))
"""openvino, the same."""


def endpoint(name: str, measured: tuple[Speed, ...] = (), **more: Any) -> Endpoint:
    return Endpoint(attempt=name, url=f"unix:/{name}", engine=name.split("-")[0], speeds=measured, **more)


def route(*endpoints: Endpoint) -> Route:
    return Route(deployment="d", version="m@1", task="text-generation", engine="x", endpoints=endpoints, created_at=0)


# -- between the measured numbers --------------------------------------------------------------------------------------


def test_between_measured_numbers_of_requests_speed_follows_a_power_law() -> None:
    assert at(MANY, 1) == (61, 0.11)
    assert at(MANY, 8) == (262, 0.78)
    even, serial = speeds((1, 10, 1), (16, 160, 1)), speeds((1, 10, 1), (16, 10, 16))
    assert at(even, 4) == (pytest.approx(40), pytest.approx(1))
    assert at(serial, 4) == (pytest.approx(10), pytest.approx(4))
    rates = [at(FEW, streams)[0] for streams in (1, 2, 3.5, 8, 20, 32)]
    assert rates == sorted(rates)


def test_above_the_largest_number_it_does_no_more_and_the_first_token_waits() -> None:
    assert at(MANY, 64) == (387, pytest.approx(2 * 1.99))
    assert at(speeds((4, 40, 0.5)), 1) == (40, 0.5)


def test_an_engine_that_was_measured_to_do_nothing_takes_for_ever_and_harms_nobody() -> None:
    dead = speeds((1, 0, 0), (8, 0, 0))
    for streams in (1, 3, 8, 9):
        assert seconds(dead, streams, Work(10, 10)) > 1000


def test_a_long_prompt_counts_as_far_as_it_is_not_read_yet() -> None:
    short, long = (seconds(FEW, 1, Work(tokens, 0)) for tokens in (READ, 10 * READ))
    assert (short, long) == (pytest.approx(0.21), pytest.approx(2.1))
    assert 0 < seconds(FEW, 1, Work(0, 0)) < short
    assert seconds(FEW, 8, Work(None, 0)) == 1.95  # of a text to classify the time to its answer was measured


# -- the choice --------------------------------------------------------------------------------------------------------


def chosen(load: int, work: Work, last: int | None = None) -> int:
    """Which of FEW and MANY is taken while so many others are under way, for long; `last` was taken before."""
    many = Soonest()
    for _ in range(load):
        many.load.begin(0.0)
    if last is not None:
        many._last = (FEW, MANY)[last]
    return many.choose([(FEW, work), (MANY, work)], 100.0)


def test_a_single_request_goes_to_the_engine_that_is_best_alone_and_one_of_many_to_the_other() -> None:
    assert [chosen(load, Work(30, 100)) for load in (0, 1, 4, 7, 31)] == [0, 0, 1, 1, 1]


def test_a_request_for_many_answers_is_many_at_once() -> None:
    assert chosen(0, Work(30, 32 * 100, 32)) == chosen(31, Work(30, 100)) == 1
    one, upstreams = route(endpoint("few", FEW), endpoint("many", MANY)), Upstreams(lambda: 0.0)
    replica, choice = upstreams.choose(one, (), 30.0, (), 3200.0, 32)
    assert replica.attempt == "many"
    load = upstreams._soonest["d"].load
    with upstreams.busy(one, replica, choice, lambda: 0.0, 32):
        assert load.count == 32
    assert load.count == 0


def test_a_long_prompt_goes_to_the_engine_that_reads_faster() -> None:
    assert chosen(0, Work(30, 60)) == 0
    assert chosen(0, Work(2000, 60)) == 1
    assert chosen(0, Work(0, 60)) == 0  # it is in the cache


def test_near_the_crossing_the_last_engine_is_kept() -> None:
    loads = range(8)
    from_few, from_many = ([chosen(load, Work(30, 100), last) for load in loads] for last in (0, 1))
    assert any(one != other for one, other in zip(from_few, from_many, strict=True))
    assert from_few == sorted(from_few)
    assert from_many == sorted(from_many)
    assert from_few.index(1) > from_many.index(1)


def test_a_load_is_remembered_for_a_moment_only() -> None:
    load = Load()
    for _ in range(8):
        load.begin(0.0)
    assert load.with_another(60.0) == 9
    for _ in range(7):
        load.end(60.0)
    assert load.with_another(60.01) > 7.9  # the first one that comes back is not alone
    assert load.with_another(60 + HALF_LIFE) == pytest.approx(4.5, rel=0.01)


def test_who_comes_a_second_after_a_burst_is_alone_but_who_comes_back_at_once_is_not() -> None:
    load = Load()
    load.begin(0.0, 32)
    load.end(10.0, 32)
    assert load.with_another(10.005) > 29
    assert load.with_another(10.0 + IDLE_HALF_LIFE) == pytest.approx(15.5, rel=0.01)
    assert load.with_another(11.0) == 1.0


# -- what comes of it, in virtual time ---------------------------------------------------------------------------------


@dataclass
class Machine:
    """Engines that share processors: each gets them for the share of requests that are on it."""

    engines: dict[str, tuple[Speed, ...]]
    now: float = 0.0
    done: float = 0.0
    running: dict[int, tuple[str, float, Any]] = field(default_factory=dict)
    sent: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.upstreams = Upstreams(lambda: self.now)
        self.route = route(*(endpoint(name, measured) for name, measured in self.engines.items()))

    def ask(self, caller: int, answer: float) -> None:
        replica, choice = self.upstreams.choose(self.route, (), 30.0, (), 100.0)
        busy = self.upstreams.busy(self.route, replica, choice, lambda: answer)
        busy.__enter__()
        self.running[caller] = (replica.attempt, answer, busy)
        self.sent.append((self.now, replica.attempt))

    def rates(self) -> dict[str, float]:
        counts = Counter(name for name, _, _ in self.running.values())
        return {name: at(self.engines[name], number)[0] / len(self.running) for name, number in counts.items()}

    def advance(self, until: float) -> list[int]:
        """Let time pass until then, or until answers are complete: whose?"""
        rates = self.rates()
        left = [remaining / rates[name] for name, remaining, _ in self.running.values()]
        step = min([until - self.now, *left])
        self.now += step
        ended = []
        for caller, (name, remaining, busy) in list(self.running.items()):
            self.done += rates[name] * step
            remaining -= rates[name] * step
            self.running[caller] = (name, remaining, busy)
            if remaining < 1e-6:
                busy.__exit__(None, None, None)
                del self.running[caller]
                ended.append(caller)
        return ended


def closed_loop(
    callers: Callable[[float], int], names: str, until: float, answers: Callable[[], float]
) -> tuple[Machine, float]:
    """So many callers, each asking again as soon as it has its answer. Tokens a second of the last two thirds."""
    machine, random_ = Machine({name: {"few": FEW, "many": MANY}[name] for name in names.split()}), random.Random(1)
    waits = [(random_.random() * 0.05, caller) for caller in range(32)]
    heapq.heapify(waits)
    counted = None
    while machine.now < until:
        for caller in machine.advance(min(until, waits[0][0] if waits else until)):
            heapq.heappush(waits, (machine.now + 0.02 * random_.random(), caller))
        if counted is None and machine.now > until / 3:
            counted = (machine.now, machine.done)
        while waits and waits[0][0] <= machine.now:
            _, caller = heapq.heappop(waits)
            if caller < callers(machine.now):
                machine.ask(caller, answers())
            else:
                heapq.heappush(waits, (machine.now + 0.5, caller))
    since, done = counted or (0.0, 0.0)
    return machine, (machine.done - done) / (machine.now - since)


@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize("callers", [1, 2, 3, 4, 6, 8, 16, 32])
def test_both_together_do_what_the_better_one_does_at_this_load(callers: int, varied: bool) -> None:
    def answers() -> Callable[[], float]:
        random_ = random.Random(2)
        return (lambda: min(500.0, random_.expovariate(0.01))) if varied else (lambda: 100.0)

    both, few, many = (closed_loop(lambda _: callers, names, 90, answers())[1] for names in ("few many", "few", "many"))
    assert both > 0.93 * max(few, many)


@pytest.mark.parametrize(("callers", "best"), [(1, "few"), (8, "many"), (32, "many")])
def test_in_a_steady_state_nobody_is_on_the_other_engine(callers: int, best: str) -> None:
    machine, _ = closed_loop(lambda _: callers, "few many", 60, lambda: 100.0)
    assert {name for moment, name in machine.sent if moment > 20} == {best}


def test_when_the_load_changes_the_engine_does_after_a_moment() -> None:
    machine, _ = closed_loop(lambda now: 8 if 30 <= now < 60 else 1, "few many", 90, lambda: 50.0)
    for begin, end, best in ((0, 30, "few"), (35, 60, "many"), (67, 90, "few")):
        assert {name for moment, name in machine.sent if begin <= moment < end} == {best}


# -- how it is asked for -----------------------------------------------------------------------------------------------


def taken(upstreams: Upstreams, one: Route, number: int, under_way: ExitStack) -> list[str]:
    """Who gets so many requests that stay under way."""
    found = []
    for _ in range(number):
        replica, choice = upstreams.choose(one, (), 30.0, (), 100.0)
        under_way.enter_context(upstreams.busy(one, replica, choice, lambda: 0.0))
        found.append(replica.attempt)
    return found


def test_where_speeds_are_unknown_or_equal_the_least_busy_replica_is_asked() -> None:
    for one in (
        route(endpoint("a", FEW), endpoint("b")),
        route(endpoint("a"), endpoint("b")),
        route(endpoint("a", FEW), endpoint("b", speeds((1, 108, 0.21), (8, 157, 1.95), (32, 179, 3.57)))),
    ):
        with ExitStack() as under_way:
            assert Counter(taken(Upstreams(lambda: 0.0), one, 8, under_way)) == {"a": 4, "b": 4}


def test_of_several_replicas_of_the_engine_that_is_chosen_the_least_busy_one_is_asked() -> None:
    clock = [0.0]
    upstreams = Upstreams(lambda: clock[0])
    one = route(endpoint("few-1", FEW), endpoint("many-1", MANY), endpoint("many-2", MANY))
    with ExitStack() as under_way:
        before = Counter(taken(upstreams, one, 8, under_way))
        assert before["few-1"] > 0  # who comes first is alone
        clock[0] = 60.0
        after = before + Counter(taken(upstreams, one, 8, under_way))
        assert after["few-1"] == before["few-1"]
        assert abs(after["many-1"] - after["many-2"]) <= 1


def test_a_replica_to_avoid_is_asked_only_if_there_is_no_other() -> None:
    one = route(endpoint("few", FEW), endpoint("many", MANY))
    upstreams = Upstreams(lambda: 0.0)
    assert upstreams.choose(one, answer=50.0)[0].attempt == "few"
    assert upstreams.choose(one, avoid={"few"}, answer=50.0)[0].attempt == "many"
    assert upstreams.choose(one, avoid={"few", "many"}, answer=50.0)[0].attempt == "few"


def test_a_prompt_goes_where_it_was_read_if_the_other_engine_would_have_to_read_it_all() -> None:
    one, clock = route(endpoint("few", FEW), endpoint("many", MANY)), [0.0]
    upstreams, names = Upstreams(lambda: clock[0]), tuple(range(40))
    assert upstreams.choose(one, names, 2600.0, answer=40.0)[0].attempt == "many"  # it reads faster
    _, choice = upstreams.choose(one, names, 2600.0, {"many"}, 40.0)
    with upstreams.busy(one, endpoint("few"), choice, lambda: 40.0):
        pass
    clock[0] = 60.0
    assert upstreams.choose(one, (*names, 99), 2700.0, answer=40.0)[0].attempt == "few"


def test_each_replica_is_believed_to_hold_as_much_as_its_own_cache() -> None:
    small, large = endpoint("few", FEW, cache_tokens=640), endpoint("many", MANY, cache_tokens=64_000)
    one, upstreams = route(small, large), Upstreams(lambda: 0.0)
    for avoid in ("many", "few"):
        for prompt in range(20):
            _, choice = upstreams.choose(one, tuple(range(100 * prompt, 100 * prompt + 10)), 640.0, {avoid}, 10.0)
            with upstreams.busy(one, small, choice, lambda: 10.0):
                pass
    held = upstreams._balances["d"].prefixes._held
    assert (len(held["few"]), len(held["many"])) == (10, 200)


def test_nothing_is_kept_of_replicas_that_are_gone_though_they_were_never_asked() -> None:
    upstreams = Upstreams(lambda: 0.0)
    for number in range(5):
        one = route(endpoint(f"a{number}", cache_tokens=640), endpoint("b", cache_tokens=640))
        upstreams.choose(one)
        upstreams.forget(RoutingTable(version=1, routes=(one,)))
    assert set(upstreams._balances["d"].prefixes.sizes) == {"a4", "b"}


def test_an_answer_is_expected_to_be_as_long_as_usual_or_as_it_may_be() -> None:
    estimates = Estimates()
    for _ in range(200):
        estimates.learn("d", 400, 100, 20)
    assert estimates.answer("d", None) == pytest.approx(20, rel=0.01)
    assert estimates.answer("d", 8) == 8
    assert estimates.answer("d", 500, answers=3) == pytest.approx(60, rel=0.01)


# -- what not every engine can -----------------------------------------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({}, set()),
        ({"logprobs": False, "response_format": {"type": "text"}, "tools": [TOOL]}, set()),
        ({"logprobs": True}, {"probabilities_of_tokens_are_told"}),
        ({"logprobs": 0}, {"probabilities_of_tokens_are_told"}),
        ({"logprobs": 3}, {"probabilities_of_tokens_are_told", "the_likeliest_tokens_are_told"}),
        (
            {"logprobs": True, "top_logprobs": 2},
            {"probabilities_of_tokens_are_told", "the_likeliest_tokens_are_told"},
        ),
        ({"response_format": {"type": "json_schema"}}, {"an_answer_is_held_to_a_schema"}),
        ({"tools": [TOOL], "tool_choice": "required"}, {"a_tool_is_called_where_it_must_be"}),
        ({"tools": [{"function": {"name": "f", "strict": True}}]}, {"a_tool_is_called_where_it_must_be"}),
        ({"tools": "none", "tool_choice": "auto", "response_format": 3}, set()),
    ],
)
def test_a_body_says_what_not_every_engine_can(body: dict[str, Any], asked: set[str]) -> None:
    assert needs(body) == asked


def test_a_request_goes_to_an_engine_that_can_and_to_any_where_none_can() -> None:
    lacking = endpoint("openvino", MANY, lacks=("the_likeliest_tokens_are_told",))
    other = endpoint("llamacpp", FEW, lacks=("a_tool_is_called_where_it_must_be",))
    one = route(lacking, other)
    assert able(one, {}) is one
    assert [e.attempt for e in able(one, {"logprobs": 2}).endpoints] == ["llamacpp"]
    assert [e.attempt for e in able(one, {"tools": [TOOL], "tool_choice": "required"}).endpoints] == ["openvino"]
    assert able(one, {"logprobs": 2, "tools": [TOOL], "tool_choice": "required"}) is one


def test_an_engine_is_missed_that_could_do_what_no_other_can() -> None:
    many, tools = "the_likeliest_tokens_are_told", "a_tool_is_called_where_it_must_be"
    here = route(endpoint("openvino", MANY, lacks=(many,)))
    without = here.model_copy(update={"absent": {"llamacpp": (tools,)}})
    forced = {"tools": [TOOL], "tool_choice": "required"}
    assert missed(here, {"logprobs": 2}) is None, "nobody else: the engine itself says that it cannot"
    assert missed(without, {"logprobs": 2}) == "llamacpp"
    assert missed(without, {}) is None
    assert missed(without, forced) is None
    assert missed(without, {**forced, "logprobs": 2}) is None, "nor could the one that is not there"


# -- bursts ------------------------------------------------------------------------------------------------------------


class Now:
    """A clock that stands."""

    at = 100.0

    def __call__(self) -> float:
        return self.at


async def asked(upstreams: Upstreams, of: Route, stack: ExitStack, answers: int = 1) -> str:
    """The engine of a request that is under way from now on."""
    await upstreams.gather(of, answers)
    endpoint_, choice = upstreams.choose(of, answer=100.0, answers=answers)
    stack.enter_context(upstreams.busy(of, endpoint_, choice, lambda: 100.0, answers))
    return endpoint_.engine


async def test_a_burst_meets_on_the_engine_for_many_and_a_lone_request_goes_to_the_one_for_few() -> None:
    now, both = Now(), route(endpoint("few-1", FEW), endpoint("many-1", MANY))
    upstreams = Upstreams(now)
    with ExitStack() as stack:
        engines = await asyncio.gather(*(asked(upstreams, both, stack) for _ in range(8)))
        assert engines == ["many"] * 8
    now.at += 20 * HALF_LIFE
    with ExitStack() as stack:
        assert await asked(upstreams, both, stack) == "few"
    now.at += HALF_LIFE / 10  # one after the other was asked, and then many come
    with ExitStack() as stack:
        engines = await asyncio.gather(*(asked(upstreams, both, stack) for _ in range(8)))
        assert engines == ["many"] * 8


async def test_who_leaves_while_a_burst_gathers_is_no_part_of_it() -> None:
    now, both = Now(), route(endpoint("few-1", FEW), endpoint("many-1", MANY))
    upstreams = Upstreams(now)
    with ExitStack() as stack:
        first, *others = (asyncio.create_task(asked(upstreams, both, stack)) for _ in range(9))
        await asyncio.sleep(0)
        for other in others:
            other.cancel()
        assert await first == "few"
        await asyncio.gather(*others, return_exceptions=True)
    assert upstreams._soonest["d"].load.count == 0


async def test_at_a_load_that_is_known_nobody_waits() -> None:
    now, both = Now(), route(endpoint("few-1", FEW), endpoint("many-1", MANY))
    upstreams = Upstreams(now)
    with ExitStack() as stack:
        await asyncio.gather(*(asked(upstreams, both, stack) for _ in range(7)))
        now.at += 20 * HALF_LIFE
        with ExitStack() as one_more:
            await asked(upstreams, both, one_more)
            now.at += 20 * HALF_LIFE
        now.at += HALF_LIFE / 100  # one has ended, and another one comes
        with pytest.raises(StopIteration):
            upstreams.gather(both).send(None)
    same = route(endpoint("a-1", FEW), endpoint("a-2", FEW))
    with pytest.raises(StopIteration):
        upstreams.gather(same).send(None)
