"""How this machine feels: memory left, cores held back, heat. Reads /proc and /sys (control groups 1 and 2) only."""

from __future__ import annotations

from pathlib import Path

import psutil

from llm_os.spec.measures import HostReading

CGROUP = Path("/sys/fs/cgroup")
CPUS = Path("/sys/devices/system/cpu")
VMSTAT = Path("/proc/vmstat")


def reading(cgroup: Path = CGROUP, cpus: Path = CPUS, vmstat: Path = VMSTAT) -> HostReading:
    """The present numbers. Takes a millisecond; never raises for a file that is not there.

    Args:
        cgroup, cpus, vmstat: where they are read (tests give folders of their own).
    """
    host = psutil.virtual_memory()
    total, available = int(host.total), int(host.available)
    limit = _number(cgroup / "memory.max") or _number(cgroup / "memory/memory.limit_in_bytes")
    used = _number(cgroup / "memory.current") or _number(cgroup / "memory/memory.usage_in_bytes")
    if limit and used is not None and limit < total:
        stat = _table(cgroup / "memory.stat") or _table(cgroup / "memory/memory.stat")
        # Pages of files that nobody has read lately are given up before anybody is ended.
        idle = stat.get("inactive_file", stat.get("total_inactive_file", 0))
        total, available = limit, min(available, max(0, limit - used + idle))
    cpu = _table(cgroup / "cpu.stat") or _table(cgroup / "cpu/cpu.stat")
    throttled = cpu["throttled_usec"] / 1e6 if "throttled_usec" in cpu else None
    if throttled is None and "throttled_time" in cpu:  # version 1 counts nanoseconds
        throttled = cpu["throttled_time"] / 1e9
    periods = cpu.get("nr_periods", 0)
    return HostReading(
        memory=total,
        memory_available=available,
        oom_kills=_oom_kills(cgroup, vmstat),
        throttled_seconds=throttled,
        throttled_share=cpu.get("nr_throttled", 0) / periods if periods else None,
        frequency=_frequency(cpus),
        thermal_throttles=_sum(cpus, "cpu[0-9]*/thermal_throttle/core_throttle_count"),
    )


def _oom_kills(cgroup: Path, vmstat: Path) -> int | None:
    """Of the whole machine, where it tells; a group's own count misses those that the machine ended."""
    for path in (vmstat, cgroup / "memory.events", cgroup / "memory/memory.oom_control"):
        if (found := _table(path).get("oom_kill")) is not None:
            return found
    return None


def _frequency(cpus: Path) -> float | None:
    shares = []
    for folder in cpus.glob("cpu[0-9]*/cpufreq"):
        now, most = _number(folder / "scaling_cur_freq"), _number(folder / "cpuinfo_max_freq")
        if now and most:
            shares.append(now / most)
    return sum(shares) / len(shares) if shares else None


def _sum(folder: Path, pattern: str) -> int | None:
    found = [number for path in folder.glob(pattern) if (number := _number(path)) is not None]
    return sum(found) if found else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError):
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}
