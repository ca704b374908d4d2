"""The interface of a launcher: start, inspect, list, stop, recover, logs. It knows attempt folders, not jobs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from llm_os.drivers.device import Probe
from llm_os.spec.attempts import AttemptSpec
from llm_os.spec.processes import Handle, ProcessStatus


class Launcher(ABC):
    """Runs what lies in attempt folders. All methods are coroutines that may take seconds and never block the loop."""

    name: ClassVar[str]
    bell: Callable[[str], None] | None = None
    """Called in the loop with the name of an attempt whose processes have just ended. It may never ring, or ring twice:
    whoever sets it looks by itself, too."""

    @abstractmethod
    def probe(self) -> Probe: ...

    @abstractmethod
    async def start(self, attempt: str, folder: Path) -> Handle:
        """Start `folder/spec.json`. Idempotent: a second start of a running or ended attempt starts nothing.

        Raises:
            UnavailableError: it could not be started (retryable). The attempt is then not running.
        """

    @abstractmethod
    async def inspect(self, attempt: str, folder: Path) -> ProcessStatus:
        """Its state now. Never raises for an unknown attempt: answers phase `absent`."""

    @abstractmethod
    async def list(self) -> tuple[ProcessStatus, ...]:
        """Every attempt of this home whose processes run, wanted or not."""

    @abstractmethod
    async def stop(self, attempt: str, folder: Path, grace: float, reason: str) -> ProcessStatus:
        """Ask it to end, wait `grace` seconds, then end it by force. Returns when it is dead. Idempotent.

        An attempt that never started is sealed: it can never start afterwards.
        """

    @abstractmethod
    async def recover(self, handle: Handle, folder: Path) -> ProcessStatus:
        """Re-attach after a restart of the kernel. Never raises; `lost` when its process is gone without an exit."""

    async def prepare(self, like: AttemptSpec | None, role: str = "task") -> None:  # noqa: B027 - may know no such thing
        """Keep a process ready that has loaded program and `preload` of `like`, for the next attempt that fits it.

        Args:
            like: None: keep none.
            role: one is kept in each; one that lives and would be the same stays as it is.

        Returns when a process that is no longer wanted is dead, so its memory is free. Never raises: without it, the
        next attempt starts as usual.
        """

    @abstractmethod
    async def logs(self, attempt: str, folder: Path, offset: int, limit: int) -> bytes:
        """Up to `limit` bytes of its log from `offset`; empty when there is nothing more yet."""
