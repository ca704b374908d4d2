"""Who holds which bytes, cores and accelerators; never more than there are. Pure: knows no clock, disk or engine.

The kernel builds it from the attempts that are not confirmed dead, so it is right after any restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llm_os.errors import CapacityError
from llm_os.spec.base import Json
from llm_os.spec.conditions import Reason
from llm_os.spec.resources import Capacity, Caps, Device, Holding, ResourceSpec
from llm_os.spec.units import format_bytes

EPSILON = 1e-6
"""Shares of cores are floats; sums of them are compared with this slack."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a request does not fit, with the numbers."""

    reason: Reason
    message: str
    details: Mapping[str, Json] = field(default_factory=dict)


def cores(value: float) -> str:
    """`1 CPU`, `0.5 CPUs`, `2 CPUs`."""
    return f"{value:g} CPU" if value == 1 else f"{value:g} CPUs"


def held_memory(holding: Holding) -> int:
    """What a holding takes from the memory, in bytes: its reservation, or what it was seen to use if that is more."""
    return max(holding.memory, holding.measured_memory or 0)


class Ledger:
    """A value: reservations are made in it and the kernel commits them.

    Args:
        granted: what the node's operator grants.
        holdings: everything that runs or may still run.
        caps: caps by session id.
    """

    def __init__(
        self, granted: Capacity, holdings: Iterable[Holding] = (), caps: Mapping[str, Caps] | None = None
    ) -> None:
        self._granted = granted
        self._holdings = {holding.attempt: holding for holding in holdings}
        self._caps = dict(caps or {})

    def holdings(self) -> tuple[Holding, ...]:
        """All holdings, by attempt."""
        return tuple(self._holdings[name] for name in sorted(self._holdings))

    def granted(self, session: str | None = None) -> Capacity:
        """The grant, narrowed by the session's caps; what others hold is not taken off."""
        caps = self._caps.get(session, Caps()) if session else Caps()
        devices = self._granted.devices
        if caps.gpus is not None:
            devices = tuple(device for device in devices if device.index in caps.gpus)
        return Capacity(
            cpus=self._granted.cpus if caps.cpus is None else min(caps.cpus, self._granted.cpus),
            memory=self._granted.memory if caps.memory is None else min(caps.memory, self._granted.memory),
            devices=devices,
        )

    def free(self, session: str | None = None) -> Capacity:
        """What is left, for everybody or for one session inside its caps. Never negative."""
        taken = {index for holding in self._holdings.values() for index in holding.devices}
        cpus, memory = self._left(self._granted, self._holdings.values())
        if session and session in self._caps:
            own = [holding for holding in self._holdings.values() if holding.session == session]
            own_cpus, own_memory = self._left(self.granted(session), own)
            cpus, memory = min(cpus, own_cpus), min(memory, own_memory)
        devices = tuple(device for device in self.granted(session).devices if device.index not in taken)
        return Capacity(cpus=max(0.0, round(cpus, 6)), memory=max(0, memory), devices=devices)

    def check(self, request: ResourceSpec, session: str | None = None) -> Shortage | None:
        """None if all workers of `request` fit now; otherwise what is short."""
        return shortage(request, self.granted(session), self.free(session), capped=session in self._caps)

    def reserve(self, attempt: str, owner: str, kind: str, session: str | None, request: ResourceSpec) -> Holding:
        """Hold what `request` asks for. The same attempt twice is one holding.

        Raises:
            CapacityError: it does not fit; nothing was changed.
        """
        if attempt in self._holdings:
            return self._holdings[attempt]
        short = self.check(request, session)
        if short is not None:
            raise CapacityError(
                short.message, hint="Wait until something ends, or ask for less.", details=short.details
            )
        chosen = pick_devices(request, self.free(session).devices)
        holding = Holding(
            attempt=attempt,
            owner=owner,
            kind=kind,
            session=session,
            cpus=request.cpus * request.workers,
            memory=request.memory * request.workers,
            devices=tuple(device.index for device in chosen),
        )
        self._holdings[attempt] = holding
        return holding

    def measure(self, attempt: str, resident: int) -> Holding | None:
        """Note `resident` bytes seen. None for an attempt that holds nothing (a late reading)."""
        holding = self._holdings.get(attempt)
        if holding is None:
            return None
        self._holdings[attempt] = holding.model_copy(update={"measured_memory": resident})
        return self._holdings[attempt]

    def release(self, attempt: str) -> Holding | None:
        """Give back what it held. None, and no harm, the second time."""
        return self._holdings.pop(attempt, None)

    def _left(self, grant: Capacity, holdings: Iterable[Holding]) -> tuple[float, int]:
        held = list(holdings)
        return grant.cpus - sum(h.cpus for h in held), grant.memory - sum(map(held_memory, held))


def pick_devices(request: ResourceSpec, free: Iterable[Device]) -> tuple[Device, ...]:
    """The accelerators a request would get, lowest index first; fewer than asked for when there are too few."""
    fitting = [device for device in free if _suits(request, device)]
    return tuple(sorted(fitting, key=lambda device: device.index)[: request.accelerators * request.workers])


def _suits(request: ResourceSpec, device: Device) -> bool:
    kind = not request.accelerator_kinds or device.kind in request.accelerator_kinds
    return kind and device.memory >= (request.accelerator_memory or 0)


def shortage(request: ResourceSpec, granted: Capacity, free: Capacity, *, capped: bool = False) -> Shortage | None:
    """Compare a request with what is free; `granted` tells whether it could ever fit."""
    memory, cpus = request.memory * request.workers, request.cpus * request.workers
    gpus = request.accelerators * request.workers
    inside = " inside this session's cap" if capped else ""
    if memory > free.memory:
        never = memory > granted.memory
        what = f"{format_bytes(granted.memory)} granted" if never else f"{format_bytes(free.memory)} free"
        return Shortage(
            Reason.NEVER_FITS if never else Reason.NOT_ENOUGH_MEMORY,
            f"needs {format_bytes(memory)}, {what}{inside}",
            {"needs_memory": memory, "free_memory": free.memory, "granted_memory": granted.memory},
        )
    if cpus > free.cpus + EPSILON:
        never = cpus > granted.cpus + EPSILON
        what = f"{granted.cpus:g} granted" if never else f"{free.cpus:g} free"
        return Shortage(
            Reason.NEVER_FITS if never else Reason.NOT_ENOUGH_CPU,
            f"needs {cores(cpus)}, {what}{inside}",
            {"needs_cpus": cpus, "free_cpus": free.cpus, "granted_cpus": granted.cpus},
        )
    if len(pick_devices(request, free.devices)) < gpus:
        never = len(pick_devices(request, granted.devices)) < gpus
        least = f" with {format_bytes(request.accelerator_memory)}" if request.accelerator_memory else ""
        what = f"{len(granted.devices)} granted" if never else f"{len(free.devices)} free"
        return Shortage(
            Reason.NEVER_FITS if never else Reason.NOT_ENOUGH_ACCELERATORS,
            f"needs {gpus} accelerator{'s' if gpus > 1 else ''}{least}, {what}{inside}",
            {"needs_accelerators": gpus, "free_accelerators": len(free.devices)},
        )
    return None
