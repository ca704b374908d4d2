"""Tells a process from another that got its number later: number, start time, boot id. Only reads /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llm_os.spec.processes import Handle

PROC = Path("/proc")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """A line of the process table.

    Attributes:
        state: one letter; `Z` and `X` are dead and wait to be reaped.
        start_time: clock ticks since boot.
        resident: bytes, pages shared with other processes included.
    """

    pid: int
    state: str
    parent: int
    session: int
    start_time: int
    resident: int

    @property
    def alive(self) -> bool:
        return self.state not in "ZX"


@cache
def boot_id() -> str:
    """Changes with every start of the machine; empty where the system has none."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def read_process(pid: int) -> Process | None:
    """The process that has this number now, None when there is none."""
    try:
        line = (PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = line.rpartition(b")")[2].split()  # a program's name may hold spaces and brackets; the last bracket ends it
    return Process(
        pid=pid,
        state=fields[0].decode(),
        parent=int(fields[1]),
        session=int(fields[3]),
        start_time=int(fields[19]),
        resident=int(fields[21]) * _PAGE,
    )


def read_environment(pid: int) -> bytes:
    """Its environment as it was started, NUL-separated; empty when it is gone or not ours to read."""
    try:
        return (PROC / str(pid) / "environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def processes() -> Iterator[Process]:
    """All living processes of the machine, each read at its own moment."""
    for name in os.listdir(PROC):
        if name.isdigit():
            process = read_process(int(name))
            if process is not None and process.alive:
                yield process


def same_process(handle: Handle) -> Process | None:
    """The living process that `handle` names; None when it has ended, also if its number was given to another."""
    if handle.pid is None or handle.boot_id != boot_id():
        return None
    process = read_process(handle.pid)
    if process is None or not process.alive or process.start_time != handle.start_time:
        return None
    return process
