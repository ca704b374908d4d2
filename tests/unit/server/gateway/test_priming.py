"""Who waits for whom when prompts begin alike: never for too little, never for ever, never two who read the same."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.server.gateway.prefixes import BLOCK, blocks
from llm_os.server.gateway.priming import LEAST, LONGEST, Priming, Turn
from llm_os.server.gateway.upstream import Upstreams
from llm_os.spec.routing import Endpoint, Route, RoutingTable
from llm_os.testing.clock import VirtualLoop, virtual_time

CAPACITY = 1000


class FailedError(Exception):
    """The replica broke off."""


@dataclass(eq=False)
class Asked:
    """A request at a replica: it is sent at its turn, and ends as it is told."""

    names: tuple[int, ...]
    turn: Turn
    sent: bool = False
    sent_at: float = -1.0
    outcome: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def run(self) -> None:
        async with self.turn:
            self.sent, self.sent_at = True, asyncio.get_running_loop().time()
            await self.outcome


class Replica:
    """Requests at one replica of one gateway."""

    def __init__(self, capacity: int | None = CAPACITY) -> None:
        self.priming = Priming(asyncio.get_running_loop().time)
        self.capacity = capacity
        self.tasks: dict[Asked, asyncio.Task[None]] = {}

    async def ask(self, names: tuple[int, ...], replica: str = "r") -> Asked:
        asked = Asked(names, self.priming.turn(replica, names, self.capacity))
        self.tasks[asked] = asyncio.create_task(asked.run())
        await settled()
        return asked

    async def end(self, asked: Asked, how: str = "read") -> None:
        task = self.tasks.pop(asked)
        if how == "leaves":
            task.cancel()
        elif how == "fails":
            asked.outcome.set_exception(FailedError())
        elif how == "is read early":
            asked.turn.read()
            await settled()
            asked.outcome.set_exception(FailedError())
        else:
            asked.outcome.set_result(None)
        with suppress(FailedError, asyncio.CancelledError):
            await task
        await settled()

    def running(self) -> list[Asked]:
        return [asked for asked in self.tasks if asked.sent]

    def waiting(self) -> list[Asked]:
        return [asked for asked in self.tasks if not asked.sent]


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def chain(*steps: int) -> tuple[int, ...]:
    """Blocks whose names tell the way to them, as hashes do."""
    return tuple(hash(steps[: end + 1]) for end in range(len(steps)))


COMMON = (7,) * LEAST


async def test_one_reads_what_all_begin_with_and_the_others_follow_at_once() -> None:
    replica = Replica()
    burst = [await replica.ask(chain(*COMMON, n)) for n in range(8)]
    assert [asked.sent for asked in burst] == [True, *[False] * 7]
    assert burst[0].turn.leads
    await replica.end(burst[0])
    assert all(asked.sent and asked.turn.followed for asked in burst[1:])
    assert not burst[0].turn.followed
    late = await replica.ask(chain(*COMMON, 9))
    assert (late.sent, late.turn.followed) == (True, False)  # it is warm by now


async def test_whoever_shares_too_little_or_nothing_goes_at_once() -> None:
    replica = Replica()
    asked = [
        await replica.ask(names)
        for names in (chain(*COMMON, 1), chain(*COMMON[1:], 2, 2, 2), chain(9, *COMMON), chain(*COMMON[1:]), ())
    ]
    assert all(one.sent and not one.turn.followed for one in asked)
    other = await replica.ask(chain(*COMMON, 1), replica="another")
    assert other.sent  # another replica's cache is no help


async def test_where_engines_share_nothing_nobody_waits() -> None:
    replica = Replica(capacity=None)
    assert all([(await replica.ask(chain(*COMMON, n))).sent for n in range(3)])


async def test_those_who_follow_and_share_more_take_turns_again() -> None:
    replica = Replica()
    first = await replica.ask(chain(*COMMON, 0))
    pair = [await replica.ask(chain(*COMMON, *(8,) * LEAST, n)) for n in range(2)]
    await replica.end(first)
    assert [asked.sent for asked in pair] == [True, False]
    await replica.end(pair[0])
    assert pair[1].sent


@pytest.mark.parametrize("how", ["fails", "leaves"])
async def test_when_the_first_one_fails_one_of_those_who_wait_takes_its_place(how: str) -> None:
    replica = Replica()
    burst = [await replica.ask(chain(*COMMON, n)) for n in range(4)]
    await replica.end(burst[0], how)
    assert [asked.sent for asked in burst[1:]] == [True, False, False]
    await replica.end(burst[1])
    assert [asked.sent for asked in burst[2:]] == [True, True]


async def test_one_who_leaves_the_line_holds_nobody() -> None:
    replica = Replica()
    first, second, third = [await replica.ask(chain(*COMMON, n)) for n in range(3)]
    await replica.end(second, "leaves")
    await replica.end(first)
    assert third.sent


def test_nobody_waits_longer_than_the_bound_however_many_go_before() -> None:
    async def run() -> list[float]:
        replica = Replica()
        first, second, third = [await replica.ask(chain(*COMMON, n)) for n in range(3)]
        await asyncio.sleep(LONGEST / 2)
        await replica.end(first, "fails")
        fourth = await replica.ask(chain(*COMMON, 3))
        await asyncio.sleep(LONGEST)
        return [asked.sent_at for asked in (first, second, third, fourth)]

    with virtual_time() as loop:
        times = loop.run_until_complete(run())
    # The second one reads, and never ends; the third one's time ends before that of the fourth, which came later.
    assert times == pytest.approx([0, LONGEST / 2, LONGEST, 1.5 * LONGEST])


async def test_what_a_full_cache_has_dropped_is_cold_again() -> None:
    replica = Replica(capacity=LEAST + 1)
    await replica.end(await replica.ask(chain(*COMMON, 0)))
    await replica.end(await replica.ask(chain(*(9,) * (LEAST + 1))))
    assert [(await replica.ask(chain(*COMMON, n))).sent for n in range(2)] == [True, False]


def test_what_is_known_of_a_replica_that_is_gone_is_forgotten() -> None:
    upstreams = Upstreams(lambda: 0.0)
    here = Endpoint(attempt="here", url="unix:/here")
    route = Route(
        deployment="chat", version="m@1", task="t", engine="e", endpoints=(here,), shares_prefixes=True, created_at=1
    )
    names = blocks("x" * (LEAST * BLOCK))

    async def run(route: Route) -> bool:
        async with upstreams.turn(route, here, names) as turn:
            return turn.leads

    assert [asyncio.run(run(route)) for _ in range(2)] == [True, False]  # cold, then read
    upstreams.forget(RoutingTable(version=1, routes=(route,)))
    assert asyncio.run(run(route)) is False
    upstreams.forget(RoutingTable(version=2))
    assert asyncio.run(run(route)) is True
    assert asyncio.run(run(route.model_copy(update={"shares_prefixes": False}))) is False


CHAINS = st.lists(st.integers(0, 1), min_size=1, max_size=LEAST + 4)
STEPS = st.lists(
    st.tuples(
        st.one_of(CHAINS, st.none()),
        st.integers(0, 20),
        st.sampled_from(["read", "read", "fails", "leaves", "is read early"]),
    ),
    max_size=40,
)


class Oracle:
    """What a plain model says of the same requests."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.warm: set[int] = set()
        self.cold: dict[Asked, set[int]] = {}
        """Of each request that was sent: what was cold in its prompt then."""
        self.seen: set[Asked] = set()
        """Who was found waiting before."""

    def check(self) -> None:
        running = [one for one in self.replica.running() if len(one.names) >= LEAST]
        for one in running:
            self.cold.setdefault(one, set(one.names) - self.warm)
        for at, one in enumerate(running):
            for other in running[:at]:
                shared = self.cold[one] & set(other.names) & self.cold[other]
                assert len(shared) < LEAST, "two read the same cold beginning"
        for one in self.replica.waiting():
            # What a third one has read since it began to wait does not send it on earlier.
            warm = self.warm if one not in self.seen else set()
            most = max((len(set(one.names) & self.cold[other] - warm) for other in running), default=0)
            assert most >= LEAST, "it waits for nobody, or for too little"
            self.seen.add(one)


@given(STEPS)
def test_whatever_happens_nobody_waits_for_little_and_no_two_read_the_same(
    steps: list[tuple[list[int] | None, int, str]],
) -> None:
    async def run() -> None:
        replica = Replica()
        oracle = Oracle(replica)
        for steps_of, which, how in steps:
            if steps_of is not None:
                await replica.ask(chain(*steps_of))
            elif how == "leaves" and (there := list(replica.tasks)):
                await replica.end(there[which % len(there)], how)
            elif running := replica.running():
                await ended(oracle, running[which % len(running)], how)
            oracle.check()
        while running := replica.running():
            await ended(oracle, running[0], "fails")
            oracle.check()
        assert not replica.tasks, "somebody waits for nobody"
        assert not any(one.readers for one in replica.priming._replicas.values())

    async def ended(oracle: Oracle, asked: Asked, how: str) -> None:
        if how in ("read", "is read early") and len(asked.names) >= LEAST:
            oracle.warm |= set(asked.names)
        await oracle.replica.end(asked, how)

    loop: VirtualLoop
    with virtual_time() as loop:
        loop.run_until_complete(run())
        assert loop.time() < LONGEST  # nobody went because its time was over
