"""Everything the kernel is given: clock, files, artifacts, machine, plugins. It must know no implementation of them.

Whatever the kernel awaits goes through these and `drivers.launcher.Launcher`; so the simulator owns every moment at
which something may happen. Methods that are not coroutines return at once (a stat, a small file) and never block.

The kernel itself is `loop.Kernel(*, settings, database, artifacts, launcher, machine, plugins, clock, random, files,
ephemeral=False, gateway=None)`: `settings` is a `Settings`, `database` a `store.database.Database`, `launcher` a
`drivers.launcher.Launcher`, `gateway` the argv of the gateway (None: none is started). `await kernel.recover()` takes
the leadership and re-attaches; `await kernel.run()` returns after a shutdown. Cancelling `run()` at any moment is a
crash: nothing more is written, and another Kernel on the same database and files goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from llm_os.drivers.engine import Engine
from llm_os.spec.api import ExportReport, ExportRequest, RowPage
from llm_os.spec.artifacts import ArtifactFacts, Manifest
from llm_os.spec.attempts import AttemptSpec, Control, Exit, Report
from llm_os.spec.base import Digest, RandomBits
from llm_os.spec.jobs import Choice
from llm_os.spec.measures import HostReading
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.spec.routing import GatewayUsage, RoutingTable
from llm_os.spec.verification import BrokenFile


class Clock(Protocol):
    """Wall time in seconds since the epoch, and the only way to let time pass."""

    def now(self) -> float: ...

    async def sleep(self, seconds: float) -> None:
        """Return no earlier than `seconds` from now; 0 or less only lets others run."""


class Random(RandomBits, Protocol):
    """The part of `random.Random` that the kernel uses: ids and the jitter of back-off."""

    def random(self) -> float: ...


class Files(Protocol):
    """The home's folders as the kernel sees them: attempts, routing table, gateway usage.

    Writing methods are atomic (beside, then renamed) and raise DiskFullError when there is no room. All are
    idempotent.
    """

    def attempt(self, attempt: str) -> Path:
        """The attempt's folder, whether it is there or not."""

    def create(self, spec: AttemptSpec) -> Path:
        """Make the folder with `output/` and `scratch/`, and the job's `checkpoints` folder; `spec.json` last."""

    def checkpoints(self, job: str) -> Path:
        """`run/jobs/<job>/checkpoints`."""

    def socket(self, attempt: str) -> Path:
        """Where a replica listens."""

    def read_reports(self, attempt: str, offset: int) -> tuple[list[Report], int]:
        """Whole lines from byte `offset` on, and the offset behind the last of them.

        A half-written last line is left for the next call; a line that is no report is skipped. Nothing there:
        `([], offset)`.
        """

    def read_exit(self, attempt: str) -> Exit | None:
        """How it ended; None as long as there is no record. Complete reports are there before it is."""

    def write_control(self, attempt: str, control: Control) -> None:
        """Tell it what is set in `control`; what is not set stays as it was told before: it may not have read that."""

    def read_control(self, attempt: str) -> Control:
        """All that it was told."""

    def output(self, attempt: str) -> Path:
        """The folder that the task filled."""

    def log_tail(self, attempt: str, lines: int) -> list[str]:
        """The last lines of its log, for error messages; empty when there is no log."""

    def discard(self, attempt: str) -> None:
        """Remove `output/` and `scratch/` of an ended attempt; records and log stay."""

    def leftovers(self) -> list[str]:
        """Attempts of which something is there that `discard` would remove."""

    def forget_job(self, job: str) -> None:
        """Remove the checkpoints of an ended job."""

    def keep_reserve(self) -> None:
        """Hold some bytes of the disk, for the moment when it is full; nothing where it is nearly full."""

    def spend_reserve(self) -> None:
        """Give the held bytes back, so that the state can be written and jobs can be told that the disk is full."""

    def disk(self) -> tuple[int, int]:
        """Bytes of the file system of the home, and how many of them are free."""

    def write_routes(self, table: RoutingTable) -> None: ...

    def read_usage(self) -> GatewayUsage | None:
        """What the gateway wrote last; None when there is nothing readable."""


class Artifacts(Protocol):
    """Content-addressed folders; implemented by `store.artifacts`."""

    async def ingest(self, folder: Path) -> tuple[Digest, ArtifactFacts, Manifest]:
        """Store a filled output folder (`artifact.json` names kind and meta). Idempotent: equal folders, one digest.

        Raises:
            InvalidInputError: there is no readable `artifact.json`.
            DiskFullError: nothing half-written stays.
        """

    def facts(self, digest: Digest) -> ArtifactFacts:
        """Raises NotFoundError."""

    def path(self, digest: Digest) -> Path:
        """A read-only folder with the artifact's files. Raises NotFoundError."""

    def manifest(self, digest: Digest) -> Manifest:
        """Raises NotFoundError, or IntegrityError for a damaged manifest."""

    async def broken(self, digest: Digest) -> tuple[BrokenFile, ...]:
        """Read every byte again: the files that are not as they were stored. Raises as `manifest`."""

    async def rows(self, digest: Digest, split: str, offset: int, limit: int) -> RowPage: ...

    async def export(self, digest: Digest, request: ExportRequest) -> ExportReport: ...


class Machine(Protocol):
    """What the devices of this node add up to."""

    def capacity(self) -> Capacity:
        """Cores, bytes of host memory and accelerators of the whole machine, read anew at each call."""

    def reading(self) -> HostReading:
        """How it feels now: memory left, cores held back."""

    def kind(self) -> str:
        """What its processor and accelerators are, in words that change with them: figures hold for one kind."""


class TaskPlugin(Protocol):
    """The side of `tasks.task.Task` that the kernel calls; it never calls `run`."""

    @property
    def Options(self) -> type[Any]: ...  # noqa: N802 - the name that plugins use

    @property
    def inputs(self) -> tuple[str, ...]: ...

    @property
    def optional_inputs(self) -> tuple[str, ...]: ...

    @property
    def output(self) -> str | None: ...

    @property
    def cacheable(self) -> bool: ...

    @property
    def preload(self) -> tuple[str, ...]: ...

    def resources(self, options: Any, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec: ...

    def choose(self, options: Any, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> Choice | None: ...

    def alternatives(
        self, options: Any, inputs: Mapping[str, ArtifactFacts], granted: Capacity, free_memory: int
    ) -> str: ...


class Plugins(Protocol):
    """Tasks and engines by name."""

    def task(self, name: str) -> TaskPlugin:
        """Raises NotFoundError with "did you mean"."""

    def engines(self) -> Sequence[Engine]:
        """All engines, available or not."""
