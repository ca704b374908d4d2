"""Whose turn it is: services before jobs of equal priority, then the order of submission. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from llm_os.scheduler.snapshot import Waiting


def in_turn(waiting: Iterable[Waiting]) -> list[Waiting]:
    """Highest priority first; a replica before a job, because somebody is waiting for its answer; then the oldest."""
    return sorted(waiting, key=lambda w: (-w.priority, w.kind != "replica", w.submitted, w.subject))
