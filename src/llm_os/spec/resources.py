"""What machines have, what work asks for, and who holds what; units are CPUs (cores) and bytes."""

from __future__ import annotations

from pydantic import Field

from llm_os.spec.base import Record, Spec
from llm_os.spec.units import Bytes


class Device(Record):
    """One accelerator of a node, as a device driver saw it."""

    kind: str
    index: int
    name: str
    memory: Bytes
    uuid: str = ""


class DeviceUsage(Record):
    """A reading of one device (or of the host for kind `cpu`)."""

    kind: str
    index: int
    memory_used: Bytes
    utilization: float | None = None


class ResourceSpec(Spec):
    """What one worker asks for. `cpus` is a guaranteed share; a worker may run more threads when cores are idle."""

    accelerators: int = Field(default=0, ge=0)
    accelerator_kinds: tuple[str, ...] = ()
    cpus: float = Field(default=1.0, gt=0)
    memory: Bytes
    accelerator_memory: Bytes | None = None
    workers: int = Field(default=1, ge=1)


class Capacity(Record):
    """An amount of everything that can be shared: cores, host bytes, accelerators."""

    cpus: float
    memory: Bytes
    devices: tuple[Device, ...] = ()


class Caps(Spec):
    """What `set_resources` asks for: a cap inside the node's grant. None means no cap of its own."""

    cpus: float | None = Field(default=None, gt=0)
    memory: Bytes | None = None
    gpus: tuple[int, ...] | None = None


class Holding(Record):
    """Bytes and cores that one attempt holds, from its placement to its confirmed end."""

    attempt: str
    owner: str
    """Job id or deployment name."""
    kind: str
    """`job`, `replica` or `system`."""
    session: str | None = None
    cpus: float
    memory: Bytes
    devices: tuple[int, ...] = ()
    """Indices of accelerators held whole."""
    measured_memory: Bytes | None = None
    """Resident bytes seen last, None before the first reading."""


class Resources(Record):
    """Answer of `resources()`: what the machine has, what is granted, what is in use, by whom."""

    machine: Capacity
    granted: Capacity
    """The node's grant narrowed by this session's caps."""
    in_use: tuple[Holding, ...] = ()
    free: Capacity
    """Granted to this session and not held by anybody."""
    missing: tuple[str, ...] = ()
    """What was asked for and is not there, one phrase each; empty when everything is."""
