"""How this machine feels: memory left, cores held back, heat, ports. Reads /proc and /sys (control groups 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from llm_os.spec.measures import HostReading

SYS = Path("/sys")
PROC = Path("/proc")


def reading(sys: Path = SYS, proc: Path = PROC) -> HostReading:
    """The present numbers. Takes a millisecond; never raises for a file that is not there.

    Args:
        sys, proc: where they are read (tests give folders of their own).
    """
    host = psutil.virtual_memory()
    total, available = int(host.total), int(host.available)
    for group in _groups(sys, proc, "memory"):
        limit = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
        used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes")
        if limit and used is not None and limit < int(host.total):
            stat = _table(group / "memory.stat")
            # Pages of files that nobody has read lately are given up before anybody is ended.
            idle = stat.get("total_inactive_file", stat.get("inactive_file", 0))
            total, available = min(total, limit), min(available, max(0, limit - used + idle))
    throttled, share = _throttled(sys, proc)
    return HostReading(
        memory=total,
        memory_available=available,
        oom_kills=_oom_kills(sys, proc),
        throttled_seconds=throttled,
        throttled_share=share,
        frequency=_frequency(sys / "devices/system/cpu"),
        thermal_throttles=_sum(sys / "devices/system/cpu", "cpu[0-9]*/thermal_throttle/core_throttle_count"),
    )


def instruction_sets(proc: Path = PROC) -> tuple[str, ...]:
    """What the processor can beside its basic instructions, sorted; empty where the system does not tell."""
    try:
        lines = (proc / "cpuinfo").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    found = next((line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "features"))), "")
    return tuple(sorted(set(found.split())))


def _groups(sys: Path, proc: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's control group and of those above it, whose limits hold for it, too."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = ["0::/"]
    for line in lines:
        _, controllers, place = line.split(":", 2)
        root = sys / "fs/cgroup" / (controller if controllers else "")
        if controllers and controller not in controllers.split(","):
            continue
        own = root / place.strip("/")
        # In a container the path may be that of outside; then the mount itself is the container's group.
        while own != root and not own.exists():
            own = own.parent
        while True:
            yield own
            if own == root:
                break
            own = own.parent


def _throttled(sys: Path, proc: Path) -> tuple[float | None, float | None]:
    """Seconds and share of the group that was held back most."""
    found: list[tuple[float, float]] = []
    for group in _groups(sys, proc, "cpu"):
        stat = _table(group / "cpu.stat")
        if "nr_throttled" not in stat:
            continue
        # Version 1 counts nanoseconds.
        seconds = stat["throttled_usec"] / 1e6 if "throttled_usec" in stat else stat.get("throttled_time", 0) / 1e9
        found.append((seconds, stat["nr_throttled"] / max(1, stat.get("nr_periods", 0))))
    return max(found, default=(None, None))


def _oom_kills(sys: Path, proc: Path) -> int | None:
    """Of the whole machine, where it tells; a group's own count misses those that the machine ended."""
    if (found := _table(proc / "vmstat").get("oom_kill")) is not None:
        return found
    for group in _groups(sys, proc, "memory"):
        for name in ("memory.events", "memory.oom_control"):
            if (found := _table(group / name).get("oom_kill")) is not None:
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


def listener(port: int) -> str:
    """Who listens on a TCP port of this machine, such as `nginx (process 812)`; empty where one may not know."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        return ""
    return ""
