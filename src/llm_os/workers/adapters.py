"""Keeps the adapters of a replica as the kernel says: at its start, then by `control.json`; must not know an engine.

Taking one in happens beside the requests that run. One that cannot be taken in is told of and does not end the
service: the model and the other adapters go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llm_os.errors import LLMOSError
from llm_os.spec.attempts import AdapterInput, Control, ServeCall
from llm_os.spec.base import Json
from llm_os.workers.backend import Backend

log = logging.getLogger("llm_os.worker")

LOOK_EVERY = 0.1
"""Seconds between two looks at `control.json`."""


class Keeper:
    """See the module.

    Args:
        folder: of the attempt.
        tell: writes a report; called on the loop.
    """

    def __init__(
        self, call: ServeCall, backend: Backend, folder: Path, tell: Callable[[str, Mapping[str, Json]], None]
    ) -> None:
        self._backend, self._tell = backend, tell
        self._file = folder / "control.json"
        self._wanted: Sequence[AdapterInput] = call.adapters
        self._seen: tuple[int, int] | None = None
        self._held: dict[str, AdapterInput] = {}
        self._failed: dict[str, tuple[AdapterInput, str]] = {}

    async def begin(self) -> dict[str, Json]:
        """Take in what it shall hold at its start; what is told of it in the report that it is ready."""
        self._look()
        await self._change()
        return self._told() if self._wanted else {}

    async def run(self) -> None:
        """Follow the file until cancelled."""
        untold = False
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._look():
                await self._change()
                untold = True
            if untold:
                with contextlib.suppress(OSError):  # a full disk ends no service: it is told when there is room
                    self._tell("adapters", self._told())
                    untold = False

    def _look(self) -> bool:
        """Read the file, if it is another one. True where it says what to hold."""
        try:
            facts = self._file.stat()
            seen = (facts.st_mtime_ns, facts.st_ino)
            if seen == self._seen:
                return False
            control = Control.model_validate_json(self._file.read_bytes(), extra="ignore")
        except (OSError, ValidationError):  # it is not there, or is being replaced: the next look sees it
            return False
        self._seen = seen
        if control.adapters is None:
            return False
        self._wanted = control.adapters
        return True

    async def _change(self) -> None:
        """Take in what is missing before anything goes, so that a replaced one is missed at no time."""
        wanted = {one.name: one for one in self._wanted}
        self._failed = {name: found for name, found in self._failed.items() if wanted.get(name) == found[0]}
        for name, one in wanted.items():
            if self._held.get(name) == one or name in self._failed:
                continue
            try:
                await self._backend.take_adapter(one)
            except LLMOSError as error:
                log.warning("the adapter %s (%s) cannot be taken in: %s", name, one.version, error)
                self._failed[name] = (one, f"{error.message} {error.hint}".strip())
                continue
            except Exception as error:  # an engine's own: the others, and the model, go on
                log.exception("the adapter %s (%s) cannot be taken in", name, one.version)
                self._failed[name] = (one, f"{type(error).__name__}: {error}")
                continue
            self._held[name] = one
        for name in [name for name in self._held if name not in wanted]:
            del self._held[name]
            try:
                await self._backend.drop_adapter(name)
            except Exception:  # an engine's own: what comes next is followed all the same
                log.exception("the adapter %s cannot be let go", name)

    def _told(self) -> dict[str, Json]:
        told: dict[str, Any] = {
            "adapters": {name: one.version for name, one in self._held.items()},
            "failed": {name: why for name, (_, why) in self._failed.items()},
        }
        return told
