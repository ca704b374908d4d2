"""Keeps what openvino-genai's cache of beginnings holds right; must not know HTTP, templates or tokenizers.

The engine shares blocks of its cache between requests by what the blocks hold. Two things go wrong there (2026.4,
decision 24):

- A block that a request filled in part is given to every request that goes on from there, and while their prompts are
  read all of them write into it. Here such requests are added one after another.
- A prompt that is read in parts has a last block that counts as full from the first token in it. Whoever leaves in
  between leaves that block to the next one who asks the same. Here a prompt is read to its end before its request ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from llm_os.workers.stepping import Handle, Pipeline

End = tuple[int, tuple[int, ...]]
"""Tokens that end inside a block: a hash of the blocks before it, and the tokens in it."""


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


class Ends:
    """Where requests ended inside a block that the engine may still have.

    Args:
        block: tokens of a block.
        most: ends that are kept, of the latest requests. No block has more than one.
    """

    def __init__(self, block: int, most: int) -> None:
        self._block, self._most = block, most
        self._now = 0
        self._users: OrderedDict[End, int] = OrderedDict()
        self._since: dict[End, int] = {}
        self._tails: dict[int, set[tuple[int, ...]]] = {}
        self._full: OrderedDict[int, int] = OrderedDict()

    def tick(self) -> int:
        """The time, which passes by being asked."""
        self._now += 1
        return self._now

    def of(self, ids: Sequence[int]) -> dict[End, bool]:
        """The ends from which the engine may let these tokens go on, or at which it may let them end.

        True: whoever goes on from it takes it away, since he fills its block and goes on behind it. Blocks that were
        used longest ago are lost first: what was used since something else was is there as long as that. The engine
        takes a whole block rather than a part, of parts the shortest, and none behind a block that is lost.
        """
        found: dict[End, bool] = {}
        reached = self._now  # all blocks so far were used at this time or later
        for part in self._parts(ids):
            whole = self._full.get(part.through, 0)
            tails = [tail for tail in self._tails.get(part.before, ()) if part.tokens[: len(tail)] == tail]
            for tail in sorted(tails, key=len):
                end = part.before, tail
                if self._since[end] >= whole:
                    first = not whole and len(tail) == min(map(len, tails))
                    found[end] = first and part.goes_on and reached >= self._since[end]
            reached = min(reached, whole)
        return found

    def all(self, ids: Sequence[int]) -> list[End]:
        """All blocks of these tokens."""
        return [(part.before, part.tokens) for part in self._parts(ids)]

    def last(self, ids: Sequence[int]) -> End:
        """The last block of these tokens, full or not."""
        return self.all(ids)[-1]

    def next(self, end: End, token: int) -> End:
        """Where it ends with one token more."""
        return (end[0], (*end[1], token)) if self.is_inside(end) else (hash(end), (token,))

    def is_inside(self, end: End) -> bool:
        """Whether the block has room behind it."""
        return len(end[1]) < self._block

    def add(self, end: End) -> None:
        """One block more has it."""
        if not self.is_inside(end):
            return
        self._users[end] = self._users.get(end, 0) + 1
        self._users.move_to_end(end)
        self._since[end] = self.tick()
        self._tails.setdefault(end[0], set()).add(end[1])
        if len(self._users) > self._most:
            self._forget(next(iter(self._users)))

    def drop(self, end: End) -> None:
        """One block less has it."""
        users = self._users.get(end, 0)
        if users > 1:
            self._users[end] = users - 1
        elif users:
            self._forget(end)

    def fill(self, ids: Sequence[int], when: int) -> None:
        """All blocks behind which these tokens go on are there, and were used at that time.

        Of the last one that is not sure: it keeps the name that it had as a part until something comes behind it.
        """
        for part in self._parts(ids):
            if part.goes_on:
                self._full[part.through] = max(when, self._full.get(part.through, 0))
                self._full.move_to_end(part.through)
        while len(self._full) > self._most:
            self._full.popitem(last=False)

    def _parts(self, ids: Sequence[int]) -> Iterator[Part]:
        before = 0
        for at in range(0, len(ids), self._block):
            tokens = tuple(ids[at : at + self._block])
            through = hash((before, tokens))
            yield Part(before, tokens, through, at + self._block < len(ids))
            before = through

    def _forget(self, end: End) -> None:
        del self._users[end], self._since[end]
        tails = self._tails[end[0]]
        tails.discard(end[1])
        if not tails:
            del self._tails[end[0]]


class _Request:
    """A request in the engine: its handle, and which ends it has in the cache.

    The block in which its tokens end carries that end: the prompt's at first, and with each token of the answer the
    next one, but for the last token, which is told and not computed.
    """

    def __init__(self, ends: Ends, inner: Handle, ids: Sequence[int], taken: dict[End, bool]) -> None:
        self._ends, self._inner, self._ids, self._taken = ends, inner, ids, taken
        self._end = ends.last(ids)
        self._said: int | None = None
        self._kept: list[End] = []
        self._partly = self._begun = self._moved = self._ended = self._leaves = False
        for end in taken:
            ends.add(end)  # as long as it is used
        self._since = ends.tick()

    def writes(self) -> set[End]:
        """The blocks that others may know and that are written while its prompt is read."""
        if self._partly:
            return {*self._taken, *self._ends.all(self._ids)}
        # Of a prompt that is known to its end the last token is computed again, and written.
        return set(self._taken) if self._ends.is_inside(self._end) else {*self._taken, self._end}

    def _go_on(self) -> None:
        """The prompt was read in part: its last block may be known before it is read."""
        if not self._partly:
            self._partly = True
            self._ends.add(self._end)

    def is_writing(self) -> bool:
        """Whether nobody may write into its blocks.

        Later each token goes into a block of its own. But a part that the prompt filled just to its end is known as the
        part until the next token is computed, and is not copied for that.
        """
        just_full = bool(self._taken) and not self._ends.is_inside(self._end)
        return not self._begun or (just_full and not self._moved and not self._ended)

    def step(self) -> None:
        """The engine made a step."""
        self._ended = self._ended or self._inner.get_status().name != "RUNNING"
        if not self._begun and (self._ended or self._inner.can_read()):
            self._begin()
        elif not self._begun:
            self._go_on()

    def _begin(self) -> None:
        """The prompt is read: others may go on from where it ended."""
        self._begun = True
        self._kept = [end for end in self._taken if end[0] == self._end[0]]  # its last block may still be called so
        for end, taken_away in self._taken.items():
            if end not in self._kept:
                self._ends.drop(end)
            if taken_away:
                self._ends.drop(end)
        self._ends.fill(self._ids, self._since)
        if not self._partly:
            self._ends.add(self._end)
        if self._leaves:
            self._ended = True
            self._inner.cancel()

    def can_read(self) -> bool:
        return self._inner.can_read()

    def read(self) -> Any:
        outputs = self._inner.read()
        for output in outputs.values():
            for token in output.generated_ids:
                if self._said is not None:
                    self._move(self._said)
                self._said = token
        return outputs

    def _move(self, token: int) -> None:
        """A token of the answer was computed."""
        for end in (self._end, *self._kept):
            self._ends.drop(end)
        self._kept = []
        self._end = self._ends.next(self._end, token)
        self._ends.add(self._end)
        self._moved = True

    def cancel(self) -> None:
        self._leaves = True
        if self._begun:
            self._ended = True
            self._inner.cancel()

    def get_status(self) -> Any:
        return self._inner.get_status()


class OneWriter:
    """A pipeline into which one request at a time goes on from a block that is not full.

    Args:
        tokens: of a prompt.
        block: see `Ends`.
        blocks: of the engine's cache.
    """

    def __init__(self, pipeline: Pipeline, tokens: Callable[[Any], Sequence[int]], *, block: int, blocks: int) -> None:
        self._pipeline, self._tokens = pipeline, tokens
        self._ends = Ends(block, 2 * blocks)
        self._writing: list[_Request] = []

    def add_request(self, number: int, prompt: Any, config: Any) -> Handle | None:
        """None: after the next step. Raises RuntimeError where the engine refuses it."""
        ids = self._tokens(prompt)
        taken = self._ends.of(ids)
        wanted = {*taken, self._ends.last(ids)}
        self._writing = [request for request in self._writing if request.is_writing()]
        if any(not wanted.isdisjoint(other.writes()) for other in self._writing):
            return None
        handle = self._pipeline.add_request(number, prompt, config)
        if handle is None:
            return None
        request = _Request(self._ends, handle, ids, taken)
        self._writing.append(request)
        return request

    def step(self) -> None:
        self._pipeline.step()
        for request in self._writing:
            request.step()

    def has_non_finished_requests(self) -> bool:
        return self._pipeline.has_non_finished_requests()
