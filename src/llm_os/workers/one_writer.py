"""Keeps what openvino-genai's cache of beginnings holds right; must not know HTTP, templates or tokenizers.

The engine (2026.4) shares blocks of its cache between requests by what they hold, and errs (decision 24):

- A block that a request filled in part is given to every request that goes on from there, and while their prompts are
  read all of them write into it. Here such requests are added one after another.
- A part that a prompt fills just to its end is known as the part until the next token, and not copied for that one.
  Here others wait until then.
- A prompt that is read in parts has a last block that counts as full from the first token in it. Whoever leaves then
  leaves that block to the next one who asks the same. Here such a prompt is read to its end before its request ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from llm_os.workers.beginnings import End, Ends, Part, parts_of
from llm_os.workers.stepping import Handle, Pipeline

PRESSED = 0.95
"""Share of the cache in use from which the engine may read prompts in another order than they came."""
REMEMBERED = 64
"""Requests that wait of which the blocks are remembered."""


class _Request:
    """A request in the engine: its handle, and which ends it has in the cache.

    The block in which its tokens end is called by them: by the prompt's at first, and with each token of the answer
    by one more, but not by the last token, which is told and not computed.

    Args:
        taken: see `Ends.of`.
        leaving: who leaves puts itself there. The engine lets go of it in the next step.
    """

    def __init__(
        self,
        ends: Ends,
        inner: Handle,
        parts: list[Part],
        taken: dict[End, bool],
        leaving: list[_Request],
        *,
        echo: bool,
    ) -> None:
        self._ends, self._inner, self._parts, self._taken, self._leaving = ends, inner, parts, taken, leaving
        self._end = parts[-1].end
        self._echoed = sum(len(part.tokens) for part in parts) if echo else 0
        self._said: int | None = None
        self._kept: list[End] = []
        self._partly = self._begun = self._moved = self._over = self._leaves = False
        for end in taken:
            ends.add(end)  # as long as it is used
        ends.come(parts)
        self._since = ends.tick()
        # Of a prompt that is known to its end the last token is computed again, and written.
        self.writes = set(taken) if ends.is_inside(self._end) else {*taken, self._end}

    @property
    def is_writing(self) -> bool:
        """Whether nobody else may write into its blocks.

        When the prompt is read, each token goes into a block of its own. But a part that the prompt filled just to the
        end is called a part until the next token is computed, and not copied for that.
        """
        just_full = bool(self._taken) and not self._ends.is_inside(self._end)
        return not self._over and (not self._begun or (just_full and not self._moved))

    def step(self, *, reached: bool) -> bool:
        """The engine made a step, which may have reached this prompt. Whether it did not come to its end."""
        if self._is_given_up() or self._begun or self._over:
            return False
        if self._inner.can_read():
            self._begin()
            return False
        if reached and not self._partly:
            self._partly = True
            self._ends.add(self._end)  # its last block may be called so before it is read
            self.writes |= {part.end for part in self._parts}
        return True

    def _begin(self) -> None:
        """The prompt is read: others may go on from where it ended."""
        self._begun = True
        for end, taken_away in self._taken.items():
            if end[0] == self._end[0]:
                self._kept.append(end)  # its last block may still be called so
                continue
            self._ends.drop(end)
            if taken_away:
                self._ends.lose(end, self._since)
        if not self._partly:
            self._ends.add(self._end)
        if self._leaves:
            self.cancel()

    def can_read(self) -> bool:
        return self._inner.can_read()

    def read(self) -> Any:
        outputs = self._inner.read()
        for output in outputs.values():
            skipped, self._echoed = self._echoed, 0
            for token in output.generated_ids[skipped:]:
                if self._said is not None:
                    self._move(self._said)
                self._said = token
            if output.finish_reason.name != "NONE":
                self.rest()
        return outputs

    def _move(self, token: int) -> None:
        """A token of the answer was computed."""
        for end in (self._end, *self._kept):
            self._ends.drop(end)
        self._end, self._kept = self._ends.next(self._end, token), []
        self._ends.add(self._end)
        self._moved = True

    def rest(self) -> None:
        """It is over. What it had is there until it is needed."""
        if self._over:
            return
        self._over = True
        ends = [self._end, *self._kept] if self._begun else [*self._taken, *([self._end] if self._partly else [])]
        for end in ends:
            self._ends.rest(end)
        self._ends.go(self._parts, self._since if self._begun else 0)

    def cancel(self) -> None:
        self._leaves = True
        if self._inner.get_status().name != "RUNNING":  # the engine has let go of it
            self.rest()
        elif self._begun or not self._partly:
            self._inner.cancel()
            self._leaving.append(self)

    def get_status(self) -> Any:
        self._is_given_up()
        return self._inner.get_status()

    def _is_given_up(self) -> bool:
        """Whether the engine does not go on with it, for lack of room: then it is over."""
        if self._inner.get_status().name != "IGNORED":
            return False
        self.rest()
        return True


class OneWriter:
    """A pipeline into which one request at a time goes on from a block that is not full.

    Args:
        tokens: of a prompt.
        used: share of the engine's cache that requests had in the last step, 0 to 1.
        block: tokens of a block of the cache. blocks: of the cache.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        tokens: Callable[[Any], Sequence[int]],
        used: Callable[[], float],
        *,
        block: int,
        blocks: int,
    ) -> None:
        self._pipeline, self._tokens, self._used, self._block = pipeline, tokens, used, block
        self._ends = Ends(block, blocks)
        self._writing: list[_Request] = []
        self._leaving: list[_Request] = []
        self._waiting: OrderedDict[int, list[Part]] = OrderedDict()

    def add_request(self, number: int, prompt: Any, config: Any) -> Handle | None:
        """None: ask again after the next step, with the same number. Raises RuntimeError where the engine refuses."""
        parts = self._waiting.pop(number, None) or parts_of(self._tokens(prompt), self._block)
        if not parts:
            return self._pipeline.add_request(number, prompt, config)
        taken = self._ends.of(parts)
        wanted = {*taken, parts[-1].end}
        self._writing = [request for request in self._writing if request.is_writing]
        if any(not wanted.isdisjoint(other.writes) for other in self._writing):
            self._waiting[number] = parts
            if len(self._waiting) > REMEMBERED:
                self._waiting.popitem(last=False)
            return None
        handle = self._pipeline.add_request(number, prompt, config)
        if handle is None:
            return None
        echo = bool(getattr(config, "echo", False))
        request = _Request(self._ends, handle, parts, taken, self._leaving, echo=echo)
        self._writing.append(request)
        return request

    def step(self) -> None:
        leaving, self._leaving[:] = list(self._leaving), []
        self._pipeline.step()
        for request in leaving:
            request.rest()
        pressed = self._used() > PRESSED
        reached = True  # prompts are read in the order in which they came, each to its end before the next
        for request in self._writing:
            if request.step(reached=reached):
                reached = pressed

    def has_non_finished_requests(self) -> bool:
        return self._pipeline.has_non_finished_requests()
