"""Whose turn it is: classes, shares, and the bound that `fairness.py` promises, for any run of requests."""

import heapq
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.server.gateway.fairness import EVERY, PATIENCE, FairQueue, Place, place_of
from llm_os.spec.quotas import Priority

STANDARD = Priority.STANDARD
A, B, LATE = (place_of(name, STANDARD) for name in ("a", "b", "late"))


def filled(queue: FairQueue[str], *items: tuple[str, Priority, float]) -> None:
    """Items named after their tenant and place."""
    for number, (tenant, priority, since) in enumerate(items):
        queue.enter(place_of(tenant, priority))
        queue.push(place_of(tenant, priority), f"{tenant}{number}", since)


def test_the_tenant_served_least_is_next_and_its_requests_keep_their_order() -> None:
    queue: FairQueue[str] = FairQueue()
    filled(queue, ("a", STANDARD, 0), ("a", STANDARD, 1), ("a", STANDARD, 2), ("b", STANDARD, 3))
    order = []
    while len(queue):
        order.append(queue.pop(4))
        queue.begin(place_of(order[-1][0], STANDARD), 10)
    assert order == ["a0", "b3", "a1", "a2"]


def test_classes_go_before_shares_but_nobody_waits_for_ever() -> None:
    queue: FairQueue[str] = FairQueue()
    filled(queue, ("a", Priority.BATCH, 0), ("b", Priority.INTERACTIVE, 1), ("c", STANDARD, 0.5))
    assert [queue.pop(2), queue.pop(2), queue.pop(2)] == ["b1", "c2", "a0"]
    filled(queue, ("a", Priority.BATCH, 0), *(("b", Priority.INTERACTIVE, PATIENCE),) * 8)
    order = [queue.pop(PATIENCE) for _ in range(9)]
    assert order.index("a0") < EVERY  # one turn of four is for those who have waited long
    assert order[-1] == "b8"


def test_who_was_away_saves_no_turns_up() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.enter(A)
    for _ in range(10):
        queue.begin(A, 100)
    queue.enter(LATE)
    assert queue.counter(LATE) == 900  # where the one served last began
    queue.leave(LATE)
    for _ in range(10):
        queue.begin(A, 100)
    queue.enter(LATE)
    assert queue.counter(LATE) == 1900


def test_what_was_served_in_one_class_makes_nobody_wait_in_another() -> None:
    queue: FairQueue[str] = FairQueue()
    urgent = place_of("a", Priority.INTERACTIVE)
    queue.enter(urgent)
    queue.begin(urgent, 10**6)
    queue.begin(urgent, 1)
    filled(queue, ("b", STANDARD, 0), ("c", STANDARD, 1))
    assert queue.counter(place_of("c", STANDARD)) == 0


def test_a_caller_who_leaves_is_taken_out() -> None:
    queue: FairQueue[str] = FairQueue()
    filled(queue, ("a", STANDARD, 0), ("b", STANDARD, 1))
    assert queue.discard(A, queue._lines[A][0].item)
    assert not queue.discard(A, "never there")
    assert (len(queue), queue.pop(2)) == (1, "b1")
    with pytest.raises(IndexError):
        queue.pop(2)


def test_a_full_queue_makes_room_for_whoever_has_less_in_it() -> None:
    queue: FairQueue[str] = FairQueue()
    filled(queue, *(("a", STANDARD, number) for number in range(3)))
    assert queue.shed(A) is None
    assert queue.shed(place_of("b", Priority.BATCH)) is None
    assert queue.shed(B) == "a2"
    filled(queue, ("b", STANDARD, 5))
    assert queue.shed(B) is None  # one of two against one: nobody gains
    assert queue.shed(place_of("b", Priority.INTERACTIVE)) == "a1"


@dataclass(slots=True)
class Run:
    """Requests of two tenants that always have something waiting, on `slots` servers, in virtual time."""

    slots: int
    shares: tuple[float, float]
    queue: FairQueue[tuple[int, float, float]] = field(default_factory=FairQueue)
    served: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def play(self, costs: list[tuple[float, float]]) -> float:
        """Serve requests of (estimate, true cost); the widest gap of what was served, by share."""
        for number, (estimate, cost) in enumerate(costs):
            self.queue.enter(self._place(number % 2))
            self.queue.push(self._place(number % 2), (number % 2, estimate, cost), 0.0)
        running: list[tuple[float, int, int, float, float]] = []
        now, widest, count = 0.0, 0.0, 0
        while self._both_wait():
            while len(running) < self.slots and self._both_wait():
                tenant, estimate, cost = self.queue.pop(now)
                self.queue.begin(self._place(tenant), estimate / self.shares[tenant])
                heapq.heappush(running, (now + cost, count, tenant, estimate, cost))
                count += 1
            now, _, tenant, estimate, cost = heapq.heappop(running)
            self.queue.settle(self._place(tenant), (cost - estimate) / self.shares[tenant])
            self.served[tenant] += cost / self.shares[tenant]
            widest = max(widest, abs(self.served[0] - self.served[1]))
        return widest

    def _both_wait(self) -> bool:
        return len(self.queue._lines) == 2

    @staticmethod
    def _place(tenant: int) -> Place:
        return place_of(str(tenant), STANDARD)


@given(
    st.lists(st.tuples(st.floats(1, 50), st.floats(1, 50)), min_size=2, max_size=200),
    st.integers(1, 8),
    st.tuples(st.sampled_from([1.0, 2.0, 4.0]), st.sampled_from([1.0, 3.0])),
)
def test_two_busy_tenants_are_never_further_apart_than_the_bound(
    costs: list[tuple[float, float]], slots: int, shares: tuple[float, float]
) -> None:
    largest = max(max(pair) for pair in costs) / min(shares)
    widest = Run(slots, shares).play(costs)
    assert widest <= (2 * slots + 1) * largest + 1e-6


def test_long_runs_are_served_by_their_shares() -> None:
    run = Run(4, (3.0, 1.0))
    run.play([(10.0, 10.0)] * 4000)
    assert run.served[0] * 3.0 / (run.served[1] * 1.0) == pytest.approx(3.0, rel=0.02)


def test_accounts_of_those_who_are_gone_are_forgotten() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.enter(A)  # so that it is never empty
    for number in range(1000):
        one = place_of(str(number), STANDARD)
        queue.enter(one)
        queue.begin(one, 5)
        queue.leave(one)
    queue.begin(A, 10)
    queue.begin(A, 10)  # now nobody who is gone has had more
    assert set(queue._accounts) == {A}
    queue.leave(A)
    assert not queue._accounts
    assert not queue._floors
