"""Lets one request read a cold beginning that others share, and the others follow when it is read; knows no HTTP.

Engines with a prefix cache take a whole burst in before any block of it can be used again, so that each request of the
burst reads what they have in common. Here the first one reads it, and the others go on at the first token of its
answer: by then what they share is in the cache. Who shares nothing that is cold goes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from types import TracebackType

from llm_os.server.gateway.prefixes import Prefixes

LEAST = 4
"""Blocks that two prompts must share for one to wait: about 256 tokens. A core reads them in some tenths of a second;
for less, the way through one more step of the engine costs as much as is saved."""
LONGEST = 60.0
"""Seconds that a request waits for others at most, of all of them together."""
_HERE = ""


class _Replica:
    """What one replica has read, and who reads there now.

    Args:
        capacity: blocks that its cache holds.
    """

    def __init__(self, capacity: int) -> None:
        self.read = Prefixes(capacity)
        self.readers: dict[int, dict[Turn, None]] = {}
        """Cold block -> who reads it, the first one first."""

    def warm(self, names: Sequence[int]) -> int:
        """Blocks at the beginning that it has read to their end."""
        return self.read.known(names).get(_HERE, 0)

    def ahead(self, names: Sequence[int]) -> Turn | None:
        """Who reads cold blocks of this beginning now, LEAST at least; of several the one that shares most."""
        found, shared = None, 0
        for name in names[self.warm(names) :]:
            readers = self.readers.get(name)
            if not readers:
                break
            found, shared = next(iter(readers)), shared + 1
        return found if shared >= LEAST else None


class Turn:
    """One request at one replica. Entering waits for its turn; it is left at the first byte of the answer.

    Left by an error, nothing counts as read, and one of those who wait goes on in its place.

    Attributes:
        followed: it waited for another to read what both begin with.
    """

    def __init__(self, replica: _Replica | None, names: Sequence[int], clock: Callable[[], float]) -> None:
        self._replica, self._names, self._clock = replica, names, clock
        self._cold: Sequence[int] = ()
        self._over = asyncio.Event()
        self.followed = False

    @property
    def leads(self) -> bool:
        """Others may come to wait for it."""
        return len(self._cold) >= LEAST

    def read(self) -> None:
        """The replica has read the prompt to its end. Idempotent; also called when it is left without an error."""
        if self._replica is not None and not self._over.is_set():
            self._replica.read.add(_HERE, self._names)
        self._end()

    async def __aenter__(self) -> Turn:
        replica = self._replica
        if replica is None:
            return self
        until: float | None = None
        while (ahead := replica.ahead(self._names)) is not None:
            now = self._clock()
            until = now + LONGEST if until is None else until
            if now >= until:
                break
            self.followed = True
            try:
                async with asyncio.timeout(until - now):
                    await ahead._over.wait()
            except TimeoutError:
                break
        self._cold = self._names[replica.warm(self._names) :]
        for name in self._cold:
            replica.readers.setdefault(name, {})[self] = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.read() if kind is None else self._end()

    def _end(self) -> None:
        if self._replica is not None:
            for name in self._cold:
                readers = self._replica.readers[name]
                del readers[self]
                if not readers:
                    del self._replica.readers[name]
        self._cold = ()
        self._over.set()


class Priming:
    """All replicas.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._replicas: dict[str, _Replica] = {}

    def turn(self, replica: str, names: Sequence[int], capacity: int | None) -> Turn:
        """The turn of a prompt of these blocks at a replica.

        Args:
            capacity: blocks that its cache holds; None where requests share nothing there.
        """
        if capacity is None or len(names) < LEAST:
            return Turn(None, (), self._clock)
        found = self._replicas.get(replica)
        if found is None:
            found = self._replicas[replica] = _Replica(capacity)
        return Turn(found, names, self._clock)

    def forget(self, served: Collection[str]) -> None:
        """Drop what is known of replicas that are gone; who waits there goes on as ever."""
        for gone in [replica for replica in self._replicas if replica not in served]:
            del self._replicas[gone]
