"""The home's folders on disk: implements `kernel.ports.Files`. Knows the layout, decides nothing."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from llm_os.drivers.folders import read_exit
from llm_os.errors import DiskFullError
from llm_os.settings import Settings
from llm_os.spec.attempts import AttemptSpec, Control, Exit, Report
from llm_os.spec.routing import GatewayUsage, RoutingTable

TAIL = 16 * 1024
RESERVE = 4 * 2**20
"""Bytes held for the state on a full disk: a thousand pages of the database."""
SPARE = 4
"""The reserve is taken where this many times its size is free."""


class HomeFiles:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        for folder in (settings.run, settings.attempts, settings.jobs, settings.logs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def attempt(self, attempt: str) -> Path:
        return self._settings.attempts / attempt

    def create(self, spec: AttemptSpec) -> Path:
        folder = self.attempt(spec.attempt)
        with _room(folder):
            for part in ("output", "scratch"):
                (folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)
            if spec.task is not None:
                Path(spec.task.checkpoints).mkdir(parents=True, exist_ok=True, mode=0o700)
            if not (folder / "spec.json").exists():
                _write(folder / "spec.json", spec.model_dump_json())
        return folder

    def checkpoints(self, job: str) -> Path:
        return self._settings.jobs / job / "checkpoints"

    def socket(self, attempt: str) -> Path:
        return self._settings.replica_socket(attempt)

    def read_reports(self, attempt: str, offset: int) -> tuple[list[Report], int]:
        try:
            with (self.attempt(attempt) / "reports.jsonl").open("rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            return [], offset
        whole = data[: data.rfind(b"\n") + 1]
        reports = []
        for line in whole.splitlines():
            try:
                reports.append(Report.model_validate_json(line))
            except ValidationError:  # half a line of a worker that was killed, or not ours: it tells us nothing
                continue
        return reports, offset + len(whole)

    def read_exit(self, attempt: str) -> Exit | None:
        return read_exit(self.attempt(attempt))

    def write_control(self, attempt: str, control: Control) -> None:
        folder = self.attempt(attempt)
        if folder.exists():
            news = {name: getattr(control, name) for name in control.model_fields_set}
            whole = self.read_control(attempt).model_copy(update=news)
            with _room(folder):
                _write(folder / "control.json", whole.model_dump_json(exclude_none=True))

    def read_control(self, attempt: str) -> Control:
        try:
            return Control.model_validate_json((self.attempt(attempt) / "control.json").read_bytes(), extra="ignore")
        except (FileNotFoundError, ValidationError):
            return Control()

    def output(self, attempt: str) -> Path:
        return self.attempt(attempt) / "output"

    def log_tail(self, attempt: str, lines: int) -> list[str]:
        try:
            with (self.attempt(attempt) / "log").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
                return file.read().decode(errors="replace").splitlines()[-lines:]
        except FileNotFoundError:
            return []

    def discard(self, attempt: str) -> None:
        for part in ("output", "scratch"):
            shutil.rmtree(self.attempt(attempt) / part, ignore_errors=True)
        self.socket(attempt).unlink(missing_ok=True)

    def leftovers(self) -> list[str]:
        if not self._settings.attempts.exists():
            return []
        folders = [Path(entry.path) for entry in os.scandir(self._settings.attempts)]
        return sorted(f.name for f in folders if (f / "output").exists() or (f / "scratch").exists())

    def forget_job(self, job: str) -> None:
        shutil.rmtree(self._settings.jobs / job, ignore_errors=True)

    def keep_reserve(self) -> None:
        reserve = self._settings.run / "reserve"
        if reserve.exists() or shutil.disk_usage(self._settings.run).free < SPARE * RESERVE:
            return
        try:
            handle = os.open(reserve, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(handle, 0, RESERVE)
            finally:
                os.close(handle)
        except OSError:  # another one was faster with the room, or the file system cannot hold any
            self.spend_reserve()

    def spend_reserve(self) -> None:
        (self._settings.run / "reserve").unlink(missing_ok=True)

    def disk(self) -> tuple[int, int]:
        usage = shutil.disk_usage(self._settings.run)
        return usage.total, usage.free

    def write_routes(self, table: RoutingTable) -> None:
        with _room(self._settings.run):
            _write(self._settings.routes, table.model_dump_json())

    def read_usage(self) -> GatewayUsage | None:
        try:
            return GatewayUsage.model_validate_json(self._settings.usage.read_bytes(), extra="ignore")
        except (FileNotFoundError, ValidationError):
            return None


def _write(path: Path, text: str) -> None:
    """Beside, fsync, rename: readers see the old file or the new one."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _room(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise DiskFullError(f"The disk of {where} is full.") from error
        raise
