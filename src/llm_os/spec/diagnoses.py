"""What is wrong with something, how one knows, and what to do: a closed list of causes."""

from __future__ import annotations

from enum import StrEnum

from llm_os.spec.base import Record


class Cause(StrEnum):
    OUT_OF_MEMORY = "out_of_memory"
    BAD_WEIGHTS = "bad_weights"
    PORT_TAKEN = "port_taken"
    DEPENDENCY = "dependency"
    """A package or library is missing, or of a version that does not fit."""
    DISK_FULL = "disk_full"
    TEMPLATE_MISSING = "template_missing"
    CRASH_LOOP = "crash_loop"
    QUEUED = "queued"
    """Slow because requests wait for a slot."""
    THROTTLED = "throttled"
    """Slow because the system holds the processor back: by quota, heat or clock."""


class Diagnosis(Record):
    cause: Cause
    sentence: str
    """What is wrong, in one sentence."""
    evidence: tuple[str, ...]
    """Lines of logs, counts and times that show it."""
    next: str
    """What to do, in one sentence."""
