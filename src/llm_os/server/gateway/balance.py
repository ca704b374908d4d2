"""Which replica answers: the one with the least to read, where that keeps the load even; knows no clock, no HTTP.

The cost of a replica is the tokens of the prompt that it has not read lately, plus a share of what it was given in the
last minutes, and of what is under way there. The shares are small: a conversation that is torn from its replica costs
its whole prompt, and an uneven minute is evened out by the requests that nobody knows (`benchmarks/routing` shows what
other shares do). A request without a prompt goes where the least is under way.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from llm_os.server.gateway.prefixes import Prefixes

HALF_LIFE = 600.0
"""Seconds after which work counts half in what a replica was given lately."""
LATELY = 0.01
"""Weight of a token of work that a replica was given lately, beside one that it has still to read."""
NOW = 0.03
"""Weight of a token of work that is under way."""
_SPAN = 20 * HALF_LIFE


@dataclass(frozen=True, slots=True)
class Choice:
    """A replica for a prompt.

    Attributes:
        names: blocks of the prompt. to_read: its tokens that the replica has not read lately.
    """

    replica: str
    names: Sequence[int]
    to_read: float


@dataclass(slots=True)
class Balance:
    """The replicas of one deployment.

    Attributes:
        prefixes: what each is believed to hold.
        tokens_per_block: of the prompt.
    """

    prefixes: Prefixes
    tokens_per_block: float
    _open: dict[str, float] = field(default_factory=dict)
    """Tokens under way, by replica."""
    _given: dict[str, float] = field(default_factory=dict)
    """Tokens that each was given, times 2 for every half-life since `_since`: so nothing has to be aged."""
    _since: float = 0.0

    def choose(
        self,
        replicas: Sequence[str],
        names: Sequence[int],
        tokens: float,
        now: float,
        avoid: Collection[str] = (),
        levels: Sequence[tuple[int, int]] | None = None,
    ) -> Choice:
        """The replica for a prompt of these blocks and tokens; one to avoid only if there is no other.

        Args:
            levels: what `prefixes` say of the blocks, where they were asked before.
        """
        allowed = [replica for replica in replicas if replica not in avoid] if avoid else replicas
        scale = self._scale(now)  # first: it may put new sums in the place of the old ones
        given, under_way, worth = self._given, self._open, self.tokens_per_block
        aged, now_counts = (LATELY / scale, NOW) if names else (1e-9 / scale, 1.0)
        for replica in allowed or replicas:
            if replica not in given:
                self._meet(replica)
        costs = {replica: aged * given[replica] + now_counts * under_way[replica] for replica in allowed or replicas}
        chosen = min(costs, key=costs.__getitem__)
        least, held = costs[chosen], 0
        cheapest, prefixes = least, self.prefixes
        if levels is None:
            levels = prefixes.levels(names) if names else ()
        for depth, mask in levels:
            saved = worth * depth
            if mask == prefixes.everyone and mask.bit_count() == len(costs) == len(given):
                least, held = cheapest - saved, depth  # all hold it: the cheapest one stays the cheapest
                continue
            for replica in prefixes.named(mask):
                if (cost := costs.get(replica, math.inf) - saved) < least:
                    least, chosen, held = cost, replica, depth
        return Choice(chosen, names, max(0.0, tokens - worth * held))

    def begin(self, choice: Choice, now: float) -> None:
        """It is sent there."""
        self._given[choice.replica] += choice.to_read * self._scale(now)
        self._open[choice.replica] += choice.to_read
        if choice.names:
            self.prefixes.add(choice.replica, choice.names)

    def end(self, choice: Choice, answer: float, now: float) -> None:
        """It was answered, with so many tokens."""
        if choice.replica in self._open:
            self._open[choice.replica] = max(0.0, self._open[choice.replica] - choice.to_read)
            self._given[choice.replica] += answer * self._scale(now)

    def keep(self, replicas: Collection[str]) -> None:
        """Forget all others."""
        for gone in [replica for replica in self._given if replica not in replicas]:
            del self._given[gone], self._open[gone]
        self.prefixes.forget([replica for replica in self.prefixes.replicas() if replica not in replicas])

    def _meet(self, replica: str) -> None:
        # A new one begins with what the others have: it shall not be given everything that comes.
        self._given[replica] = sum(self._given.values()) / len(self._given) if self._given else 0.0
        self._open[replica] = 0.0

    def _scale(self, now: float) -> float:
        """What a token of now counts."""
        if now - self._since > _SPAN:
            old = math.exp2((self._since - now) / HALF_LIFE)
            self._given = {replica: given * old for replica, given in self._given.items()}
            self._since = now
        return math.exp2((now - self._since) / HALF_LIFE)
