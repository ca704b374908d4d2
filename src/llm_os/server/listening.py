"""Opens the sockets of management API and gateway: private folder, no stale socket, a port in use named; no HTTP."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from llm_os.errors import ConflictError, PermissionDeniedError, PortInUseError

LOOPBACK = "127.0.0.1"
_BACKLOG = 1024


def on_tcp(port: int, variable: str) -> socket.socket:
    """A socket that listens on loopback; port 0 takes a free one. `variable` is the setting that chooses the port.

    Raises:
        PortInUseError: another program listens there.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Restarts must not wait for old connections to time out; two programs must never share the port.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((LOOPBACK, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"Port {port} on {LOOPBACK} is in use by another program.",
                hint=f"End that program, or set {variable} to another port (0 picks a free one).",
                details={"port": port, "variable": variable},
            ) from error
        if error.errno == errno.EACCES:
            raise PermissionDeniedError(
                f"This user may not listen on port {port}.", hint=f"Set {variable} to a port above 1023."
            ) from error
        raise
    listening.setblocking(False)
    return listening


def private_folder(folder: Path) -> None:
    """Make `folder` with mode 0700, and make sure that it and its parent belong to this user.

    Raises:
        PermissionDeniedError: somebody else made it; its sockets could be theirs.
    """
    for level in (folder.parent, folder):
        level.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = level.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            raise PermissionDeniedError(
                f"{level} does not belong to this user.",
                hint="Set XDG_RUNTIME_DIR to a folder that only you can write.",
            )
    if stat.S_IMODE(folder.stat().st_mode) != 0o700:
        folder.chmod(0o700)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except TimeoutError:
            return True  # its queue is full: alive, and busy
        return True


def on_socket(path: Path) -> socket.socket:
    """A listening Unix socket with mode 0600; a stale one is removed, but only if nobody answers on it.

    Raises:
        ConflictError: somebody answers on it.
    """
    private_folder(path.parent)
    if path.exists() or path.is_symlink():
        if _answers(path):
            raise ConflictError(
                f"Another kernel answers on {path}.", hint="Use it, or end it first with 'llm-os down'."
            )
        path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))  # nobody else can reach it: the folder is private
        path.chmod(0o600)
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    listening.setblocking(False)
    return listening
