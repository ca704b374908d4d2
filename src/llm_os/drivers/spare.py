"""A process that has loaded its program and waits for an attempt, so that this one starts at once. Knows no kernel.

It lives as long as the object holds its pipe: when the kernel dies, however it dies, the spare ends too.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
from collections.abc import Collection
from pathlib import Path

from llm_os.drivers.folders import is_locked
from llm_os.drivers.identity import read_process
from llm_os.drivers.stubs import spawn
from llm_os.spec.attempts import AttemptSpec

PROGRAM = "llm_os.workers.spare"


class Spare:
    """A stub whose program waits. `fits` says for which attempts; `give` hands it to one, `end` ends it."""

    def __init__(self, like: AttemptSpec, folder: Path, pid: int, answer: int, feed: int) -> None:
        self._like, self._answer, self._feed = like, answer, feed
        self.folder = folder
        self.pid = pid
        process = read_process(pid)
        self.start_time = process.start_time if process else None

    @classmethod
    def begin(cls, folders: Path, like: AttemptSpec, others: Collection[Path] = ()) -> Spare | None:
        """Start one for attempts like `like`; None where it could not be started, or no attempt could use it.

        Args:
            folders: spares have folders of their own in it; those of earlier ones are removed.
            others: folders of those that are kept, too.

        Raises:
            OSError, UnavailableError: no process could be started.
        """
        if len(like.argv) < 3 or like.argv[1] != "-m":
            return None
        clean(folders, others)
        folder = folders / secrets.token_hex(6)
        folder.mkdir(parents=True, mode=0o700)
        own: dict[str, object] = {
            "argv": (like.argv[0], "-m", PROGRAM, like.argv[2], *like.preload),
            "cwd": str(folder),
        }
        own |= {"task": None, "serve": None}
        (folder / "spec.json").write_text(like.model_copy(update=own).model_dump_json())
        given, feed = os.pipe()
        try:
            pid, answer = spawn(folder, "--spare", stdin=given)
        except BaseException:
            os.close(feed)
            raise
        finally:
            os.close(given)
        return cls(like, folder, pid, answer, feed)

    def still(self, like: AttemptSpec) -> bool:
        """Whether it lives, and is what one for this would be."""
        return self.fits(like) and self._alive()

    def fits(self, spec: AttemptSpec) -> bool:
        """Whether it is what a process of that attempt would have become: same program, environment, libraries."""
        like = self._like
        return (spec.argv[:3], spec.env, spec.threads, spec.devices, spec.preload) == (
            like.argv[:3],
            like.env,
            like.threads,
            like.devices,
            like.preload,
        )

    def give(self, folder: Path) -> int | None:
        """Hand it over: the descriptor on which its stub answers from now on as any other; None: it is dead."""
        try:
            if not self._alive():
                raise BrokenPipeError
            os.write(self._feed, os.fsencode(folder) + b"\n")
        except BrokenPipeError:
            self.end()
            return None
        os.close(self._feed)
        return self._answer

    def end(self) -> None:
        """End it; returns when it and its stub are dead."""
        for descriptor in (self._feed, self._answer):
            os.close(descriptor)
        if self._alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # its program, in a group of its own, dies with its stub
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _alive(self) -> bool:
        process = read_process(self.pid)
        return process is not None and process.start_time == self.start_time and process.alive


def clean(folders: Path, others: Collection[Path]) -> None:
    """Remove the folders that no stub uses any more. `others` may have stubs that have locked nothing yet."""
    for folder in folders.iterdir() if folders.is_dir() else ():
        if folder not in others and not is_locked(folder):
            shutil.rmtree(folder, ignore_errors=True)
