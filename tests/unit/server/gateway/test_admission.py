"""Slots, the fair wait for them, and what a key may use."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from llm_os.errors import DeadlineError, OverloadedError, QuotaExceededError
from llm_os.server.gateway.admission import WAITING, Admission, Asker
from llm_os.server.gateway.quotas import Quotas
from llm_os.spec.quotas import Priority, Quota
from llm_os.spec.routing import Endpoint, KeyEntry, Route, RoutingTable


def a_route(name: str = "chat", replicas: int = 1) -> Route:
    endpoints = tuple(Endpoint(attempt=f"{name}-{n}", url=f"unix:/{name}-{n}") for n in range(replicas))
    return Route(
        deployment=name, version="m@1", task="text-generation", engine="fake", endpoints=endpoints, created_at=1
    )


class Desk:
    """An admission with a clock that is set by hand, and requests that end when they are told."""

    def __init__(self, per_replica: int = 1) -> None:
        self.now = 0.0
        self.admission = Admission(per_replica, lambda: self.now)
        self.begun: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, asker: Asker | None = None, *, tokens: float | None = None) -> None:
        """Begin a request; it has its slot, or waits for it, when this returns."""
        self.ends[name] = asyncio.Event()

        async def request() -> None:
            async with self.admission.slot(a_route(), asker or Asker()) as slot:
                self.begun.append(name)
                await self.ends[name].wait()
                slot.tokens = tokens

        self.tasks[name] = asyncio.create_task(request())
        await self.rest()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await self.rest()

    @staticmethod
    async def rest() -> None:
        for _ in range(4):
            await asyncio.sleep(0)


async def test_slots_are_bounded_by_replicas_and_come_back() -> None:
    admission = Admission(2, lambda: 0.0)
    route = a_route(replicas=2)
    async with AsyncExitStack() as busy:
        for _ in range(4):
            slot = await busy.enter_async_context(admission.slot(route, Asker()))
            assert slot.waited == 0
        waiting = [
            asyncio.create_task(busy.enter_async_context(admission.slot(route, Asker()))) for _ in range(4 * WAITING)
        ]
        await Desk.rest()
        assert admission.waiting("chat") == 4 * WAITING
        with pytest.raises(OverloadedError) as caught:
            await busy.enter_async_context(admission.slot(route, Asker()))
        assert caught.value.details["limit"] == 4 + 4 * WAITING
        assert caught.value.details["retry_after"] == 1
        async with admission.slot(a_route("other"), Asker()):
            pass  # one deployment's load is not another's
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    async with admission.slot(route, Asker()):
        assert admission.waiting("chat") == 0


async def test_tenants_take_turns_and_urgent_requests_go_first() -> None:
    desk = Desk()
    await desk.ask("first")
    for name, asker in {
        "a1": Asker("a", estimate=10),
        "a2": Asker("a", estimate=10),
        "b1": Asker("b", estimate=10),
        "now": Asker("a", estimate=10, priority=Priority.INTERACTIVE),
    }.items():
        await desk.ask(name, asker)
    for name in ("first", "now", "a1", "b1", "a2"):
        await desk.end(name)
    assert desk.begun == ["first", "now", "a1", "b1", "a2"]


async def test_what_a_request_took_counts_and_not_what_was_guessed() -> None:
    desk = Desk()
    await desk.ask("a1", Asker("a", estimate=1), tokens=1000)
    await desk.ask("b1", Asker("b", estimate=100), tokens=100)
    await desk.ask("a2", Asker("a", estimate=1), tokens=1)
    await desk.ask("b2", Asker("b", estimate=100), tokens=100)
    for name in ("a1", "b1", "b2", "a2"):
        await desk.end(name)
    assert desk.begun == ["a1", "b1", "b2", "a2"]


async def test_a_caller_who_leaves_while_another_ends_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    pump = Admission._pump

    def cancel_and_pump(self: Admission, line: Any) -> None:
        if desk.begun == ["first"] and desk.ends["first"].is_set():
            desk.tasks["left"].cancel()  # cancelled at once, and still in the queue until it runs
        pump(self, line)

    await desk.ask("first")
    await desk.ask("left")
    await desk.ask("next")
    monkeypatch.setattr(Admission, "_pump", cancel_and_pump)
    await desk.end("first")  # raises, if the turn of the one who left was given to it
    await asyncio.gather(desk.tasks["left"], return_exceptions=True)
    await desk.rest()
    assert desk.begun == ["first", "next"]
    await desk.end("next")
    assert desk.admission._lines["chat"].running == 0
    async with desk.admission.slot(a_route(), Asker()):
        assert desk.admission._lines["chat"].running == 1


async def test_one_tenant_does_not_fill_the_queue_for_all() -> None:
    desk = Desk()
    await desk.ask("first")
    for number in range(WAITING):
        await desk.ask(f"loud{number}", Asker("loud", estimate=10))
    await desk.ask("quiet", Asker("quiet", estimate=10))
    shed = desk.tasks[f"loud{WAITING - 1}"]
    assert isinstance(shed.exception(), OverloadedError)
    assert desk.admission.waiting("chat") == WAITING
    await desk.end("first")
    for name in ("loud0", "quiet"):
        await desk.end(name)
    assert desk.begun[:3] == ["first", "loud0", "quiet"]
    for number in range(1, WAITING - 1):
        await desk.end(f"loud{number}")


async def test_a_request_for_many_answers_takes_as_many_slots() -> None:
    desk = Desk(per_replica=8)
    await desk.ask("many", Asker(answers=256))
    await desk.ask("next")
    assert desk.begun == ["many"]
    await desk.end("many")
    assert desk.begun == ["many", "next"]
    await desk.end("next")
    assert desk.admission._lines["chat"].running == 0


async def test_a_deadline_ends_the_wait() -> None:
    desk = Desk()
    await desk.ask("first")
    with pytest.raises(DeadlineError, match="while the request waited"):
        async with desk.admission.slot(a_route(), Asker(deadline=0.01)):
            pytest.fail("it got a slot")
    assert desk.admission.waiting("chat") == 0
    await desk.end("first")


async def test_a_caller_who_leaves_in_the_moment_of_its_turn_gives_the_slot_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()
    pump = Admission._pump

    def pump_and_cancel(self: Admission, line: Any) -> None:
        pump(self, line)
        if desk.begun == ["first"] and desk.ends["first"].is_set():
            desk.tasks["left"].cancel()  # its turn is set, and it has not run since

    monkeypatch.setattr(Admission, "_pump", pump_and_cancel)
    await desk.ask("first")
    await desk.ask("left", Asker("a", estimate=7))
    await desk.ask("next", Asker("b", estimate=7))
    await desk.end("first")
    await asyncio.gather(desk.tasks["left"], return_exceptions=True)
    await desk.rest()
    assert desk.begun == ["first", "next"]
    await desk.end("next")


async def test_the_wait_that_is_advised_follows_what_requests_took() -> None:
    desk = Desk()
    await desk.ask("slow")
    desk.now = 12.0
    await desk.end("slow")
    for number in range(1 + WAITING):
        await desk.ask(str(number))
    with pytest.raises(OverloadedError) as caught:
        async with desk.admission.slot(a_route(), Asker()):
            pytest.fail("it got in")
    assert caught.value.details["retry_after"] == 12
    for number in range(1 + WAITING):
        await desk.end(str(number))


async def test_more_replicas_take_in_those_who_wait() -> None:
    desk = Desk()
    await desk.ask("one")
    await desk.ask("two")
    desk.admission.changed(RoutingTable(version=2, routes=(a_route(replicas=3), a_route("other"))))
    await desk.rest()
    assert desk.begun == ["one", "two"]
    for name in ("one", "two"):
        await desk.end(name)
    desk.admission.forget(set())
    assert not desk.admission._lines


def a_key(**quota: int) -> KeyEntry:
    return KeyEntry(id="key-1", sha256="0" * 64, role="user", name="anna", quota=Quota(**quota))  # type: ignore[arg-type]


def refused(quotas: Quotas, entry: KeyEntry, estimate: float = 0.0) -> dict[str, object]:
    with pytest.raises(QuotaExceededError, match="'anna'") as caught:
        quotas.admit(entry, estimate)
    return caught.value.details


def test_requests_in_a_minute_and_the_truth_about_the_next() -> None:
    now = [0.0]
    quotas, entry = Quotas(lambda: now[0]), a_key(requests_per_minute=3)
    for _ in range(3):
        quotas.admit(entry, 0).settle(0, now[0])
    assert refused(quotas, entry) == {"retry_after": 20, "quota": "requests_per_minute", "limit": 3}
    now[0] = 19.9
    refused(quotas, entry)
    now[0] = 20.0
    quotas.admit(entry, 0)
    refused(quotas, entry)


def test_tokens_are_reserved_by_estimate_and_settled_by_use() -> None:
    now = [0.0]
    quotas, entry = Quotas(lambda: now[0]), a_key(tokens_per_minute=600)
    use = quotas.admit(entry, 500)
    assert refused(quotas, entry, 200)["retry_after"] == 10
    use.settle(50, now[0])
    quotas.admit(entry, 200).settle(1200, now[0])  # an answer was longer than thought: in debt by 650
    assert refused(quotas, entry, 100)["retry_after"] == 75
    now[0] = 75.0
    quotas.admit(entry, 100)


def test_a_request_larger_than_a_whole_minute_passes_when_nothing_else_was_used() -> None:
    now = [0.0]
    quotas, entry = Quotas(lambda: now[0]), a_key(tokens_per_minute=100)
    quotas.admit(entry, 5000).settle(5000, now[0])
    assert refused(quotas, entry, 5000)["retry_after"] == 3000


def test_the_longest_wait_is_told() -> None:
    quotas, entry = Quotas(lambda: 0.0), a_key(requests_per_minute=60, tokens_per_minute=60)
    for _ in range(60):
        quotas.admit(entry, 1)
    assert refused(quotas, entry, 50) == {"retry_after": 50, "quota": "tokens_per_minute", "limit": 60}


def test_requests_at_once() -> None:
    quotas, entry = Quotas(lambda: 0.0), a_key(concurrent=1)
    use = quotas.admit(entry, 10)
    assert refused(quotas, entry)["quota"] == "concurrent"
    use.settle(10, 0.0)
    quotas.admit(entry, 10).settle(10, 0.0)


def test_a_changed_quota_holds_at_once_and_a_gone_key_is_forgotten() -> None:
    quotas = Quotas(lambda: 0.0)
    quotas.admit(a_key(requests_per_minute=1), 0).settle(0, 0.0)
    refused(quotas, a_key(requests_per_minute=1))
    quotas.admit(a_key(requests_per_minute=2), 0).settle(0, 0.0)
    quotas.forget(set())
    assert not quotas._accounts
