"""What lies in an attempt folder `run/attempts/<id>/`: the only way a worker and the kernel speak.

Files: `spec.json` (AttemptSpec), `reports.jsonl` (Report, one a line, appended by the worker), `control.json`
(Control, written beside and renamed by the kernel), `process.json` (Handle, written by the stub when it started),
`exit.json` (Exit, written by the stub at the end), `log` (standard output and error), `lock` (held by the stub).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json, Record
from llm_os.spec.processes import StopPolicy


class Input(Record):
    """One input of a task or engine: a read-only folder and what is known of it."""

    path: str
    facts: ArtifactFacts


class TaskCall(Record):
    task: str
    options: Mapping[str, Json]
    inputs: Mapping[str, Input]
    output: str
    """Empty folder that the task fills."""
    checkpoints: str
    """Folder of the job (not of the attempt): outlives attempts."""


class AdapterInput(Record):
    """An adapter that a replica shall hold beside its model."""

    name: str
    """What requests call it."""
    version: str
    """`card@number`."""
    path: str
    """Read-only folder in peft's form."""


class ServeCall(Record):
    """What an engine worker serves."""

    engine: str
    deployment: str
    model: Input
    version: str
    task: str
    options: Mapping[str, Json]
    socket: str
    """Unix socket to listen on."""
    reference: Input | None = None
    """What the model says in PyTorch: the engine is compared with it before it serves. None: it is not."""
    adapters: tuple[AdapterInput, ...] = ()
    """At its start; later ones come by `control.json`."""


class AttemptSpec(Record):
    attempt: str
    owner: str
    token: int
    argv: tuple[str, ...]
    env: Mapping[str, str]
    """Resolved: no placeholders are left. The stub adds them to a clean base environment."""
    threads: int
    devices: tuple[int, ...] = ()
    cwd: str
    stop: StopPolicy = StopPolicy()
    task: TaskCall | None = None
    serve: ServeCall | None = None
    preload: tuple[str, ...] = ()
    """Modules that the process may have loaded before it was given this attempt (`workers.spare`)."""


class Report(Record):
    """A line of `reports.jsonl`. `seq` counts from 1 in each attempt, so doubled lines are seen."""

    seq: int
    at: float
    kind: Literal["progress", "message", "checkpoint", "ready", "adapters", "result", "error", "parity"]
    values: Mapping[str, Json] = Field(default_factory=dict)


class Compare(Record):
    """A wish: compare the engine, which serves already, with the reference once more."""

    number: int
    """Larger than that of any wish before; reports of the kind `parity` name it."""
    reference: Input


class Control(Record):
    stop: bool = False
    reason: str = ""
    grace: float | None = None
    """Seconds that its requests get to end; None: as its StopPolicy says."""
    adapters: tuple[AdapterInput, ...] | None = None
    """All that a replica shall hold from now on; None: what it has."""
    compare: Compare | None = None


class Exit(Record):
    """`code` is None when a signal ended it. `started` False: it never ran."""

    code: int | None
    signal: int | None = None
    at: float
    started: bool = True
    message: str = ""


TELL_READ = "x-llm-os-tell-read"
"""Header by which a replica is asked for an interim answer (102) at the first token of an answer that is no stream."""
EXIT_OK = 0
EXIT_USER_ERROR = 10
"""The task refused its input; the last report of kind `error` says why. Never retried."""
EXIT_FAILED = 11
"""The task failed; the last report of kind `error` says why, and whether it is retryable."""
EXIT_STOPPED = 12
"""The task stopped because it was asked to; its newest checkpoint is whole."""
