"""Holds a process back while it loads what nobody waits for, so that what serves keeps its latency; knows no programs.

Two ways, as no single one works everywhere and none needs privileges. Where the system groups sessions
(`sched_autogroup`), the weight of this process's session is lowered, and raised again by itself. Inside a control
group, as in containers, sessions have no weight, but threads have: loading is done by a thread of low priority, and the
first thread, which keeps its own, goes on from there. What it starts itself inherits it: libraries that start threads
are not loaded so.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

NICE = 5
"""A third of the weight of other processes: enough to be behind them, and not to starve beside a training."""
SESSION = Path("/proc/self/autogroup")
MARK = "LLM_OS_ATTEMPT_FOLDER"
"""What a stub, which leads the session, puts into the environment of its program; a shell's session is left alone."""
TRIES = 40
"""Of a wish that the system takes later."""


def slow() -> None:
    """Lower the weight of this session, where it has one of its own: that of an attempt, or a spare."""
    if MARK in os.environ:
        _weigh(NICE)


def full() -> None:
    """Raise it again; may be called without `slow`."""
    if MARK in os.environ:
        _weigh(0)


def load(names: Sequence[str]) -> None:
    """Import modules in a thread of low priority. One that cannot be imported is left to who needs it."""
    thread = threading.Thread(target=_load, args=(names,), name="loading")
    thread.start()
    thread.join()


def _load(names: Sequence[str]) -> None:
    mine = os.PRIO_PROCESS, threading.get_native_id()  # this thread alone
    with contextlib.suppress(OSError):
        os.setpriority(*mine, max(NICE, os.getpriority(*mine)))
    import_all(names)


def import_all(names: Sequence[str]) -> None:
    """Import modules in this thread: what starts threads of its own, which would keep a low priority."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a broken library raises anything
            print(f"{name} was not loaded: {error}", file=sys.stderr)


def _weigh(nice: int) -> None:
    for _ in range(TRIES):
        try:
            SESSION.write_text(str(nice), encoding="ascii")
        except BlockingIOError:  # the system takes ten such wishes a second, of all processes together
            time.sleep(0.05)
        except OSError:  # it groups no sessions: this one starts as any other
            return
        else:
            return
