"""The narrow waist: anything that runs. Engines and tasks produce a ProcessSpec, launchers consume it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from llm_os.spec.base import Digest, Record, Spec
from llm_os.spec.resources import ResourceSpec
from llm_os.spec.units import Duration


class StopPolicy(Spec):
    """Ask first (control.json, SIGTERM), then end it (SIGKILL) after `grace`."""

    grace: Duration = 10.0


class Gang(Spec):
    """Workers that start together or not at all (a later issue runs more than one)."""

    size: int = Field(default=1, ge=1)


class ProcessSpec(Spec):
    """Anything that runs, a served replica or a training worker.

    `argv` and the values of `env` may hold `{attempt}` (the attempt folder), `{python}` (the interpreter),
    `{socket}` (path of the replica's Unix socket), `{threads}`, `{inputs.NAME}` (folder of an input), `{output}`.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = Field(default_factory=dict)
    inputs: Mapping[str, Digest] = Field(default_factory=dict)
    ports: tuple[str, ...] = ()
    resources: ResourceSpec
    gang: Gang | None = None
    environment: str = "default"
    """Name of the environment of the home whose `{python}` it is; where there is none of that name, the kernel's."""
    stop: StopPolicy = StopPolicy()


class ProcessPhase(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    LOST = "lost"
    """It was started, runs no more and left no exit record (killed stub, reboot)."""
    ABSENT = "absent"
    """Never started, or nothing is known of it."""


class Handle(Record):
    """How a launcher finds a process again after the kernel restarted."""

    attempt: str
    launcher: str
    pid: int | None = None
    start_time: int | None = None
    """Clock ticks since boot, field 22 of /proc/PID/stat."""
    boot_id: str | None = None


class ProcessStatus(Record):
    attempt: str
    phase: ProcessPhase
    exit_code: int | None = None
    signal: int | None = None
    resident_memory: int | None = None
    message: str = ""
