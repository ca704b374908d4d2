"""Keeps what took a worker long to make in a folder of its home, for replicas that follow; knows no such thing."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from llm_os.spec.attempts import AttemptSpec

KEPT_FOR = 14 * 24 * 3600.0
"""Seconds for which things are kept that no replica has used."""
HALF_MADE_FOR = 3600.0
"""Seconds after which a thing that nobody has finished is somebody's who was killed."""
HALF = ".part"


def folder_of(spec: AttemptSpec, name: str) -> Path:
    """`run/NAME` of the home; where the attempt lies in none, a folder that goes with the attempt.

    A worker that a job tries out lies in that job's own attempt.
    """
    attempt = Path(spec.cwd)
    runs = next((above.parent for above in attempt.parents if above.name == "attempts"), None)
    folder = (attempt / "scratch" if runs is None else runs) / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def kept(folder: Path, key: str, make: Callable[[Path], None]) -> Path:
    """The folder `key` in `folder`; `make` fills an empty one if it is not there yet.

    Two workers may make it at once: the first one's is taken, and nobody sees it half made. What nobody has used for
    long is deleted.
    """
    place = folder / key
    with contextlib.suppress(FileNotFoundError):
        os.utime(place)  # it is used
        return place
    _clean(folder)
    beside = folder / f"{key}.{os.getpid()}{HALF}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(mode=0o700)
    try:
        make(beside)
        for file in beside.iterdir():
            with file.open("rb") as content:
                os.fsync(content.fileno())
        try:
            beside.rename(place)
        except OSError:
            if not place.is_dir():  # else another worker was first
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def _clean(folder: Path) -> None:
    for old in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another worker cleans, too
            if time.time() - old.stat().st_mtime > (HALF_MADE_FOR if old.suffix == HALF else KEPT_FOR):
                shutil.rmtree(old, ignore_errors=True)
