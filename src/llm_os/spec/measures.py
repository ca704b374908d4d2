"""Numbers of one moment that the kernel tells: machine, ledger, replicas. Bytes and seconds; no I/O."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from llm_os.spec.base import Record


class HostReading(Record):
    """What the system says of this machine, or of the control group that the processes are in. None: it says nothing.

    Counters began when the machine, or the group, did.
    """

    memory: int
    """Bytes that may be used."""
    memory_available: int
    """Bytes that could be had without swapping."""
    oom_kills: int | None = None
    """Processes that were ended for lack of memory."""
    throttled_seconds: float | None = None
    """Time in which the group was not let run, because its quota of cores was used up."""
    throttled_share: float | None = None
    """Of the quota's periods, those in which it was used up."""
    frequency: float | None = None
    """Mean clock of the cores, as a share of the highest they know."""
    thermal_throttles: int | None = None
    """Times that a core was slowed down because it was hot."""


class DeploymentMeasures(Record):
    wanted: int
    """Replicas that were asked for."""
    ready: int
    memory: int
    """Resident bytes of its replicas, as seen last."""
    version: str = ""
    engine: str = ""
    labels: Mapping[str, str] = Field(default_factory=dict)
    """Its owner's words."""
    parity: Mapping[str, float] = Field(default_factory=dict)
    """Shares in which the revision in force agreed with the reference, when it was compared last: `sure` (places where
    the reference is sure) and `everywhere`. Empty: it was not compared."""


class Measures(Record):
    host: HostReading
    disk: int
    """Bytes of the file system of the home."""
    disk_free: int
    memory_granted: int
    memory_free: int
    """Granted bytes that nobody holds."""
    cpus_granted: float
    cpus_free: float
    gateway_up: bool
    deployments: Mapping[str, DeploymentMeasures] = Field(default_factory=dict)
    """Those that have not ended, by name."""
    lost: Mapping[str, int] = Field(default_factory=dict)
    """Replicas that ended unasked since their deployment was made, by its name; of those that ended lately, too."""
    jobs: Mapping[str, int] = Field(default_factory=dict)
    """Number of jobs by state."""
