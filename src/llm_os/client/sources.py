"""From what `load_data` was given to the job that prepares it; reads nothing but names and hashes of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_os.errors import InvalidInputError, NotFoundError, did_you_mean
from llm_os.spec.base import Json
from llm_os.spec.jobs import JobSpec
from llm_os.spec.models import ModelVersion

BUILT_IN = ("sentic_data",)
LONGEST_PATH = 4096
Steps = Sequence[str | tuple[str, Mapping[str, Any]] | Mapping[str, Any]]
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
        named = [role for role, column in columns.items() if column is not None]
        if named:
            raise InvalidInputError(f"{name} has its own columns.", hint=f"Leave `{named[0]}` out; it is for files.")
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


def listed(steps: Steps | None, *, redact: bool = False) -> list[Json] | None:
    """Steps in the form that jobs record; files that options name are given by absolute path and sha256.

    Args:
        steps: None: the default, which the source knows.
        redact: add the step `redact`, behind the cleaning that the steps begin with (which writes `&#64;` as `@`).

    Raises:
        InvalidInputError: something is no step.
    """
    if steps is None and not redact:
        return None
    found: list[dict[str, Json]] = []
    for step in ["clean"] if steps is None else [steps] if isinstance(steps, str) else steps:
        if isinstance(step, str):
            found.append({"step": step})
        elif isinstance(step, tuple) and len(step) == 2 and isinstance(step[1], Mapping):
            found.append(_with_files({"step": str(step[0]), "options": options_of(step[1])}))
        elif isinstance(step, Mapping) and "step" in step:
            found.append(_with_files(dict(step)))
        else:
            raise InvalidInputError(
                f"{step!r} is no preparation step.", hint='Write "clean", or ("deduplicate", {"threshold": 0.8}).'
            )
    names = [step["step"] for step in found]
    if redact and "redact" not in names:
        found.insert(next((i for i, name in enumerate(names) if name != "clean"), len(names)), {"step": "redact"})
    return list(found)


def _with_files(step: dict[str, Json]) -> dict[str, Json]:
    """Options whose value is the path of a file that exists (with a folder or an ending) become absolute and hashed."""
    options = step.get("options")
    content: dict[str, Json] = {}
    named: dict[str, Json] = {}
    for name, value in options.items() if isinstance(options, dict) else ():
        if name != "model" and isinstance(value, str) and len(value) < LONGEST_PATH and "\n" not in value:
            path = Path(value).expanduser()
            if (os.sep in value or path.suffix) and path.is_file():
                named[name], content[name] = str(path.absolute()), sha256(path)
    return (
        {**step, "options": {**options, **named}, "content": content} if isinstance(options, dict) and content else step
    )


def with_model(
    steps: Sequence[Json] | None, find: Callable[[str], ModelVersion]
) -> tuple[list[Json] | None, dict[str, str]]:
    """The steps with the model they name as `card@number`, and the job's input that holds it; {} where they name none.

    Args:
        find: a version by what the user wrote.

    Raises:
        InvalidInputError: two steps name different models. NotFoundError: there is no such model.
    """
    names = {str(options["model"]) for options in map(_options, steps or ()) if options.get("model") is not None}
    if len(names) > 1:
        raise InvalidInputError(
            f"The steps name {len(names)} models: {', '.join(sorted(names))}.",
            hint="One call can use one; call prepare again for the next.",
        )
    if steps is None or not names:
        return None if steps is None else list(steps), {}
    version = find(names.pop())
    named: list[Json] = []
    for step in steps:
        options = _options(step)
        ref: dict[str, Json] = {"options": {**options, "model": version.ref}} if options.get("model") else {}
        named.append({**step, **ref} if isinstance(step, dict) else step)
    return named, {"tokenizer": version.manifest}


def _options(step: Json) -> Mapping[str, Json]:
    options = step.get("options") if isinstance(step, dict) else None
    return options if isinstance(options, dict) else {}


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
    """Further options as JSON: sets and tuples become lists, a model its `card@number`."""
    return {name: _plain(value) for name, value in extra.items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | set) else getattr(value, "version", value)
