"""Finds the kernel of a home, or starts one, detached. One at a time, however many scripts ask."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock

from llm_os.errors import KernelUnavailableError, LLMOSError, from_dict

START_SECONDS = 40.0


def answers(path: Path) -> bool:
    """Whether a kernel listens on its socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def ensure_kernel(home: Path, path: Path, *, ephemeral: bool = True) -> bool:
    """Start a kernel unless one answers on `path`. True if one was started.

    Raises:
        KernelUnavailableError: it did not come up; says why.
    """
    if answers(path):
        return False
    try:
        (home / "logs").mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chmod(home, 0o700)
    except OSError as error:
        raise KernelUnavailableError(
            f"The home folder '{home}' cannot be used: {error.strerror}.",
            hint="Set LLM_OS_HOME to a folder you may write to.",
        ) from error
    with FileLock(home / "start.lock", mode=0o600):
        if answers(path):
            return False
        _start(home, path, ephemeral)
    return True


def _start(home: Path, path: Path, ephemeral: bool) -> None:
    command = [sys.executable, "-m", "llm_os.app", *(["--ephemeral"] if ephemeral else [])]
    errors = home / "logs" / "kernel.stderr"
    with errors.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=home,
            env={**os.environ, "LLM_OS_HOME": str(home)},
        )
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if answers(path):
            return
        if process.poll() is not None:
            raise _why(errors, process.returncode)
        time.sleep(0.05)
    raise KernelUnavailableError(
        f"The kernel did not answer within {START_SECONDS:.0f} s.", hint=f"Its log: {home / 'logs' / 'kernel.log'}."
    )


def _why(errors: Path, code: int) -> LLMOSError:
    lines = [line for line in errors.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else f"exit code {code}"
    if last.startswith('{"error"'):
        import json

        return from_dict(json.loads(last)["error"])
    return KernelUnavailableError(f"The kernel could not start: {last}", hint=f"Its output: {errors}.")
