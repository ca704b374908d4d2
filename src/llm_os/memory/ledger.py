"""Keeps who holds which cores, bytes and accelerators, so that never more is promised than there is. No I/O, no clock.

The ledger is built anew from the attempts that are not confirmed dead; it is no truth of its own, so it is right
after any restart. Host memory counts what was reserved or what was measured, whichever is more, so a worker that
outgrows its reservation leaves less to others.
Accelerators are held whole, by index.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llm_os.errors import CapacityError
from llm_os.spec.base import Json
from llm_os.spec.conditions import Reason
from llm_os.spec.resources import Capacity, Caps, Device, Holding, ResourceSpec
from llm_os.spec.units import format_bytes

_EPSILON = 1e-6
"""Cores are fractions; ten times 0.1 must fit into 1.0."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a request does not fit.

    Attributes:
        reason: `never_fits`, `session_cap`, or what there is not enough of.
        message: a phrase with numbers, no full stop: "needs 5.1 GiB of memory, 3.0 GiB free".
        details: `resource`, and `needs_<resource>`, `free_<resource>`, `granted_<resource>` (cores, bytes or a count).
    """

    reason: Reason
    message: str
    details: Mapping[str, Json] = field(default_factory=dict)


class Ledger:
    """See the module. Not thread-safe: it belongs to one decision.

    Args:
        granted: what the node's operator grants; its devices are accelerators only.
        holdings: what is held now. They are believed, also where together they exceed the grant (which may have
            shrunk since): then nothing is free.
        caps: caps by session id.
    """

    def __init__(
        self, granted: Capacity, holdings: Iterable[Holding] = (), caps: Mapping[str, Caps] | None = None
    ) -> None:
        self._granted = granted
        self._holdings = {holding.attempt: holding for holding in holdings}
        self._caps = dict(caps or {})

    def holdings(self) -> tuple[Holding, ...]:
        """All holdings by attempt id, sorted."""
        return tuple(self._holdings[attempt] for attempt in sorted(self._holdings))

    def granted(self, session: str | None = None) -> Capacity:
        """The grant, narrowed by the session's caps; what anybody holds is not taken off."""
        caps = self._caps.get(session) if session is not None else None
        if caps is None:
            return self._granted
        cpus, memory, devices = self._granted.cpus, self._granted.memory, self._granted.devices
        return Capacity(
            cpus=cpus if caps.cpus is None else min(cpus, caps.cpus),
            memory=memory if caps.memory is None else min(memory, caps.memory),
            devices=devices if caps.gpus is None else tuple(d for d in devices if d.index in caps.gpus),
        )

    def free(self, session: str | None = None) -> Capacity:
        """What `session` could still take: its cap and the grant, less what is held. Never negative."""
        everyone = self._holdings.values()
        cpus = self._granted.cpus - math.fsum(held.cpus for held in everyone)
        memory = self._granted.memory - sum(held_memory(held) for held in everyone)
        limit = self.granted(session)
        if limit is not self._granted:
            own = [held for held in everyone if held.session == session]
            cpus = min(cpus, limit.cpus - math.fsum(held.cpus for held in own))
            memory = min(memory, limit.memory - sum(held_memory(held) for held in own))
        taken = {index for held in everyone for index in held.devices}
        # fsum and round: the same cores are free in whatever order the holdings come.
        return Capacity(
            cpus=max(round(cpus, 6), 0.0),
            memory=max(memory, 0),
            devices=tuple(device for device in limit.devices if device.index not in taken),
        )

    def check(self, request: ResourceSpec, session: str | None = None) -> Shortage | None:
        """None when `request` fits now, otherwise the strongest reason why not."""
        return self.never_fits(request, session) or self._not_now(request, session)

    def never_fits(self, request: ResourceSpec, session: str | None = None) -> Shortage | None:
        """Why `request` could not run even if nobody held anything; None when it could."""
        if short := _compare(request, self._granted, self._granted, "granted"):
            return Shortage(Reason.NEVER_FITS, short.message, short.details)
        limit = self.granted(session)
        if short := _compare(request, limit, limit, "allowed to this session"):
            return Shortage(Reason.SESSION_CAP, short.message, short.details)
        return None

    def reserve(
        self,
        attempt: str,
        owner: str,
        kind: str,
        session: str | None,
        request: ResourceSpec,
        devices: tuple[int, ...] | None = None,
    ) -> Holding:
        """Hold what `request` asks for (all workers of a gang together) in the name of `attempt`.

        An attempt that holds something already keeps that: a doubled call takes nothing more.

        Args:
            devices: exactly these accelerators; None: the smallest that will do.

        Raises:
            CapacityError: it does not fit; nothing was taken.
        """
        if (held := self._holdings.get(attempt)) is not None:
            return held
        if (refusal := self.check(request, session)) is not None:
            raise CapacityError(
                f"{owner} {refusal.message}.",
                hint="It runs as soon as enough is free; `llm-os ps` shows who holds what.",
                details={"reason": refusal.reason.value, **refusal.details},
            )
        usable = _usable(self.free(session).devices, request)
        wanted = request.accelerators * request.workers
        taken = tuple(device.index for device in usable[:wanted]) if devices is None else devices
        if len(taken) != wanted or not set(taken) <= {device.index for device in usable}:
            raise CapacityError(
                f"{owner} was to hold accelerators {list(taken)}, which are not all free.",
                hint="It is placed again with the next plan.",
                details={"reason": Reason.NOT_ENOUGH_ACCELERATORS.value, "free": [d.index for d in usable]},
            )
        holding = Holding(
            attempt=attempt,
            owner=owner,
            kind=kind,
            session=session,
            cpus=request.cpus * request.workers,
            memory=request.memory * request.workers,
            devices=tuple(sorted(taken)),
        )
        self._holdings[attempt] = holding
        return holding

    def measure(self, attempt: str, resident: int) -> Holding | None:
        """Note the resident bytes seen last. None for an attempt that holds nothing: it ended meanwhile."""
        if (held := self._holdings.get(attempt)) is None:
            return None
        self._holdings[attempt] = held.model_copy(update={"measured_memory": resident})
        return self._holdings[attempt]

    def release(self, attempt: str) -> Holding | None:
        """Give back what `attempt` holds. None, and no harm, the second time."""
        return self._holdings.pop(attempt, None)

    def holders(self, of: str, session: str | None = None) -> tuple[Holding, ...]:
        """Who holds `of` ("cpus", "memory" or "accelerators"), the most first; of one session, or of all."""
        seen = [h for h in self._holdings.values() if session is None or h.session == session]
        amounts = [(_amount(holding, of), holding) for holding in seen]
        ranked = sorted((pair for pair in amounts if pair[0] > 0), key=lambda pair: (-pair[0], pair[1].attempt))
        return tuple(holding for _, holding in ranked)

    def _not_now(self, request: ResourceSpec, session: str | None) -> Shortage | None:
        if short := _compare(request, self.free(), self._granted, "free"):
            return short
        limit = self.granted(session)
        if limit is self._granted:
            return None
        if short := _compare(request, self.free(session), limit, "left to this session"):
            return Shortage(Reason.SESSION_CAP, short.message, short.details)
        return None


def shortage(request: ResourceSpec, granted: Capacity, free: Capacity) -> Shortage | None:
    """Compare a request with amounts, without a ledger: what could never fit into `granted`, or is not `free` now."""
    if short := _compare(request, granted, granted, "granted"):
        return Shortage(Reason.NEVER_FITS, short.message, short.details)
    return _compare(request, free, granted, "free")


def held_memory(holding: Holding) -> int:
    """Bytes that a holding takes from others: reserved or resident, whichever is more."""
    return max(holding.memory, holding.measured_memory or 0)


def _amount(holding: Holding, of: str) -> float:
    if of == "accelerators":
        return len(holding.devices)
    return holding.cpus if of == "cpus" else held_memory(holding)


def _usable(devices: Iterable[Device], request: ResourceSpec) -> list[Device]:
    """Devices that will do, the smallest first, so that a large one stays for who needs it."""
    least = request.accelerator_memory or 0
    kinds = request.accelerator_kinds
    fit = [d for d in devices if d.memory >= least and (not kinds or d.kind in kinds)]
    return sorted(fit, key=lambda device: (device.memory, device.index))


def _compare(request: ResourceSpec, room: Capacity, total: Capacity, words: str) -> Shortage | None:
    """The first thing that there is too little of, with the numbers."""
    memory = request.memory * request.workers
    if memory > room.memory:
        message = f"needs {format_bytes(memory)} of memory, {format_bytes(room.memory)} {words}"
        return _short(Reason.NOT_ENOUGH_MEMORY, message, "memory", memory, room.memory, total.memory)
    cpus = request.cpus * request.workers
    if cpus > room.cpus + _EPSILON:
        message = f"needs {cores(cpus)}, {_number(room.cpus)} {words}"
        return _short(Reason.NOT_ENOUGH_CPU, message, "cpus", cpus, room.cpus, total.cpus)
    wanted = request.accelerators * request.workers
    usable = _usable(room.devices, request)
    if wanted <= len(usable):
        return None
    kinds = " or ".join(request.accelerator_kinds) + " " if request.accelerator_kinds else ""
    plural = "s" if wanted > 1 else ""
    any_size = _usable(room.devices, request.model_copy(update={"accelerator_memory": None}))
    if wanted <= len(any_size):
        largest = max(device.memory for device in any_size)
        least = request.accelerator_memory or 0
        message = (
            f"needs {wanted} {kinds}accelerator{plural} with {format_bytes(least)}, "
            f"{len(usable)} of that size {words}, the largest has {format_bytes(largest)}"
        )
        return _short(Reason.NOT_ENOUGH_ACCELERATOR_MEMORY, message, "accelerator_memory", least, largest, largest)
    message = f"needs {wanted} {kinds}accelerator{plural}, {len(any_size)} {words}"
    have, most = len(any_size), len(total.devices)
    return _short(Reason.NOT_ENOUGH_ACCELERATORS, message, "accelerators", wanted, have, most)


def _short(reason: Reason, message: str, resource: str, needed: float, free: float, total: float) -> Shortage:
    amounts: dict[str, Json] = {f"needs_{resource}": needed, f"free_{resource}": free, f"granted_{resource}": total}
    return Shortage(reason, message, {"resource": resource, **amounts})


def cores(cpus: float) -> str:
    """`1 core`, `2.5 cores`."""
    return f"{_number(cpus)} core" + ("" if math.isclose(cpus, 1.0) else "s")


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
