"""A place in the home for what a script hands over by value: rows of frames and iterables, addresses with passwords.

Files are 0600 and locked while their script lives; they go when it has what it wanted. What a killed script left is
removed at the next use. Rows are named by their content, so that the same rows are the same job.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from llm_os.errors import DiskFullError, LLMOSError

ABANDONED = 60.0
"""Seconds after which a file that nobody has locked may go."""


@contextlib.contextmanager
def rows(home: Path, found: Iterable[Any]) -> Iterator[tuple[Path, str]]:
    """(path, sha256) of a JSON lines file of the rows, there as long as the block runs. Holds one row in memory."""
    with contextlib.ExitStack() as stack:
        file, beside = stack.enter_context(_locked(_place(home), ".part"))
        digest = hashlib.sha256()
        with _room():
            for row in found:
                line = json.dumps(row, ensure_ascii=False, default=_plain).encode("utf-8", "replace") + b"\n"
                digest.update(line)
                file.write(line)
            file.flush()
        name = digest.hexdigest()
        path = beside.with_name(f"{name}.jsonl")
        stack.enter_context(_shared(file, beside, path))
        yield path, name


@contextlib.contextmanager
def secret(home: Path, text: str) -> Iterator[Path]:
    """Path of a file with that text, which nobody else can read, as long as the block runs."""
    with _locked(_place(home), ".secret") as (file, path):
        with _room():
            file.write(text.encode())
            file.flush()
        yield path


def _place(home: Path) -> Path:
    """The folder; what no living script holds is removed first."""
    folder = home / "run" / "uploads"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                _remove_if_free(path)
    return folder


@contextlib.contextmanager
def _locked(folder: Path, ending: str) -> Iterator[tuple[IO[bytes], Path]]:
    path = folder / f"{secrets.token_hex(8)}{ending}"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        try:
            yield file, path
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _shared(own: IO[bytes], beside: Path, path: Path) -> Iterator[None]:
    """The finished file under its name; two scripts with equal rows share one, the last to leave removes it."""
    while True:
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            continue  # another script removed it just now
        fcntl.flock(file, fcntl.LOCK_SH)
        if _same(file, path):
            break
        file.close()
    beside.unlink(missing_ok=True)
    fcntl.flock(own, fcntl.LOCK_UN)
    try:
        yield
    finally:
        file.close()
        _remove_if_free(path)


def _same(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _remove_if_free(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except LLMOSError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"The rows do not fit on the disk: {error.strerror}.") from error
        raise


def _plain(value: Any) -> Any:
    """Numbers of numpy as numbers, arrays as lists, all else (dates, decimals) as text."""
    convert: Callable[[], Any] | None = getattr(value, "tolist", None)
    if convert is not None:
        return convert()
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
