"""Whose request is next when replicas are busy: classes first, then the tenant served least; knows no clock, no HTTP.

Inside a class every tenant has a virtual counter of the tokens it was served, divided by its share. The tenant with the
lowest counter is next; its requests go in the order in which they came. A tenant that was away starts at the counter
of the tenant served last, so that it can neither save up turns nor be made to wait for what others got before
(Sheng et al., Fairness in Serving Large Language Models, OSDI '24, algorithm 2; the start is that of start-time fair
queueing, Goyal et al. 1996).

A request is charged by an estimate when it leaves the queue, and settled when its tokens are known. So what two tenants
of a class that always have something waiting were served is never further apart than (2n + 1) times the largest
request, by share, where n is the number of requests that are served at once (the test plays random runs against it).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from llm_os.spec.quotas import Priority

Item = TypeVar("Item")

PATIENCE = 60.0
"""Seconds of waiting after which a request may go before a more urgent class: no class waits for ever."""
EVERY = 4
"""One turn of so many is theirs."""


class Place(NamedTuple):
    """Where a request stands: the rank of its class (0 is the most urgent), and its tenant."""

    rank: int
    tenant: str


def place_of(tenant: str, priority: Priority) -> Place:
    """Of a request of this tenant in this class."""
    return Place(priority.rank, tenant)


@dataclass(slots=True)
class Account:
    """What a tenant got in a class.

    Attributes:
        counter: tokens served, divided by the share.
        open: its requests that wait or run; without any it is forgotten once others have caught up.
    """

    counter: float = 0.0
    open: int = 0


@dataclass(slots=True)
class _Waiting(Generic[Item]):
    item: Item
    since: float


@dataclass(slots=True)
class FairQueue(Generic[Item]):
    """Waiting requests of one deployment, and the accounts of their tenants."""

    _lines: dict[Place, deque[_Waiting[Item]]] = field(default_factory=dict)
    _accounts: dict[Place, Account] = field(default_factory=dict)
    _floors: dict[int, float] = field(default_factory=dict)
    """By rank: the counter of the tenant served last, as it was before."""
    _size: int = 0
    _open: int = 0
    _turns: int = 0

    def __len__(self) -> int:
        return self._size

    def enter(self, place: Place) -> None:
        """A request is there, waiting or not; `leave` is its end."""
        floor = self._floors.get(place.rank, 0.0)
        account = self._accounts.get(place)
        if account is None:
            account = self._accounts[place] = Account(floor)
        elif not account.open:
            account.counter = max(account.counter, floor)
        account.open += 1
        self._open += 1

    def leave(self, place: Place) -> None:
        """The request has ended."""
        account = self._accounts[place]
        account.open -= 1
        self._open -= 1
        if not self._open:  # nobody is there: the accounts begin anew
            self._accounts.clear()
            self._floors.clear()
        elif not account.open and account.counter <= self._floors.get(place.rank, 0.0):
            del self._accounts[place]

    def begin(self, place: Place, charge: float) -> None:
        """It is served now: `charge` are its tokens as estimated, divided by the share."""
        account = self._accounts[place]
        floor = self._floors[place.rank] = max(self._floors.get(place.rank, 0.0), account.counter)
        account.counter += charge
        for other, its in list(self._accounts.items()):  # those who are gone, and whom the others have caught up with
            if not its.open and other.rank == place.rank and its.counter <= floor:
                del self._accounts[other]

    def settle(self, place: Place, difference: float) -> None:
        """What it took was this much more than was charged; less, if negative."""
        self._accounts[place].counter += difference

    def counter(self, place: Place) -> float:
        """Tokens of the tenant in the class by its share, from where it started."""
        account = self._accounts.get(place)
        return self._floors.get(place.rank, 0.0) if account is None else account.counter

    def push(self, place: Place, item: Item, now: float) -> None:
        """Let a request that has entered wait."""
        self._lines.setdefault(place, deque()).append(_Waiting(item, now))
        self._size += 1

    def pop(self, now: float) -> Item:
        """The request that is next. Raises IndexError when none waits."""
        if not self._lines:
            raise IndexError("nobody waits")
        self._turns += 1
        best = min(place.rank for place in self._lines)
        if self._turns % EVERY == 0:
            long = [p for p, line in self._lines.items() if p.rank > best and now - line[0].since >= PATIENCE]
            if long:
                return self._taken(min(long, key=lambda one: self._lines[one][0].since), 0)
        first = (place for place in self._lines if place.rank == best)
        return self._taken(min(first, key=lambda one: (self.counter(one), self._lines[one][0].since)), 0)

    def shed(self, place: Place) -> Item | None:
        """The newest request that must go so that one of `place` can wait; None where that one is no better placed.

        It is of a less urgent class, or of a tenant of the same class that has more waiting.
        """
        worst = max(self._lines, key=lambda one: (one.rank, len(self._lines[one])), default=None)
        if worst is None or worst.rank < place.rank:
            return None
        if worst.rank == place.rank and len(self._lines[worst]) <= len(self._lines.get(place, ())) + 1:
            return None
        return self._taken(worst, -1)

    def discard(self, place: Place, item: Item) -> bool:
        """Take out a request whose caller waits no more. False when it is not there."""
        for index, waiting in enumerate(self._lines.get(place, ())):
            if waiting.item is item:
                self._taken(place, index)
                return True
        return False

    def _taken(self, place: Place, index: int) -> Item:
        line = self._lines[place]
        waiting = line[index]
        del line[index]
        if not line:
            del self._lines[place]
        self._size -= 1
        return waiting.item
