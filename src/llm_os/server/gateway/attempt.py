"""The gateway's side of its attempt folder: it reports that it is ready, or why it cannot be; nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from llm_os.spec.attempts import Report
from llm_os.spec.base import Json


def report(folder: Path, kind: Literal["ready", "error", "message"], values: Mapping[str, Json], *, at: float) -> None:
    """Append one line to `reports.jsonl`, durably. Raises OSError."""
    path = folder / "reports.jsonl"
    earlier = path.read_bytes().count(b"\n") if path.exists() else 0
    line = Report(seq=earlier + 1, at=at, kind=kind, values=values).model_dump_json() + "\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)
