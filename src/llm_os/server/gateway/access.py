"""The access log: one line for each request, in batches; what is in a line is said by others."""

from __future__ import annotations

import logging
import time
from pathlib import Path

log = logging.getLogger("llm_os.gateway")

MOST = 10 * 2**20
"""Bytes of a log; a longer one becomes `gateway-access.log.1`, that one `.2`, and so on."""
KEPT = 3
"""Older logs."""


class AccessLog:
    """Lines are kept until `flush`, which is called twice a second: writing each for itself costs a tenth of a request.

    Args:
        path: the file; its folder is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []
        self._failed = False
        self._second, self._stamp = 0, ""

    def line(self, text: str) -> None:
        """Write `text` down, with the time of now."""
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        self._lines.append(f"{self._stamp},{int(now % 1 * 1000):03d} {text}\n")

    def flush(self) -> None:
        """Write what is there. A full disk must not stop requests: it is said once, and the lines are lost."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
                full = file.tell() > MOST
            if full:
                self._turn()
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.error("the access log cannot be written, lines are lost: %s", error)
            self._failed = True

    def _turn(self) -> None:
        for number in range(KEPT, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path.with_name(f"{self._path.name}.{number - 1}") if number > 1 else self._path
            if newer.exists():
                newer.replace(older)
