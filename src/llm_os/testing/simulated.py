"""The kernel's ports in memory: files, artifacts, machine, plugins, and a host whose workers misbehave. No disk.

What lives here outlives the kernel, as a disk and other processes do.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from llm_os.drivers.device import Available, Probe
from llm_os.drivers.engine import Engine
from llm_os.drivers.launchers.fake import FakeHost, Process, ReportKind, Script
from llm_os.errors import NotFoundError
from llm_os.spec.api import ExportReport, ExportRequest, RowPage
from llm_os.spec.artifacts import ArtifactFacts, Manifest
from llm_os.spec.attempts import EXIT_FAILED, EXIT_USER_ERROR, AttemptSpec, Control, Exit, Report
from llm_os.spec.base import Digest, Json, Spec
from llm_os.spec.measures import HostReading
from llm_os.spec.processes import ProcessPhase, ProcessSpec
from llm_os.spec.resources import Capacity, Device, ResourceSpec
from llm_os.spec.routing import DeploymentUsage, GatewayUsage, RoutingTable
from llm_os.spec.units import Bytes
from llm_os.spec.verification import BrokenFile
from llm_os.testing.faults import Luck

HOME = Path("/simulated")
CORES = 4.0
MEMORY = 8 * 2**30


class WorkOptions(Spec):
    """Options of every simulated task; they say what the worker will do."""

    key: int = 0
    cpus: float = 1.0
    memory: Bytes = 2**30
    accelerators: int = 0
    lasts: float = 1.0
    fate: str = "ok"


class SimulatedTask:
    """A task that needs what its options say. It is never run: `SimulatedHost` acts it."""

    Options = WorkOptions
    inputs: tuple[str, ...] = ()
    optional_inputs: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()

    def __init__(self, output: str | None, cacheable: bool) -> None:
        self.output = output
        self.cacheable = cacheable

    def resources(self, options: WorkOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        return needs(options.model_dump())

    def choose(self, options: WorkOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> None:
        """Its options are definite."""

    def alternatives(
        self, options: WorkOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity, free_memory: int
    ) -> str:
        return ""


def needs(options: Mapping[str, Any]) -> ResourceSpec:
    """What work with these options holds."""
    return ResourceSpec(
        cpus=options["cpus"], memory=options["memory"], accelerators=int(options.get("accelerators", 0))
    )


class ServingOptions(Spec):
    cpus: float = 1.0
    memory: Bytes = 2**30


class SimulatedEngine(Engine):
    name = "simulated"
    formats: ClassVar[tuple[str, ...]] = ("simulated",)
    tasks: ClassVar[tuple[str, ...]] = ("text-generation",)
    Options = ServingOptions

    def probe(self) -> Probe:
        return Available(version="1")

    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        return needs(options.model_dump())

    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        return ProcessSpec(argv=("serve", "{socket}"), resources=resources)


class OtherEngine(SimulatedEngine):
    """Stands beside the first one where a deployment has both."""

    name = "other"
    preference = -1


class SimulatedPlugins:
    def __init__(self) -> None:
        self._tasks = {
            "sim/work": SimulatedTask(None, cacheable=False),
            "sim/report": SimulatedTask("report", cacheable=True),
            "sim/model": SimulatedTask("model", cacheable=True),
        }

    def task(self, name: str) -> SimulatedTask:
        if name not in self._tasks:
            raise NotFoundError(f"There is no task '{name}'.")
        return self._tasks[name]

    def engines(self) -> Sequence[Engine]:
        return (SimulatedEngine(), OtherEngine())


class SimulatedMachine:
    def __init__(self, accelerators: int) -> None:
        devices = tuple(
            Device(kind="fake", index=index, name=f"Fake {index}", memory=2**33) for index in range(accelerators)
        )
        self._capacity = Capacity(cpus=CORES, memory=MEMORY, devices=devices)

    def capacity(self) -> Capacity:
        return self._capacity

    def reading(self) -> HostReading:
        return HostReading(memory=MEMORY, memory_available=MEMORY // 2)

    def kind(self) -> str:
        return "simulated"


class SimulatedHost(FakeHost):
    """Acts what attempts ask for; a share of them does something else.

    Args:
        luck: its random source decides; `workers` and `reports` are the shares that go wrong.
        on_start: called when a process begins.
    """

    def __init__(
        self,
        now: Callable[[], float],
        luck: Luck,
        workers: float,
        reports: float,
        on_start: Callable[[Process], None],
        tell: Callable[[str], None],
    ) -> None:
        super().__init__(self._act, now)
        self.luck = luck
        self.workers = workers
        self.bad_reports = reports
        self._clock = now
        self._on_start = on_start
        self._tell = tell
        self.specs: dict[str, AttemptSpec] = {}
        self.reports: dict[str, list[Report]] = defaultdict(list)
        self.zombies: dict[str, Exit] = {}
        """Exit records that appear although the supervisor was killed: late words of the dead."""
        self.tries: dict[str, int] = defaultdict(int)
        """Processes started by owner."""

    def calm(self) -> None:
        """From now on every worker does what its task says."""
        self.workers = self.bad_reports = 0.0

    def owner_of(self, attempt: str) -> str:
        """Job, deployment or `gateway`; empty for an attempt that was sealed before anything was laid out for it."""
        spec = self.specs.get(attempt)
        return spec.owner if spec else ""

    def exit_of(self, attempt: str) -> Exit | None:
        process = self.processes.get(attempt)
        return (process.exit if process else None) or self.zombies.get(attempt)

    def started(self, process: Process) -> None:
        spec = self.specs[process.attempt]
        self.tries[spec.owner] += 1
        self._tell(f"start {process.attempt} of {spec.owner}")
        self._on_start(process)

    def reported(self, process: Process, kind: ReportKind, values: Mapping[str, Json]) -> None:
        seq = 1 + max((report.seq for report in self.reports[process.attempt]), default=0)
        report = Report(seq=seq, at=self._clock(), kind=kind, values=values)
        random, lines = self.luck.random, self.reports[process.attempt]
        if random.random() >= self.bad_reports:
            lines.append(report)
        elif kind in {"progress", "checkpoint"} and random.random() < 0.5:
            self._tell(f"lost report {seq} of {process.attempt}")
        elif kind in {"progress", "ready"} and random.random() < 0.5:
            self._later(random.uniform(0.1, 3.0), lambda: lines.append(report))
        else:
            lines += [report, report]

    def ended(self, process: Process) -> None:
        self._tell(f"end {process.attempt} {process.phase.value} {process.exit.code if process.exit else None}")
        if is_over(process) and process.exit is None and self.luck.random.random() < self.bad_reports:
            self._later(self.luck.random.uniform(0.1, 5.0), lambda: self._speak_from_the_grave(process))

    def _speak_from_the_grave(self, process: Process) -> None:
        self.zombies[process.attempt] = Exit(code=0, at=self._clock())
        lines = self.reports[process.attempt]
        lines.append(Report(seq=len(lines) + 1, at=self._clock(), kind="result", values={"attempt": process.attempt}))

    def _later(self, seconds: float, what: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(seconds, what)

    def _act(self, attempt: str, folder: Path) -> Script:
        spec, random = self.specs[attempt], self.luck.random
        wrong = random.random() < self.workers
        how = random.choice(["start", "signal", "stub", "slow", "deaf"]) if wrong else ""
        if spec.task is not None:
            return self._work(attempt, spec.owner, spec.task.options, how)
        ready: Mapping[str, Json] = {"endpoint": spec.serve.socket} if spec.serve else {"url": "http://127.0.0.1:7601"}
        moment = random.uniform(0.5, 4.0)
        return Script(
            start_fails=how == "start",
            starts_after=2.0 if how == "slow" else 0.0,
            reports=((random.uniform(0.05, 1.0), "ready", ready),),
            lasts=moment if how == "signal" else None,
            dies_by=11 if how == "signal" else None,
            stub_dies_after=moment if how == "stub" else None,
            stop_code=None if how == "deaf" else 0,
            stops_after=random.choice([0.0, 0.2]),
        )

    def _work(self, attempt: str, owner: str, options: Mapping[str, Json], how: str) -> Script:
        given = WorkOptions.model_validate(dict(options))
        random, lasts = self.luck.random, given.lasts
        reports: list[tuple[float, ReportKind, Mapping[str, Json]]] = [
            (lasts * share, "progress", {"step": step, "attempt": attempt})
            for step, share in enumerate((0.1, 0.4, 0.7), start=1)
        ]
        code = 0
        fate = "ok" if given.fate == "flaky" and self.tries[owner] >= 2 else given.fate
        if fate == "ok":
            reports.append((lasts * 0.9, "result", {"attempt": attempt, "key": given.key}))
        elif fate != "hangs":
            error: Mapping[str, Json] = {
                "code": "sim",
                "message": f"It {fate}.",
                "retryable": fate == "flaky",
                "attempt": attempt,
            }
            reports.append((lasts * 0.9, "error", error))
            code = EXIT_USER_ERROR if fate == "user_error" else EXIT_FAILED
        moment = random.uniform(0.0, max(lasts, 0.1))
        return Script(
            start_fails=how == "start",
            starts_after=random.uniform(0.1, 2.0) if how == "slow" else 0.0,
            reports=tuple(reports),
            lasts=moment if how == "signal" else None if fate == "hangs" else lasts,
            code=code,
            dies_by=9 if how == "signal" else None,
            stub_dies_after=moment if how == "stub" else None,
            stop_code=None if how == "deaf" else 12,
            stops_after=random.choice([0.0, 0.1, 1.0]),
            children=random.choice([0, 1]),
        )


class SimulatedFiles:
    """See `kernel.ports.Files`. Offsets count reports."""

    def __init__(self, host: SimulatedHost, now: Callable[[], float]) -> None:
        self._host = host
        self._now = now
        self.routes: RoutingTable | None = None
        self.busy: dict[str, float] = {}
        """Deployments by name: until when somebody sends requests."""

    def attempt(self, attempt: str) -> Path:
        return HOME / "run" / "attempts" / attempt

    def create(self, spec: AttemptSpec) -> Path:
        self._host.specs.setdefault(spec.attempt, spec)
        return self.attempt(spec.attempt)

    def checkpoints(self, job: str) -> Path:
        return HOME / "run" / "jobs" / job / "checkpoints"

    def socket(self, attempt: str) -> Path:
        return HOME / f"{attempt}.sock"

    def read_reports(self, attempt: str, offset: int) -> tuple[list[Report], int]:
        new = self._host.reports[attempt][offset:]
        return new, offset + len(new)

    def read_exit(self, attempt: str) -> Exit | None:
        return self._host.exit_of(attempt)

    def write_control(self, attempt: str, control: Control) -> None:
        if control.stop:
            self._host.ask_to_stop(attempt)

    def read_control(self, attempt: str) -> Control:
        return Control()

    def output(self, attempt: str) -> Path:
        return self.attempt(attempt) / "output"

    def log_tail(self, attempt: str, lines: int) -> list[str]:
        return ["simulated"]

    def discard(self, attempt: str) -> None:
        """Nothing lies on a disk."""

    def leftovers(self) -> list[str]:
        return []

    def keep_reserve(self) -> None:
        """Nothing lies on a disk."""

    def spend_reserve(self) -> None:
        """Nothing lies on a disk."""

    def forget_job(self, job: str) -> None:
        """Nothing lies on a disk."""

    def disk(self) -> tuple[int, int]:
        return 2**40, 2**39

    def write_routes(self, table: RoutingTable) -> None:
        self.routes = table

    def read_usage(self) -> GatewayUsage | None:
        now = self._now()
        return GatewayUsage(
            written_at=now,
            deployments={
                name: DeploymentUsage(last_request_at=min(now, until), in_flight=int(now < until), requests=1)
                for name, until in self.busy.items()
            },
        )


class SimulatedArtifacts:
    """Equal work gives equal artifacts. Ingesting takes a while."""

    def __init__(self, host: SimulatedHost, broken: Callable[[str], None]) -> None:
        self._host = host
        self._broken = broken
        self._known: dict[Digest, ArtifactFacts] = {}

    async def ingest(self, folder: Path) -> tuple[Digest, ArtifactFacts, Manifest]:
        attempt = folder.parent.name
        ended = self._host.exit_of(attempt)
        if ended is None or ended.code != 0:
            self._broken(f"The output of {attempt} was ingested, but it did not finish.")
        call = self._host.specs[attempt].task
        if call is None:
            raise NotFoundError(f"{attempt} has no output.")
        kind = "model" if call.task == "sim/model" else "report"
        text = json.dumps([call.task, dict(call.options)], sort_keys=True)
        digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
        await asyncio.sleep(self._host.luck.random.choice([0.0, 0.05, 0.5]))
        meta: Mapping[str, Json] = {"format": "simulated", "precision": "fp32", "task": "text-generation"}
        self._known[digest] = ArtifactFacts(digest=digest, kind=kind, size=1, meta=meta)
        manifest = Manifest.model_validate({"kind": kind, "files": (), "meta": meta})
        return digest, self._known[digest], manifest

    def facts(self, digest: Digest) -> ArtifactFacts:
        if digest not in self._known:
            raise NotFoundError(f"There is no artifact {digest}.")
        return self._known[digest]

    def path(self, digest: Digest) -> Path:
        self.facts(digest)
        return HOME / "artifacts" / digest

    def manifest(self, digest: Digest) -> Manifest:
        facts = self.facts(digest)
        return Manifest.model_validate({"kind": facts.kind, "files": (), "meta": facts.meta})

    async def broken(self, digest: Digest) -> tuple[BrokenFile, ...]:
        self.facts(digest)
        return ()

    async def rows(self, digest: Digest, split: str, offset: int, limit: int) -> RowPage:
        raise NotFoundError(f"{digest} has no rows.")

    async def export(self, digest: Digest, request: ExportRequest) -> ExportReport:
        raise NotFoundError(f"{digest} has no files.")


def is_over(process: Process) -> bool:
    """Whether nothing of it runs any more."""
    return process.phase in {ProcessPhase.EXITED, ProcessPhase.LOST} and process.orphans == 0
