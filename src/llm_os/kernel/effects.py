"""Runs what the records say through drivers, and brings back what came of it. Idempotent; never writes a record.

Each live attempt has at most one effect in flight. Which one is read off its record, so a restarted kernel goes on with
the same effects without having been told of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from llm_os.errors import InternalError, LLMOSError
from llm_os.kernel.state import State
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import AttemptSpec
from llm_os.spec.jobs import Attempt
from llm_os.spec.processes import Handle, ProcessPhase, ProcessStatus

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    attempt: str
    handle: Handle


@dataclass(frozen=True, slots=True)
class StartFailed:
    attempt: str
    error: LLMOSError


@dataclass(frozen=True, slots=True)
class Dead:
    """Confirmed by the launcher."""

    attempt: str


@dataclass(frozen=True, slots=True)
class Seen:
    attempt: str
    status: ProcessStatus


@dataclass(frozen=True, slots=True)
class Ingested:
    attempt: str
    artifact: tuple[str, ArtifactFacts] | None
    error: LLMOSError | None = None


Result = Started | StartFailed | Dead | Seen | Ingested


class Effects:
    """Starts coroutines and collects their results; `drain` hands them to the loop."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._running: dict[str, asyncio.Task[None]] = {}
        self._results: list[Result] = []

    def busy(self, attempt: str) -> bool:
        return attempt in self._running

    def has_results(self) -> bool:
        return bool(self._results)

    def drain(self) -> list[Result]:
        results, self._results = self._results, []
        return results

    def start(self, attempt: Attempt, spec: Callable[[], AttemptSpec]) -> None:
        self._run(attempt.id, self._start(attempt, spec))

    def stop(self, attempt: Attempt, grace: float) -> None:
        self._run(attempt.id, self._stop(attempt, grace))

    def inspect(self, attempt: Attempt) -> None:
        self._run(attempt.id, self._inspect(attempt))

    def ingest(self, attempt: Attempt) -> None:
        self._run(attempt.id, self._ingest(attempt))

    async def settle(self) -> None:
        """Wait until nothing is in flight."""
        while self._running:
            await asyncio.wait(list(self._running.values()))

    def abandon(self) -> None:
        """Drop everything in flight, as a crash would; the records say how to go on."""
        for task in self._running.values():
            task.cancel()

    def _run(self, attempt: str, work: Coroutine[Any, Any, Result | None]) -> None:
        if attempt in self._running:
            work.close()
            return

        async def run() -> None:
            try:
                result = await work
                if result is not None:
                    self._results.append(result)
            except Exception:  # the record still asks for the same: the next turn tries again
                log.exception("An effect for %s failed.", attempt)
            finally:
                del self._running[attempt]
            self._state.pulse.beat()

        self._running[attempt] = asyncio.ensure_future(run())

    async def _start(self, attempt: Attempt, spec: Callable[[], AttemptSpec]) -> Result:
        try:
            folder = self._state.files.create(spec())
            return Started(attempt.id, await self._state.launcher.start(attempt.id, folder))
        except LLMOSError as error:
            return StartFailed(attempt.id, error)
        except Exception as error:  # a plugin's or a file system's: without an answer it would be placed for ever
            log.exception("%s could not be started.", attempt.id)
            return StartFailed(attempt.id, _unexpected("start", attempt, error))

    async def _stop(self, attempt: Attempt, grace: float) -> Result | None:
        folder = self._state.files.attempt(attempt.id)
        reason = attempt.reason or "stopped"
        status = await self._state.launcher.stop(attempt.id, folder, grace, reason)
        dead = status.phase not in {ProcessPhase.RUNNING, ProcessPhase.STARTING}
        return Dead(attempt.id) if dead else None

    async def _inspect(self, attempt: Attempt) -> Result:
        folder = self._state.files.attempt(attempt.id)
        return Seen(attempt.id, await self._state.launcher.inspect(attempt.id, folder))

    async def _ingest(self, attempt: Attempt) -> Result:
        try:
            digest, facts, _ = await self._state.artifacts.ingest(self._state.files.output(attempt.id))
        except LLMOSError as error:
            return Ingested(attempt.id, None, error)
        except Exception as error:  # as above: its job would run for ever
            log.exception("The output of %s could not be taken in.", attempt.id)
            return Ingested(attempt.id, None, _unexpected("take in the output of", attempt, error))
        return Ingested(attempt.id, (digest, facts))


def _unexpected(verb: str, attempt: Attempt, error: Exception) -> LLMOSError:
    return InternalError(
        f"Could not {verb} {attempt.id}: {error} ({type(error).__name__}).", hint="See the kernel's log."
    )
