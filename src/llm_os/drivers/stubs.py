"""Starts stubs, the supervisors of attempts (`workers.stub`); knows nothing of what they run."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from llm_os.drivers.members import MARK
from llm_os.errors import UnavailableError

STUB = Path(__file__).parents[1] / "workers" / "stub.py"


def spawn(folder: Path, *words: str, stdin: int | None = None) -> tuple[int, int]:
    """A stub in a session of its own: its process id and the descriptor it answers on.

    Args:
        words: come before the folder.
        stdin: descriptor it reads from; None: nothing.

    Raises:
        UnavailableError: no process could be started.
    """
    read_end, write_end = os.pipe()
    opened = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", str(STUB), *words, str(folder)],
            {**os.environ, MARK: str(folder)},
            file_actions=[
                opened if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0),
                (os.POSIX_SPAWN_DUP2, write_end, 1),
                (os.POSIX_SPAWN_OPEN, 2, str(folder / "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP],
        )
    except OSError as error:
        os.close(read_end)
        raise UnavailableError(
            f"No process could be started in {folder}: {error}.", hint="Does the folder exist, and is it writable?"
        ) from error
    finally:
        os.close(write_end)
    return pid, read_end
