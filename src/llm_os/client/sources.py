"""From what `load_data` was given to the job that prepares it; reads nothing but names and hashes of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_os.errors import InvalidInputError, NotFoundError, did_you_mean
from llm_os.spec.base import Json
from llm_os.spec.jobs import JobSpec

BUILT_IN = ("sentic_data",)
Steps = Sequence[str | tuple[str, Mapping[str, Json]] | Mapping[str, Json]]
"""Preparation steps: a name, a name with options, or `{"step": name, "options": {...}}`."""


def job_for(
    source: str | Path, options: Mapping[str, Json], columns: Mapping[str, str | None], test: str | Path | None
) -> JobSpec:
    """The job that prepares `source`.

    Args:
        options: what every source knows (`tasks/datasets/options.py`). columns: named by role: `text`, `label`.
        test: a file of test rows.

    Raises:
        NotFoundError: no such file or data set.
    """
    name = str(source)
    if name in BUILT_IN:
        if test is not None:
            raise InvalidInputError(f"{name} brings its own test rows.", hint="Leave `test` out.")
        return JobSpec(task=f"datasets/{name}", options=dict(options))
    path = existing(name)
    given: dict[str, Json] = {**options, **columns, "path": str(path), "content": sha256(path)}
    if given.get("labels") == 2:
        given["labels"] = None  # the default: as many classes as there are
    if given.get("language") == "en":
        given["language"] = "unknown"  # the default too: nobody said
    if test is not None:
        beside = existing(str(test))
        given |= {"test": str(beside), "test_content": sha256(beside)}
    return JobSpec(task="datasets/table", options=given)


def listed(steps: Steps, *, redact: bool = False) -> list[Json]:
    """Steps in the form that jobs record. Raises InvalidInputError.

    Args:
        redact: add the step `redact`, behind the cleaning that the steps begin with (which writes `&#64;` as `@`).
    """
    found: list[dict[str, Json]] = []
    for step in [steps] if isinstance(steps, str) else steps:
        if isinstance(step, str):
            found.append({"step": step})
        elif isinstance(step, tuple) and len(step) == 2 and isinstance(step[1], Mapping):
            found.append({"step": str(step[0]), "options": dict(step[1])})
        elif isinstance(step, Mapping) and "step" in step:
            found.append(dict(step))
        else:
            raise InvalidInputError(
                f"{step!r} is no preparation step.", hint='Write "clean", or ("deduplicate", {"threshold": 0.8}).'
            )
    names = [step["step"] for step in found]
    if redact and "redact" not in names:
        found.insert(next((i for i, name in enumerate(names) if name != "clean"), len(names)), {"step": "redact"})
    return list(found)


def existing(name: str) -> Path:
    """The absolute path. Raises NotFoundError, with "did you mean" where it looks like a built-in name."""
    path = Path(name).expanduser()
    if path.exists():
        return path.absolute()
    if os.sep in name or path.suffix:
        raise NotFoundError(f"There is no file '{path.absolute()}'.", hint="Check the path; relative ones start here.")
    raise NotFoundError(
        f"There is no data set '{name}'.",
        hint=did_you_mean(name, BUILT_IN) + " Or give a file: load_data('reviews.csv', text='...', label='...').",
    )


def sha256(path: Path) -> str | None:
    """Of a file; None for a folder. Raises NotFoundError where it cannot be read."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise NotFoundError(f"'{path}' cannot be read: {error.strerror}.", hint="Check its permissions.") from error


def options_of(extra: Mapping[str, Any]) -> dict[str, Json]:
    """Further options as JSON; sets and tuples become lists."""
    return {name: list(value) if isinstance(value, tuple | set) else value for name, value in extra.items()}
