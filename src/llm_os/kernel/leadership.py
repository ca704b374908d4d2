"""One kernel per home: a file lock for this machine, and a fencing token in the database for everything else."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Connection

from llm_os.errors import ConflictError, StaleError
from llm_os.store import rows
from llm_os.store.database import Database

LEASE = "kernel"


class HomeLock:
    """Held as long as the kernel's process lives; the system frees it, whatever ends the process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = FileLock(path, mode=0o600)

    def take(self) -> None:
        """Raises ConflictError when another kernel runs in this home."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConflictError(
                "Another kernel runs in this home.", hint="`llm-os status` shows it; `llm-os down` ends it."
            ) from None

    def release(self) -> None:
        self._lock.release()


class Leadership:
    """The token a kernel got when it started. A kernel that was frozen and replaced must not write any more."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.token = 0

    def take(self) -> None:
        """Outdo every kernel before; from now on each transaction asks whether nobody outdid this one."""
        with self._database.transaction() as tx:
            self.token = rows.take_lease(tx, LEASE, str(os.getpid()))
        self._database.fence = self._check

    def _check(self, tx: Connection) -> None:
        if rows.lease_token(tx, LEASE) != self.token:
            raise StaleError("Another kernel has taken over this home.", hint="Ask again; the new kernel answers.")
