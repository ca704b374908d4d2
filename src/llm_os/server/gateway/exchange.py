"""What is known of one request while it is answered; must not know who does what with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_os.server.gateway.tracing import Trace

from llm_os.server.gateway.admission import TOGETHER
from llm_os.server.gateway.response_cache import Recording


@dataclass(slots=True)
class Exchange:
    """What is known of one request for log and counters; the proxy fills it in."""

    request_id: str
    started: float
    route: str = ""
    model: str = ""
    version: str = ""
    key: str = ""
    tenant: str = ""
    priority: str = ""
    status: int = 0
    deadline: float | None = None
    """By when the whole answer must have come, on the clock of `started`."""
    prompt_tokens: float = 1.0
    """As far as they can be guessed."""
    answers: int = 1
    """That were asked for."""
    answer_tokens: float | None = None
    """Of all answers together, as far as they can be guessed; None: the answer is no text that is written."""
    streams: bool = False
    """Its answer is told as it comes."""
    held: float = 0.0
    """Seconds that it waited for a first replica."""
    queued: float = 0.0
    """Seconds in the queue."""
    events: int = 0
    """Of a stream, by now."""
    first_byte: float | None = None
    """When the first byte of the answer was ready, on the clock of `started`."""
    tries: int = 0
    revision: int = 1
    """Of the deployment, of the replica that answers."""
    engine: str = ""
    """Of the replica that answers, where the deployment has several."""
    asked_at: float = 0.0
    """When the replica was asked that answers, on the clock of `started`."""
    coalesced: bool = False
    """It waited for another request to read what both begin with."""
    broken: bool = False
    """The replica broke off after the first byte."""
    cache: str = ""
    """`hit` or `miss`, of a request whose answer may be told again."""
    recording: Recording | None = None
    """Keeps the answer."""
    usage: Mapping[str, Any] = field(default_factory=dict)
    count: Callable[[], object] = lambda: None
    """Puts what was served to its account; called before the caller can know that the answer is complete."""
    tokens: int | None = None
    """What was put there."""
    sent: bool = False
    """A replica got the request, and did not refuse it."""
    trace: Trace | None = None
    """None: nobody traces it."""
    prompt: str = ""
    """What it asks, where that is written down."""

    @property
    def together(self) -> int:
        """Answers that an engine works on at once."""
        return min(self.answers, TOGETHER)

    @property
    def tokens_left(self) -> float:
        """Tokens that are still to be read and written for it, as far as they can be guessed."""
        written = max(0.0, (self.answer_tokens or 0.0) - self.events)
        return written + (self.prompt_tokens if self.first_byte is None else 0.0)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """It waits for a first replica."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.held = time.monotonic() - begun

    def hear(self, part: bytes) -> None:
        """The next part of the engine's answer."""
        if self.recording is not None:
            self.recording.hear(part)

    def keep(self, content_type: str) -> None:
        """The engine's answer is complete."""
        if self.recording is not None:
            self.recording.keep(content_type, self.revision, self.version)


def identified(exchange: Exchange) -> dict[str, str]:
    """Headers that name the request: as OpenAI's clients read it, and Anthropic's. Where its answer was, too."""
    named = {"x-request-id": exchange.request_id, "request-id": exchange.request_id}
    if exchange.engine:
        named["x-llm-os-engine"] = exchange.engine
    return {**named, "x-llm-os-cache": exchange.cache} if exchange.cache else named
