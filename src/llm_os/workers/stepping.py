"""One thread that owns a continuous-batching pipeline and steps it; must not know HTTP, templates or requests' shapes.

Everything that touches the pipeline happens on this thread; callers on the loop get tokens through a queue of theirs.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llm_os.errors import (
    BrokenWeightsError,
    CapacityError,
    InternalError,
    InvalidInputError,
    LLMOSError,
    UnavailableError,
)

log = logging.getLogger("llm_os.worker")

GATHER = 0.001
"""Seconds that an idle pipeline waits for one more request after each: a burst shall go into one step as a whole."""
GATHERED = 0.02
"""Seconds after which it waits no longer, and for which requests are taken in at most while others are answered."""
MANY = 4
"""Requests at once from which on new tokens may be held, to be told together."""
Ready = Callable[[], tuple[Any, Any]]
"""Prompt and configuration of a request, as the pipeline takes them. Called between steps, on their thread: engines'
tokenizers wait for the processors that a step holds."""


class Handle(Protocol):
    """A request inside the pipeline, as openvino-genai calls it."""

    def can_read(self) -> bool: ...
    def read(self) -> Any: ...
    def cancel(self) -> None: ...
    def get_status(self) -> Any: ...


class Pipeline(Protocol):
    """The part of `ContinuousBatchingPipeline` that is used."""

    def add_request(self, number: int, prompt: Any, config: Any) -> Handle | None:
        """None: it must wait for what is read now; ask again after a step, with the same number."""

    def step(self) -> None: ...
    def has_non_finished_requests(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Tokens:
    """New tokens; `finish` is `stop` or `length` in the last ones.

    Attributes:
        logprobs: of the tokens, as the engine tells them; empty where it does not.
        tops: of the places of the tokens: ids and logarithms of the likeliest ones; empty where it tells none.
    """

    ids: tuple[int, ...]
    finish: str | None = None
    logprobs: tuple[float, ...] = ()
    tops: tuple[tuple[tuple[int, float], ...], ...] = ()

    def __add__(self, more: Tokens) -> Tokens:
        return Tokens(self.ids + more.ids, more.finish, self.logprobs + more.logprobs, self.tops + more.tops)


@dataclass(slots=True, eq=False)
class _Request:
    ready: Ready
    out: asyncio.Queue[Tokens | LLMOSError] = field(default_factory=asyncio.Queue)
    asked: tuple[int, Any, Any] | None = None
    handle: Handle | None = None
    left: bool = False
    begun: bool = False
    held: Tokens | None = None
    at_once: bool = False


class Stepper:
    """See the module.

    Args:
        on_broken: called on the loop when the pipeline raised; nothing is answered after it.
        pause: seconds between two tellings while MANY or more are answered. First and last tokens never wait.
    """

    def __init__(self, pipeline: Pipeline, on_broken: Callable[[LLMOSError], None], *, pause: float = 0.0) -> None:
        self._pipeline = pipeline
        self._on_broken = on_broken
        self._inbox: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._live: list[_Request] = []
        self._ending = False
        self._pause = pause
        self._told = 0.0
        self._count = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="step", daemon=True)
        self._broken: LLMOSError | None = None

    def begin(self) -> None:
        """Start the thread. Call it on the loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def generate(self, ready: Ready, *, at_once: bool = False) -> AsyncGenerator[Tokens, None]:
        """Tokens as they come. Closing it takes the request out of the batch. Raises what `ready` raises.

        Args:
            at_once: tell each token by itself: its caller ends the answer by what it says.
        """
        request = _Request(ready, at_once=at_once)
        self._inbox.put(request)
        if self._broken is not None:  # asked after putting: else a request could fall between both looks
            raise self._broken
        try:
            while True:
                item = await request.out.get()
                if isinstance(item, LLMOSError):
                    raise item
                yield item
                if item.finish:
                    return
        finally:
            request.left = True  # the thread looks before each step
            self._inbox.put(None)

    async def end(self) -> None:
        """Stop the thread after the step that runs."""
        self._ending = True
        self._inbox.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 10.0)

    def _run(self) -> None:
        try:
            while not self._ending:
                self._admit(wait=not self._live and not self._pipeline.has_non_finished_requests())
                self._drop()
                if self._pipeline.has_non_finished_requests():
                    self._pipeline.step()
                self._deliver()
        except Exception as error:  # noqa: BLE001 - the border of the thread: all callers are told
            broken = UnavailableError(f"The engine broke: {error}", hint="It is started again; ask again in a moment.")
            self._broken = broken
            while not self._inbox.empty():
                waiting = self._inbox.get_nowait()
                self._live.extend([waiting] if waiting is not None else [])
            self._call(self._on_broken, broken)  # before the requests: who is told may look at once
            for request in self._live:
                if request.held is not None:  # what was said before it broke was said
                    self._tell(request, request.held)
                self._tell(request, broken)

    def _admit(self, *, wait: bool) -> None:
        """Take in what has come; with `wait`, where nothing runs, wait for it, and a moment for what comes with it.

        Where something runs it must not stand still for long: the rest is taken in after the next step.
        """
        for waiting in [request for request in self._live if request.handle is None and not request.left]:
            self._add(waiting)
        until: float | None = None
        while True:
            left = None if until is None else min(GATHER, until - time.monotonic())
            if left is not None and left <= 0 and not wait:
                return
            try:
                request = self._inbox.get(block=wait and (left is None or left > 0), timeout=left)
            except queue.Empty:
                return
            if request is None or request.left:
                wait = wait and until is not None
                continue
            until = time.monotonic() + GATHERED if until is None else until
            self._take(request)

    def _take(self, request: _Request) -> None:
        """Put a request into the pipeline. What is wrong with it is told to its caller; the others go on."""
        self._count += 1
        try:
            request.asked = self._count, *request.ready()
        except LLMOSError as error:
            self._tell(request, error)
            return
        except Exception as error:
            log.exception("a request could not be made ready")
            self._tell(request, InternalError(f"An unexpected {type(error).__name__} while the request was read."))
            return
        self._live.append(request)  # before it is there: if the pipeline breaks over it, its caller is told, too
        self._add(request)

    def _add(self, request: _Request) -> None:
        """Put a request that is ready into the pipeline, if that takes it now."""
        if request.asked is None:
            return
        try:
            request.handle = self._pipeline.add_request(*request.asked)
        except RuntimeError as error:
            self._live.remove(request)
            self._tell(request, InvalidInputError(f"The engine refuses the request: {error}", hint="Change it."))

    def _drop(self) -> None:
        for request in [request for request in self._live if request.left]:
            if request.handle is not None:
                request.handle.cancel()
            self._live.remove(request)

    def _deliver(self) -> None:
        """Tell all callers what steps brought them, in one call: waking the loop costs more than telling one."""
        now = time.monotonic()
        holds = len(self._live) >= MANY and now - self._told < self._pause
        news = [(request, item) for request in self._live if (item := self._new(request, holds=holds)) is not None]
        if not news:
            return
        self._told = self._told if holds else now
        over = [request for request, item in news if isinstance(item, LLMOSError) or item.finish]
        self._live = [request for request in self._live if request not in over]
        self._call(_tell_all, news)

    def _new(self, request: _Request, *, holds: bool) -> Tokens | LLMOSError | None:
        """What a caller is told now."""
        item = self._read(request)
        if isinstance(item, LLMOSError):
            if request.held is not None:
                self._tell(request, request.held)
            return item
        if request.held is not None:
            item = request.held if item is None else request.held + item
        waits = holds and not request.at_once and request.begun and item is not None and not item.finish
        request.held = item if waits else None
        request.begun = request.begun or item is not None
        return None if waits else item

    def _read(self, request: _Request) -> Tokens | LLMOSError | None:
        ids: list[int] = []
        logprobs: list[float] = []
        tops: list[tuple[tuple[int, float], ...]] = []
        finish = None
        handle = request.handle
        if handle is None:  # it waits
            return None
        while handle.can_read():
            for output in handle.read().values():
                ids.extend(output.generated_ids)
                logprobs.extend(getattr(output, "generated_log_probs", ()))
                tops.extend(getattr(output, "tops", ()))
                reason = output.finish_reason.name
                finish = None if reason == "NONE" else reason.lower()
        if finish == "broken":
            return BrokenWeightsError(
                "What the model says is no number.", hint="Its weights, or those of the adapter, are too large."
            )
        if ids or finish:
            return Tokens(tuple(ids), finish, tuple(logprobs), tuple(tops))
        if handle.get_status().name == "IGNORED":
            return CapacityError(
                "The prompt does not fit into the engine's cache.", hint="Deploy it with a larger cache_tokens."
            )
        return None

    def _tell(self, request: _Request, item: Tokens | LLMOSError) -> None:
        self._call(request.out.put_nowait, item)

    def _call(self, function: Callable[..., None], value: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, value)


def _tell_all(news: Sequence[tuple[_Request, Tokens | LLMOSError]]) -> None:
    for request, item in news:
        request.out.put_nowait(item)
