"""How much a key may ask, how urgent, and what is kept for it: quotas, shares and classes of priority."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from llm_os.spec.base import Spec

Positive = Annotated[int, Field(ge=1, le=2**31)]
Share = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]


class Priority(StrEnum):
    """Whose turn comes first when replicas are busy, most urgent first."""

    INTERACTIVE = "interactive"
    """Somebody waits for the answer."""
    STANDARD = "standard"
    BATCH = "batch"
    """Nobody waits."""

    @property
    def rank(self) -> int:
        """0 is the most urgent."""
        return _RANKS[self]


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


class Quota(Spec):
    """Limits of a key. What is None has no limit."""

    requests_per_minute: Positive | None = None
    """Requests that may begin in a minute; a burst may use a whole minute's at once."""
    tokens_per_minute: Positive | None = None
    """Tokens of prompts and answers together."""
    concurrent: Positive | None = None
    """Requests at the same time, those that wait included."""
    share: Share = 1.0
    """Weight of the tenant beside others when replicas are busy: with 2 it gets twice the tokens of one with 1."""
    priority: Priority = Priority.INTERACTIVE
    """The most urgent class it may ask for."""
    cache: bool = False
    """Whether answers to deterministic requests are kept, and given again to keys of the tenant that have this, too."""
