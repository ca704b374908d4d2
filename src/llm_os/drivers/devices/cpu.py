"""The host as a device: cores by affinity and control group, memory by control group. Reads /proc and /sys only."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from llm_os.drivers.device import Available, DeviceDriver, Probe
from llm_os.spec.resources import Device, DeviceUsage

CGROUP = Path("/sys/fs/cgroup")


class CpuDevice(DeviceDriver):
    """One device of index 0: the host. Works everywhere.

    Args:
        cgroup: root of the control groups (tests give a folder of their own).
    """

    name = "cpu"

    def __init__(self, cgroup: Path = CGROUP) -> None:
        self._cgroup = cgroup

    def probe(self) -> Probe:
        return Available(version=os.uname().release, detail=f"{self.cores():g} cores")

    def cores(self) -> float:
        """Cores this process may use: affinity, then the quota of the control group (version 2 or 1)."""
        affinity = float(len(os.sched_getaffinity(0)))
        quota = self._quota()
        return min(affinity, quota) if quota else affinity

    def memory(self) -> int:
        """Bytes this process may use: the host's, or the control group's limit if that is less."""
        limits = [self._number("memory.max"), self._number("memory/memory.limit_in_bytes")]
        # psutil reads the host; version 1 writes "no limit" as a number beyond every host.
        total = int(psutil.virtual_memory().total)
        return min([total, *[limit for limit in limits if limit]])

    def devices(self) -> tuple[Device, ...]:
        return (Device(kind="cpu", index=0, name=_model(), memory=self.memory()),)

    def usage(self) -> tuple[DeviceUsage, ...]:
        memory = psutil.virtual_memory()
        used = int(memory.total - memory.available)
        return (DeviceUsage(kind="cpu", index=0, memory_used=used, utilization=psutil.cpu_percent() / 100),)

    def _quota(self) -> float | None:
        try:
            quota, period = (self._cgroup / "cpu.max").read_text().split()
            return None if quota == "max" else int(quota) / int(period)
        except (OSError, ValueError):
            quota_us, period_us = self._number("cpu/cpu.cfs_quota_us"), self._number("cpu/cpu.cfs_period_us")
            return quota_us / period_us if quota_us and period_us else None

    def _number(self, name: str) -> int | None:
        try:
            value = int((self._cgroup / name).read_text())
        except (OSError, ValueError):
            return None
        return value if value > 0 else None


def _model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        return "CPU"
    return "CPU"


PLUGIN = CpuDevice()
