"""Accelerators that are not there, for tests: its options are its faults. Knows no real device."""

from __future__ import annotations

from collections.abc import Sequence

from llm_os.drivers.device import Available, DeviceDriver, Probe, Unavailable
from llm_os.spec.resources import Device, DeviceUsage

GIB = 2**30


class FakeDevice(DeviceDriver):
    """As many accelerators as asked for.

    Args:
        memory: bytes of each accelerator; their number is the number of accelerators.
        used: bytes in use on each; missing ones are 0.
        unavailable: a reason to be not usable; then there are no devices.
    """

    name = "fake"

    def __init__(
        self, memory: Sequence[int] = (8 * GIB, 8 * GIB), used: Sequence[int] = (), unavailable: str = ""
    ) -> None:
        self.memory = list(memory)
        self.used = list(used)
        self.unavailable = unavailable

    def probe(self) -> Probe:
        if self.unavailable:
            return Unavailable(reason=self.unavailable, hint="Make the fake device available.")
        return Available(version="1", detail=f"{len(self.memory)} fake accelerators")

    def devices(self) -> tuple[Device, ...]:
        sizes = [] if self.unavailable else self.memory
        return tuple(
            Device(kind=self.name, index=index, name=f"Fake {index}", memory=size, uuid=f"fake-{index}")
            for index, size in enumerate(sizes)
        )

    def usage(self) -> tuple[DeviceUsage, ...]:
        used = [*self.used, *[0] * len(self.memory)]
        return tuple(
            DeviceUsage(kind=self.name, index=device.index, memory_used=used[device.index], utilization=0.0)
            for device in self.devices()
        )


PLUGIN = FakeDevice()
