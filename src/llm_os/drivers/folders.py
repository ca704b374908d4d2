"""Reads and seals attempt folders for launchers (`spec.attempts` says what lies there); starts and ends nothing."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from pydantic import ValidationError

from llm_os.spec.attempts import Exit
from llm_os.spec.processes import Handle


def read_exit(folder: Path) -> Exit | None:
    """How the attempt ended; None while it has not. A record that cannot be read counts as an end nobody knows of."""
    try:
        return Exit.model_validate_json((folder / "exit.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        return Exit(code=None, at=0.0, message=f"exit.json is damaged: {error.errors()[0]['msg']}.")


def read_handle(folder: Path) -> Handle | None:
    """Who runs or ran the attempt; None when no stub got that far."""
    try:
        return Handle.model_validate_json((folder / "process.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def is_locked(folder: Path) -> bool:
    """Whether a stub, or a launcher that seals, holds the folder at this moment. Takes the lock for microseconds."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def seal(folder: Path, message: str) -> bool:
    """Make sure that an attempt that never started never will. False: a stub holds it, or held it before.

    Raises:
        OSError: the seal could not be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (folder / "process.json").exists() or (folder / "exit.json").exists():
            return False
        write_exit(folder, Exit(code=None, at=time.time(), started=False, message=message))
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def write_exit(folder: Path, record: Exit) -> None:
    """For a launcher that ended a stub by force; whoever calls it made sure that the stub is dead or never was."""
    beside = folder / f"exit.json.{os.getpid()}"
    try:
        with beside.open("wb") as file:
            file.write(record.model_dump_json().encode())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(folder / "exit.json")
    finally:
        beside.unlink(missing_ok=True)
