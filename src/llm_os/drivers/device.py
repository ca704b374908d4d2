"""The interface of a device driver: list devices, read usage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from llm_os.spec.resources import Device, DeviceUsage


@dataclass(frozen=True, slots=True)
class Available:
    version: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Not usable here, and why; unavailable is not absent: `llm-os doctor` shows both."""

    reason: str
    hint: str = ""


Probe = Available | Unavailable


class DeviceDriver(ABC):
    """One kind of device. Methods may block for milliseconds; they never raise for a missing device."""

    name: str

    @abstractmethod
    def probe(self) -> Probe:
        """Whether this kind can be used here. May be called often."""

    @abstractmethod
    def devices(self) -> tuple[Device, ...]:
        """What is there now; empty when there is nothing. Accelerators only: `cpu` returns the host as one device."""

    @abstractmethod
    def usage(self) -> tuple[DeviceUsage, ...]:
        """A reading of each device, in the order of `devices`."""
