"""Knows which beginnings of prompts an engine's cache may have in part of a block; must not know the engine.

For `one_writer`. It cannot ask the engine, so it knows too many rather than too few.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

End = tuple[int, tuple[int, ...]]
"""Where tokens end: a hash of the blocks before that block, and the tokens in it."""


class Part(NamedTuple):
    """Tokens of one block.

    Attributes:
        before: hash of the blocks before it. through: the same, with this one.
        goes_on: whether more tokens follow.
    """

    before: int
    tokens: tuple[int, ...]
    through: int
    goes_on: bool

    @property
    def end(self) -> End:
        return self.before, self.tokens


def parts_of(ids: Sequence[int], block: int) -> list[Part]:
    """These tokens by blocks of so many."""
    parts, before = list[Part](), 0
    for at in range(0, len(ids), block):
        tokens = tuple(ids[at : at + block])
        parts.append(Part(before, tokens, hash((before, tokens)), at + block < len(ids)))
        before = parts[-1].through
    return parts


class Ends:
    """Ends inside a block at which others may go on: of requests under way, and of those that are over.

    The engine takes a whole block rather than a part, of parts the shortest, and nothing behind a block that is lost.
    What was used longest ago is lost first: what was used since something else was is there as long as that. Only of
    blocks that nobody has at the moment is that sure: with one of two equal blocks the engine loses the other's name.

    Args:
        block: tokens of a block.
        blocks: of the cache.
    """

    def __init__(self, block: int, blocks: int) -> None:
        self._block = block
        self._most = 2 * blocks  # no block has more than one end
        self._now = 0
        self._live: dict[End, int] = {}
        self._resting: OrderedDict[End, int] = OrderedDict()
        self._since: dict[End, int] = {}
        self._tails: dict[int, set[tuple[int, ...]]] = {}
        self._full: OrderedDict[int, int] = OrderedDict()
        self._had: dict[int, int] = {}
        self._maybe: OrderedDict[int, None] = OrderedDict()

    def tick(self) -> int:
        """The time, which passes by being asked."""
        self._now += 1
        return self._now

    def of(self, parts: Sequence[Part]) -> dict[End, bool]:
        """The ends from which the engine may let these tokens go on, or at which it may let them end.

        True: if it is there, it is taken, and no longer there when its block is full and something comes behind it.
        """
        found: dict[End, bool] = {}
        reached = self._now  # all blocks so far were used at this time or later
        for part in parts:
            whole = 0 if part.through in self._had else self._full.get(part.through, 0)
            tails = [tail for tail in self._tails.get(part.before, ()) if part.tokens[: len(tail)] == tail]
            for tail in tails:
                end = part.before, tail
                if self._since[end] >= whole:
                    first = part.through not in self._maybe and len(tail) == min(map(len, tails))
                    found[end] = first and part.goes_on and reached >= self._since[end]
            reached = min(reached, whole)
        return found

    def next(self, end: End, token: int) -> End:
        """Where it ends with one token more."""
        if not self.is_inside(end):
            return hash(end), (token,)
        further = end[0], (*end[1], token)
        if not self.is_inside(further):
            self._may_have(hash(further))
        return further

    def is_inside(self, end: End) -> bool:
        """Whether the block has room behind it."""
        return len(end[1]) < self._block

    def add(self, end: End) -> None:
        """A request has it from now on."""
        if self.is_inside(end):
            self._live[end] = self._live.get(end, 0) + 1
            self._known(end)

    def drop(self, end: End) -> None:
        """A request has it no longer: it goes on, and its block is called otherwise."""
        if self.is_inside(end):
            self._live[end] -= 1
            if not self._live[end]:
                del self._live[end]
            self._forget(end)

    def rest(self, end: End) -> None:
        """A request that had it is over: it is there until its block is needed. Of equal ones the engine keeps one."""
        if self.is_inside(end):
            self._resting[end] = self.tick()
            self._resting.move_to_end(end)
            self.drop(end)
            self._known(end)
            if len(self._resting) > self._most:
                self.lose(next(iter(self._resting)), self._now)

    def lose(self, end: End, when: int) -> None:
        """Somebody took at that time what those had left who were over by then."""
        if self._resting.get(end, when) < when:
            del self._resting[end]
            self._forget(end)

    def come(self, parts: Sequence[Part]) -> None:
        """A request with this prompt comes: its whole blocks may be there from now on."""
        for part in parts:
            if len(part.tokens) == self._block:
                self._may_have(part.through)
            if part.goes_on:
                self._had[part.through] = self._had.get(part.through, 0) + 1

    def go(self, parts: Sequence[Part], since: int) -> None:
        """It is over. All blocks of its prompt behind which it goes on are there, and were used at that time or later.

        Of the last one that is not sure: it is called what it was as a part until something comes behind it.

        Args:
            since: when it came; 0: its prompt was not read.
        """
        for part in parts:
            if part.goes_on:
                self._full[part.through] = since
                self._full.move_to_end(part.through)
                self._had[part.through] -= 1
                if not self._had[part.through]:
                    del self._had[part.through]
        while len(self._full) > self._most:
            self._full.popitem(last=False)

    def _may_have(self, through: int) -> None:
        self._maybe[through] = None
        self._maybe.move_to_end(through)
        if len(self._maybe) > 2 * self._most:
            self._maybe.popitem(last=False)

    def _known(self, end: End) -> None:
        self._since[end] = self.tick()
        self._tails.setdefault(end[0], set()).add(end[1])

    def _forget(self, end: End) -> None:
        if end in self._live or end in self._resting or end not in self._since:
            return
        del self._since[end]
        tails = self._tails[end[0]]
        tails.discard(end[1])
        if not tails:
            del self._tails[end[0]]
