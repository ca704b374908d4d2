"""What one replica can hold: requests at once, tokens of a context, ids of a vocabulary; must not know an engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llm_os.errors import OverloadedError
from llm_os.workers.requests import ChatRequest, wrong


class Seats:
    """Requests that are in a replica.

    Args:
        most: so many at once; more are refused.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a seat. Raises OverloadedError when all are taken."""
        if self._taken >= self._most:
            raise OverloadedError(
                f"{self._taken} requests are in this replica already.",
                hint="Try again in a moment, or deploy more replicas.",
                details={"retry_after": 1},
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


@dataclass(frozen=True, slots=True)
class Window:
    """The tokens that a model can read.

    Attributes:
        context: of a prompt and its answer, at most.
        vocabulary: number of tokens; 0 where it is not known.
    """

    context: int
    vocabulary: int

    def check(self, param: str, ids: Sequence[int]) -> None:
        """Raises InvalidOptionError that names `param` for an id that is no token."""
        if self.vocabulary and max(ids) >= self.vocabulary:
            raise wrong(param, f"There is no token {max(ids)}: the model has {self.vocabulary}.", "POST /tokenize.")

    def answer(self, request: ChatRequest, size: int) -> int:
        """New tokens at most, after a prompt of `size`. Raises InvalidOptionError where it is empty or fills all."""
        if not size:
            raise wrong("prompt", "The text has no token that this model knows.", "Send another text.")
        room = self.context - size
        if room < 1:
            raise wrong(
                "messages" if request.prompt is None else "prompt",
                f"It has {size} tokens or more, the context has room for {self.context} with the answer.",
                "Send fewer or shorter messages." if request.prompt is None else "Send a shorter prompt.",
            )
        return min(request.max_tokens or room, room)
