"""Whose request is next when replicas are busy: classes first, then the tenant served least; knows no clock, no HTTP.

Inside a class every tenant has a virtual counter of the tokens it was served, divided by its share. The tenant with the
lowest counter is next; its requests go in the order in which they came. A tenant that was away starts at the counter
of the tenant served last, so that it can neither save up turns nor be made to wait for what others got before
(Sheng et al., Fairness in Serving Large Language Models, OSDI '24, algorithm 2; the start is that of start-time fair
queueing, Goyal et al. 1996).

A request is charged by an estimate when it leaves the queue, and settled when its tokens are known. So the counters of
two tenants that always have something waiting are never further apart than (n + 1) times the largest charge, where n is
the number of requests that are served at once (`tests/unit/server/gateway/test_fairness.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from llm_os.spec.quotas import Priority

Item = TypeVar("Item")

PATIENCE = 60.0
"""Seconds after which a waiting request counts as one class more urgent: no class waits for ever."""


@dataclass(slots=True)
class Tenant:
    """A tenant's account at one deployment.

    Attributes:
        counter: tokens served, divided by the share.
        open: requests of it that wait or run; without any it is forgotten once others have caught up.
    """

    counter: float = 0.0
    open: int = 0


@dataclass(slots=True)
class _Waiting(Generic[Item]):
    item: Item
    since: float
    rank: int


@dataclass(slots=True)
class FairQueue(Generic[Item]):
    """Waiting requests of one deployment, and the accounts of their tenants."""

    _lines: dict[tuple[int, str], deque[_Waiting[Item]]] = field(default_factory=dict)
    _tenants: dict[str, Tenant] = field(default_factory=dict)
    _floor: float = 0.0
    _size: int = 0

    def __len__(self) -> int:
        return self._size

    def enter(self, tenant: str) -> None:
        """A request of this tenant is there, waiting or not; `leave` is its end."""
        account = self._tenants.get(tenant)
        if account is None:
            account = self._tenants[tenant] = Tenant(self._floor)
        elif not account.open:
            account.counter = max(account.counter, self._floor)
        account.open += 1

    def leave(self, tenant: str) -> None:
        """The request has ended."""
        account = self._tenants[tenant]
        account.open -= 1
        if not account.open and account.counter <= self._floor:
            del self._tenants[tenant]

    def begin(self, tenant: str, charge: float) -> None:
        """It is served now: `charge` are its tokens as estimated, divided by the share."""
        account = self._tenants[tenant]
        self._floor = max(self._floor, account.counter)
        account.counter += charge
        self._forget()

    def settle(self, tenant: str, difference: float) -> None:
        """What it took was this much more than was charged; less, if negative."""
        self._tenants[tenant].counter += difference

    def counter(self, tenant: str) -> float:
        """Tokens of the tenant by its share, from where it started."""
        account = self._tenants.get(tenant)
        return self._floor if account is None else account.counter

    def push(self, tenant: str, priority: Priority, item: Item, now: float) -> None:
        """Let a request of a tenant that has entered wait."""
        rank = priority.rank
        self._lines.setdefault((rank, tenant), deque()).append(_Waiting(item, now, rank))
        self._size += 1

    def pop(self, now: float) -> Item:
        """The request that is next. Raises IndexError when none waits."""
        best = min(self._heads(), key=lambda head: head[0](now), default=None)
        if best is None:
            raise IndexError("nobody waits")
        line = self._lines[best[1]]
        taken = line.popleft()
        if not line:
            del self._lines[best[1]]
        self._size -= 1
        return taken.item

    def discard(self, tenant: str, priority: Priority, item: Item) -> bool:
        """Take out a request whose caller waits no more. False when it is not there."""
        place = (priority.rank, tenant)
        line = self._lines.get(place, deque())
        for waiting in line:
            if waiting.item is item:
                line.remove(waiting)
                if not line:
                    del self._lines[place]
                self._size -= 1
                return True
        return False

    def _heads(self) -> Iterator[tuple[_Key, tuple[int, str]]]:
        for place, line in self._lines.items():
            yield _Key(line[0].rank, line[0].since, self.counter(place[1])), place

    def _forget(self) -> None:
        """Accounts of absent tenants that others have caught up with."""
        gone = [name for name, a in self._tenants.items() if not a.open and a.counter <= self._floor]
        for name in gone:
            del self._tenants[name]


@dataclass(frozen=True, slots=True)
class _Key:
    """How urgent a waiting request is at a time: smaller is sooner."""

    rank: int
    since: float
    counter: float

    def __call__(self, now: float) -> tuple[int, float, float]:
        aged = max(0, self.rank - int((now - self.since) // PATIENCE))
        return aged, self.counter, self.since
