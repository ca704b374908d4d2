"""Which replica has read which beginnings of prompts lately, as far as that can be known from outside; knows no HTTP.

A prompt is cut into blocks of text, and each block is named by a hash of all text up to its end. So two prompts share
the names of the blocks that they begin with, and nobody here needs a tokenizer. What a replica holds is believed to be
what it was sent last, up to the size of its cache: engines drop what was used longest ago, the ends of prompts first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BLOCK = 256
"""Characters of a block."""
TOKEN = 4
"""Characters of a token, about."""
LONGEST = 2**18
"""Characters of a prompt that are looked at."""


def blocks(text: str, reader: str = "") -> tuple[int, ...]:
    """Names of the whole blocks of a prompt.

    Args:
        reader: who reads it, if it is another one than the model itself: an adapter's keys and values are its own.
    """
    state, names = hashlib.blake2b(digest_size=8, key=hashlib.blake2b(reader.encode()).digest() if reader else b""), []
    for begin in range(0, min(len(text), LONGEST) - BLOCK + 1, BLOCK):
        state.update(text[begin : begin + BLOCK].encode("utf-8", "surrogatepass"))
        names.append(int.from_bytes(state.digest(), "big"))
    return tuple(names)


def prompt_of(value: Mapping[str, Any]) -> str:
    """All that a chat or completion is asked, in an order in which the same beginnings are the same texts."""
    if isinstance(prompt := value.get("prompt"), str):
        return prompt
    messages = value.get("messages")
    parts = [repr(value["tools"])] if value.get("tools") else []
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            content = message.get("content")
            parts.append(f"\x1e{message.get('role')}\x1f{content if isinstance(content, str) else repr(content)}")
    return "".join(parts)


class Prefixes:
    """Beliefs about up to some dozens of replicas.

    Args:
        capacity: blocks that one replica holds.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.everyone = 0
        """The bits of all replicas of which something is believed."""
        self.sizes: dict[str, int] = {}
        """Blocks that single replicas hold, where it is another number."""
        self._bits: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._held: dict[str, OrderedDict[int, None]] = {}
        self._where: dict[int, int] = {}
        """Block -> the bits of the replicas that hold it."""

    def known(self, names: Sequence[int]) -> dict[str, int]:
        """Blocks at the beginning that each replica holds; only replicas that hold any."""
        return {replica: depth for depth, mask in self.levels(names) for replica in self.named(mask)}

    def levels(self, names: Sequence[int]) -> list[tuple[int, int]]:
        """Who holds how much of a beginning: pairs of a number of blocks and the bits of who holds so many or more.

        From few blocks to many: each pair has fewer bits than the one before.
        """
        found: list[tuple[int, int]] = []
        where, mask, depth = self._where, self.everyone, 0
        for name in names:
            still = mask & where.get(name, 0)
            if still != mask:
                if depth and mask:
                    found.append((depth, mask))
                if not still:
                    return found
                mask = still
            depth += 1
        if depth and mask:
            found.append((depth, mask))
        return found

    def named(self, mask: int) -> list[str]:
        """Whose bits these are."""
        found, names = [], self._names
        while mask:
            lowest = mask & -mask
            found.append(names[lowest])
            mask ^= lowest
        return found

    def add(self, replica: str, names: Sequence[int]) -> None:
        """The replica is sent these blocks."""
        bit, held, where = self._bit(replica), self._held[replica], self._where
        for name in reversed(names):  # so that the end goes first when room is needed
            if name in held:
                held.move_to_end(name)
            else:
                held[name] = None
                where[name] = where.get(name, 0) | bit
        size = self.sizes.get(replica, self.capacity)
        while len(held) > size:
            self._drop(held.popitem(last=False)[0], bit)

    def forget(self, replicas: Iterable[str]) -> None:
        """These are gone, and what they held with them."""
        for replica in replicas:
            bit = self._bits.pop(replica, 0)
            self.everyone &= ~bit
            self._names.pop(bit, None)
            self.sizes.pop(replica, None)
            for name in self._held.pop(replica, ()):
                self._drop(name, bit)

    def replicas(self) -> frozenset[str]:
        """Of which something is known."""
        return frozenset(self._bits) | self.sizes.keys()

    def _bit(self, replica: str) -> int:
        found = self._bits.get(replica)
        if found is None:
            found = ~self.everyone & (self.everyone + 1)  # the lowest that is free
            self.everyone |= found
            self._bits[replica], self._names[found], self._held[replica] = found, replica, OrderedDict()
        return found

    def _drop(self, name: int, bit: int) -> None:
        left = self._where[name] & ~bit
        if left:
            self._where[name] = left
        else:
            del self._where[name]
