"""When a process is kept ready: after a start of a task that loads much, while there is room, and not for ever."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llm_os.kernel.attempts import GATEWAY, GATEWAY_PLACEMENT
from llm_os.kernel.spares import AFTER, AGAIN, MEMORY, STEADY, Spares, Standby
from llm_os.spec.attempts import AttemptSpec
from llm_os.spec.jobs import Attempt, AttemptState

STAYS = 100.0


class Desk:
    """A policy beside a clock that is set by hand and a launcher that writes down what it was asked."""

    def __init__(self, spare_for: float = STAYS) -> None:
        self.now, self.free, self.asked = 1000.0, 10 * MEMORY, list[str | None]()
        self.state: Any = SimpleNamespace(
            clock=SimpleNamespace(now=lambda: self.now),
            settings=SimpleNamespace(spare_for=spare_for),
            launcher=SimpleNamespace(prepare=self._prepare),
            stopping=False,
        )
        self.spares = Spares(self.state)

    async def _prepare(self, like: AttemptSpec | None) -> None:
        self.asked.append(like and like.attempt)

    def start(self, name: str, *, preload: tuple[str, ...] = ("torch",)) -> None:
        self.spares.started(
            AttemptSpec(
                attempt=name, owner="job", token=1, argv=("x",), env={}, threads=1, cwd="/", task=None, preload=preload
            )
        )

    async def tick(self, seconds: float, *live: str) -> list[str | None]:
        """What the launcher was asked after so much more time."""
        self.now += seconds
        self.asked.clear()
        await self.spares.tick(set(live), lambda: self.free)
        return self.asked


async def test_one_is_begun_when_the_attempt_has_loaded_its_own() -> None:
    desk = Desk()
    assert await desk.tick(50) == []
    desk.start("a")
    assert await desk.tick(AFTER / 2, "a") == []
    assert await desk.tick(AFTER, "a") == ["a"]
    assert await desk.tick(AFTER, "a") == []


async def test_a_new_attempt_uses_it_up_and_gets_the_next_one_begun() -> None:
    desk = Desk()
    desk.start("a")
    await desk.tick(AFTER, "a")
    desk.start("b")
    assert await desk.tick(1, "b") == []
    assert await desk.tick(AFTER, "b") == ["b"]


async def test_it_stays_for_a_time_after_the_end() -> None:
    desk = Desk()
    desk.start("a")
    assert await desk.tick(500, "a") == ["a"]
    assert await desk.tick(1) == []
    assert await desk.tick(STAYS - 2) == []
    assert await desk.tick(2) == [None]
    assert await desk.tick(1000) == []


async def test_one_is_begun_after_an_attempt_that_ended_early() -> None:
    desk = Desk()
    desk.start("a")
    assert await desk.tick(1) == ["a"]


async def test_it_gives_way_where_memory_is_needed_and_comes_back() -> None:
    desk = Desk()
    desk.start("a")
    await desk.tick(AFTER, "a")
    desk.free = MEMORY - 1
    assert await desk.tick(1, "a") == [None]
    assert await desk.tick(1, "a") == []
    desk.free = MEMORY
    assert await desk.tick(1, "a") == ["a"]


@pytest.mark.parametrize("how", ["switched off", "nothing to load", "ending"])
async def test_none_is_kept(how: str) -> None:
    desk = Desk(0.0 if how == "switched off" else STAYS)
    desk.start("a", preload=() if how == "nothing to load" else ("torch",))
    desk.state.stopping = how == "ending"
    assert await desk.tick(2 * AFTER, "a") == []


class Watchroom(Desk):
    """The policy about the gateway that stands by."""

    def __init__(self, spare_for: float = STAYS) -> None:
        super().__init__(spare_for)
        self.standby = Standby(self.state)

    async def _prepare(self, like: AttemptSpec | None, role: str = "task") -> None:
        assert role == GATEWAY
        await super()._prepare(like)

    async def look(self, seconds: float, *live: Attempt, stays: bool = True) -> list[str | None]:
        """What the launcher was asked after so much more time."""
        self.now += seconds
        self.asked.clear()
        await self.standby.tick(live, stays, like, lambda: self.free)
        return self.asked


def gateway(name: str, state: AttemptState = AttemptState.READY) -> Attempt:
    return Attempt(
        id=name,
        owner_kind="system",
        owner=GATEWAY,
        number=1,
        token=1,
        state=state,
        placement=GATEWAY_PLACEMENT,
        created_at=0.0,
    )


def like(attempt: Attempt) -> AttemptSpec:
    return AttemptSpec(attempt=attempt.id, owner=GATEWAY, token=1, argv=("x",), env={}, threads=1, cwd="/")


async def test_a_gateway_that_answers_gets_one_that_stands_by() -> None:
    room = Watchroom()
    assert await room.look(0, gateway("a", AttemptState.RUNNING)) == []
    assert await room.look(10, gateway("a")) == []
    assert await room.look(STEADY, gateway("a")) == ["a"]
    assert await room.look(1, gateway("a")) == []


async def test_the_one_that_took_over_gets_another() -> None:
    room = Watchroom()
    await room.look(0, gateway("a"))
    await room.look(STEADY, gateway("a"))
    assert await room.look(1, gateway("b", AttemptState.PLACED)) == []  # it is just being given away
    assert await room.look(1, gateway("b")) == []
    assert await room.look(STEADY, gateway("b")) == ["b"]


async def test_it_is_looked_after_now_and_then() -> None:
    room = Watchroom()
    await room.look(0, gateway("a"))
    await room.look(STEADY, gateway("a"))
    assert await room.look(AGAIN - 1, gateway("a")) == []
    assert await room.look(1, gateway("a")) == ["a"]


@pytest.mark.parametrize("why", ["memory", "end", "sessions alone"])
async def test_it_goes_when_it_is_not_wanted_any_more(why: str) -> None:
    room = Watchroom()
    await room.look(0, gateway("a"))
    await room.look(STEADY, gateway("a"))
    if why == "memory":
        room.free = GATEWAY_PLACEMENT.memory - 1
    room.state.stopping = why == "end"
    live = () if why == "end" else (gateway("a"),)
    stays = why != "sessions alone"
    assert await room.look(1, *live, stays=stays) == [None]
    assert await room.look(1, *live, stays=stays) == []


@pytest.mark.parametrize("why", ["switched off", "sessions alone"])
async def test_nobody_stands_by(why: str) -> None:
    room = Watchroom(0.0 if why == "switched off" else STAYS)
    await room.look(0, gateway("a"), stays=why != "sessions alone")
    assert await room.look(2 * STEADY, gateway("a"), stays=why != "sessions alone") == []
