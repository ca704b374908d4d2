"""From what `load_data` was given to the job that prepares it; reads hashes of files, and rows in memory."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_os.client import addresses, rows, uploads
from llm_os.errors import InvalidInputError, NotFoundError, did_you_mean
from llm_os.spec.base import Json
from llm_os.spec.jobs import JobSpec
from llm_os.spec.models import ModelVersion

BUILT_IN = ("sentic_data",)
LONGEST_PATH = 4096
Steps = Sequence[str | tuple[str, Mapping[str, Any]] | Mapping[str, Any]]
"""Preparation steps: a name, a name with options, or `{"step": name, "options": {...}}`."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The job that prepares a source, and what it is called while it runs."""

    spec: JobSpec
    title: str


@contextlib.contextmanager
def job_for(
    source: Any, options: Mapping[str, Json], columns: Mapping[str, str | None], test: Any, home: Path
) -> Iterator[Prepared]:
    """The job that prepares `source`; what it reads is there as long as the block runs.

    Args:
        source: see `load_data`. options: what every source knows (`tasks/datasets/options.py`).
        columns: named by role: `text`, `label`.
        test: test rows: a file, a frame or rows, or a second query. home: where rows in memory are put for the job.

    Raises:
        NotFoundError: no such file or data set. InvalidInputError: what does not go together.
    """
    with contextlib.ExitStack() as stack:
        name = str(source) if isinstance(source, str | Path) else ""
        if name in BUILT_IN:
            _no_test(name, test)
            named = [role for role, column in columns.items() if column is not None]
            if named:
                raise InvalidInputError(
                    f"{name} has its own columns.", hint=f"Leave `{named[0]}` out; it is for files."
                )
            yield Prepared(JobSpec(task=f"datasets/{name}", options=dict(options)), name)
            return
        given: dict[str, Json] = {**options, **columns}
        if given.get("labels") == 2:
            given["labels"] = None  # the default: as many classes as there are
        if given.get("language") == "en":
            given["language"] = "unknown"  # the default too: nobody said
        if name.startswith("hub:"):
            _no_test(name, test)
            yield Prepared(JobSpec(task="datasets/hub", options={**given, "source": name}), name)
        elif addresses.is_address(name):
            yield Prepared(_sql(stack, home, name, given, test), "the query")
        elif name and existing(name).is_dir():
            _no_test(name, test)
            folder = existing(name)
            given |= {"path": str(folder), "content": folder_sha256(folder)}
            yield Prepared(JobSpec(task="datasets/folder", options=given), folder.name)
        else:
            given |= _table(stack, home, source, "path", "content", given)
            if test is not None:
                given |= _table(stack, home, test, "test", "test_content", given)
            given.setdefault("name", None if name else "rows")
            yield Prepared(JobSpec(task="datasets/table", options=given), str(given.get("called") or Path(name).name))


def _no_test(name: str, test: Any) -> None:
    if test is not None:
        raise InvalidInputError(f"{name} brings its own test rows.", hint="Leave `test` out.")


def _table(
    stack: contextlib.ExitStack, home: Path, source: Any, path: str, content: str, given: Mapping[str, Json]
) -> dict[str, Json]:
    """Options that name a file: the user's, or one of the rows that were given."""
    if isinstance(source, str | Path):
        file = existing(str(source))
        return {path: str(file), content: sha256(file)}
    called = rows.title_of(source)
    found = rows.rows_of(source, skip=given.get("bad_rows") == "skip")
    place, digest = stack.enter_context(uploads.rows(home, found))
    return {path: str(place), content: digest, **({"called": called} if path == "path" else {})}


def _sql(stack: contextlib.ExitStack, home: Path, name: str, given: dict[str, Json], test: Any) -> JobSpec:
    """A query's job. An address that holds a password goes through a file that only the user can read."""
    if not given.get("query"):
        raise InvalidInputError(
            "A database needs a query.", hint="load_data(address, query='SELECT text, label FROM reviews')."
        )
    if test is not None and not isinstance(test, str):
        raise InvalidInputError("The test of a query is a query.", hint="Give `test='SELECT ...'`.")
    address = addresses.absolute(name)
    shown = addresses.shown(address)
    secret = None if shown == address else str(stack.enter_context(uploads.secret(home, address)))
    return JobSpec(task="datasets/sql", options={**given, "address": shown, "secret": secret, "test": test})


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


def folder_sha256(folder: Path) -> str:
    """Over names and contents of its files, hidden ones left out; as `tasks/datasets/folder.py` checks it."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith((".", "__MACOSX")) for part in name.parts):
            whole.update(f"{name.as_posix()}\x00{sha256(path)}\n".encode())
    return whole.hexdigest()


def options_of(extra: Mapping[str, Any]) -> dict[str, Json]:
    """Further options as JSON: sets and tuples become lists, a model its `card@number`."""
    return {name: _plain(value) for name, value in extra.items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | set) else getattr(value, "version", value)
