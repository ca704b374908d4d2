"""What a running task may do: read inputs, fill its output, report, checkpoint, ask whether to stop.

The same class serves the worker (folders of an attempt) and a user who runs a task alone (any folders).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from llm_os.errors import IntegrityError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import Control, Report
from llm_os.spec.base import Json

MARK = "checkpoint.json"


class Stopped(Exception):  # noqa: N818 - no error: the task ends because it was asked to
    """Raised by `Context.stop_here`: the task was asked to stop and its newest checkpoint is whole."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole, verified checkpoint folder."""

    step: int
    folder: Path


@dataclass(frozen=True, slots=True)
class InputFolder:
    path: Path
    facts: ArtifactFacts


class Context:
    """See the module. Every folder exists; `output` is empty at the start of each attempt.

    Args:
        inputs: read-only folders by role.
        output: folder to fill.
        checkpoints: folder that outlives attempts.
        scratch: folder of this attempt, on the same file system as `checkpoints`.
        threads: threads the task may run.
        devices: indices of accelerators it holds.
        reports: file that reports are appended to; None prints nothing and keeps nothing.
        control: file that says whether to stop.
        on_report: called with every report (a user who runs the task alone draws a bar from it).
        usage: what the process used so far (`cpu_seconds`, `peak_memory`); added to the result as `usage`.
    """

    def __init__(
        self,
        *,
        inputs: Mapping[str, InputFolder],
        output: Path,
        checkpoints: Path,
        scratch: Path,
        threads: int = 1,
        devices: tuple[int, ...] = (),
        reports: Path | None = None,
        control: Path | None = None,
        on_report: Callable[[Report], None] | None = None,
        clock: Callable[[], float] = time.time,
        usage: Callable[[], Mapping[str, Json]] | None = None,
    ) -> None:
        self.inputs = dict(inputs)
        self.output = output
        self.checkpoints = checkpoints
        self.scratch = scratch
        self.threads = threads
        self.devices = devices
        self._reports = reports
        self._control = control
        self._on_report = on_report
        self._clock = clock
        self._usage = usage
        self.has_result = False
        """Whether `result` was called."""
        self._seq = 0
        self._control_seen: tuple[int, int] | None = None
        self._stop = False

    def report(self, **values: Json) -> None:
        """Progress and metrics. Well-known keys: `stage` (text), `step`, `total`, `epoch`, `loss`, `eta` (seconds)."""
        self._write("progress", values)

    def message(self, text: str) -> None:
        """A sentence that a person following the job should read (a choice made and why, a warning)."""
        self._write("message", {"text": text})

    def result(self, **values: Json) -> None:
        """Small results that become `Job.result`. Call once, at the end, after `finish` if there is an output."""
        self.has_result = True
        used: dict[str, Json] = {"usage": dict(self._usage())} if self._usage else {}
        self._write("result", values | used)

    def error(self, values: Mapping[str, Json]) -> None:
        """The `LLMOSError.to_dict()` that ends this task; called by the worker, not by tasks."""
        self._write("error", values)

    def finish(self, kind: str, meta: Mapping[str, Json]) -> None:
        """Declare the output: writes `artifact.json` (kind and meta), which the kernel copies into the manifest."""
        text = json.dumps({"kind": kind, "meta": dict(meta)}, ensure_ascii=False, indent=1, sort_keys=True)
        (self.output / "artifact.json").write_text(text + "\n", encoding="utf-8")

    def should_stop(self) -> bool:
        """True once the kernel asked this attempt to end. Cheap: one `stat` a call."""
        if self._control is not None and not self._stop:
            try:
                stat = self._control.stat()
            except FileNotFoundError:
                return False
            seen = (stat.st_mtime_ns, stat.st_ino)
            if seen != self._control_seen:
                self._control_seen = seen
                self._stop = Control.model_validate_json(self._control.read_bytes()).stop
        return self._stop

    def request_stop(self) -> None:
        """Make `should_stop` true from now on; called by the worker on SIGTERM, not by tasks."""
        self._stop = True

    def stop_here(self) -> NoReturn:
        """End the task early, asked by `should_stop()`. Write a checkpoint first; a later attempt resumes there."""
        raise Stopped("the task was asked to stop")

    def checkpoint(self, step: int, folder: Path) -> None:
        """Keep `folder` (moved, not copied) as the checkpoint of `step`: hashed, fsynced, renamed; older ones go.

        After it returns, a kill at any moment leaves this checkpoint or a newer one whole.
        """
        files = {name: _hash(folder / name) for name in _files(folder)}
        mark = folder / MARK
        mark.write_text(json.dumps({"step": step, "files": files}, sort_keys=True), encoding="utf-8")
        for name in [*files, MARK]:
            _fsync(folder / name)
        _fsync(folder)
        target = self.checkpoints / f"step-{step:010d}"
        if target.exists():
            shutil.rmtree(target)
        os.replace(folder, target)
        _fsync(self.checkpoints)
        for old in self._checkpoint_folders()[:-2]:
            shutil.rmtree(old, ignore_errors=True)
        self._write("checkpoint", {"step": step})

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint whose files all match their hashes; a damaged one is passed over with a message."""
        for folder in reversed(self._checkpoint_folders()):
            try:
                return Checkpoint(step=verify_checkpoint(folder), folder=folder)
            except IntegrityError as error:
                self.message(f"{error.message} Going back to the one before.")
        return None

    def _checkpoint_folders(self) -> list[Path]:
        return sorted(p for p in self.checkpoints.glob("step-*") if p.is_dir())

    def _write(self, kind: str, values: Mapping[str, Json]) -> None:
        self._seq += 1
        report = Report.model_validate({"seq": self._seq, "at": self._clock(), "kind": kind, "values": dict(values)})
        if self._reports is not None:
            _append(self._reports, (report.model_dump_json() + "\n").encode())
        if self._on_report is not None:
            self._on_report(report)


def _append(path: Path, line: bytes) -> None:
    """All of the line or nothing: on a full disk a torn line would glue itself to the next report."""
    with path.open("ab", buffering=0) as file:
        start = file.seek(0, os.SEEK_END)
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            file.truncate(start)
            raise


def verify_checkpoint(folder: Path) -> int:
    """Its step. Raises IntegrityError if a file is missing or was changed."""
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        for name, digest in mark["files"].items():
            if _hash(folder / name) != digest:
                raise IntegrityError(f"The checkpoint {folder.name} is damaged: {name} was changed.")
        return int(mark["step"])
    except (OSError, ValueError, KeyError) as error:
        raise IntegrityError(f"The checkpoint {folder.name} is damaged: {error}.") from error


def _files(folder: Path) -> Iterator[str]:
    return (str(p.relative_to(folder)) for p in sorted(folder.rglob("*")) if p.is_file() and p.name != MARK)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
