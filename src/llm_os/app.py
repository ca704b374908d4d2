"""The composition root: the only file that knows every part. `python -m llm_os.app [--ephemeral]` runs a kernel."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import logging.handlers
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from llm_os import plugins
from llm_os.autopilot.runner import Watch
from llm_os.autopilot.scrape import Scraper
from llm_os.autopilot.sinks import Sinks
from llm_os.drivers import host
from llm_os.drivers.engine import Engine
from llm_os.errors import LLMOSError, NotFoundError
from llm_os.kernel.folders import HomeFiles
from llm_os.kernel.leadership import HomeLock
from llm_os.kernel.loop import Kernel
from llm_os.kernel.ports import TaskPlugin
from llm_os.server.keys import ensure_admin_key
from llm_os.server.management.serve import serve
from llm_os.settings import Settings
from llm_os.spec.measures import HostReading
from llm_os.spec.resources import Capacity
from llm_os.store.artifacts import ArtifactStore
from llm_os.store.database import Database

log = logging.getLogger("llm_os")

GATEWAY_ARGV = ("{python}", "-m", "llm_os.server.gateway.main", "{attempt}")


class SystemClock:
    """Wall time; the event loop lets it pass."""

    def now(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ThisMachine:
    """What the device plugins of this node add up to. Accelerators are listed once at start."""

    def __init__(self) -> None:
        self._cpu = plugins.load("device", "cpu")
        names = [name for name in plugins.names("device") if name not in {"cpu", "fake"}]
        self._accelerators = tuple(device for name in names for device in plugins.load("device", name).devices())

    def reading(self) -> HostReading:
        return host.reading()

    def kind(self) -> str:
        (whole,) = self._cpu.devices()
        return "; ".join([whole.name, *host.instruction_sets(), *(device.name for device in self._accelerators)])

    def capacity(self) -> Capacity:
        (whole,) = self._cpu.devices()
        return Capacity(cpus=self._cpu.cores(), memory=whole.memory, devices=self._accelerators)


class Registry:
    """The plugins of this installation; what only tests the system is hidden unless it is being tested."""

    def __init__(self, *, testing: bool) -> None:
        self._testing = testing

    def task(self, name: str) -> TaskPlugin:
        if name.startswith("testing/") and not self._testing:
            raise NotFoundError(f"There is no task '{name}'.", hint="Tasks of the tests need LLM_OS_TESTING=1.")
        task: TaskPlugin = plugins.load("task", name)
        return task

    def engines(self) -> Sequence[Engine]:
        return [plugins.load("engine", name) for name in plugins.names("engine") if self._testing or name != "fake"]


def prepare_home(settings: Settings) -> None:
    """Folders of the home and of the sockets, for this user only."""
    for folder in (settings.home, settings.run, settings.logs, settings.runtime.parent, settings.runtime):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def build(settings: Settings, *, ephemeral: bool) -> Kernel:
    """A kernel on this machine's real parts."""
    key = ensure_admin_key(settings.admin_key)
    return Kernel(
        settings=settings,
        database=Database(settings.database_url),
        artifacts=ArtifactStore(settings.artifacts),
        launcher=plugins.load("launcher", "local")(settings),
        machine=ThisMachine(),
        plugins=Registry(testing=settings.testing),
        clock=SystemClock(),
        random=random.SystemRandom(),
        files=HomeFiles(settings),
        ephemeral=ephemeral,
        gateway=GATEWAY_ARGV,
        admin_sha256=hashlib.sha256(key.encode()).hexdigest(),
    )


def was_to_stay(settings: Settings) -> bool:
    """Whether the kernel before this one was started to stay and was killed: its note is still there."""
    try:
        note = json.loads((settings.run / "kernel.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(note, dict) and note.get("ephemeral") is False


async def run_kernel(settings: Settings, *, ephemeral: bool) -> None:
    """Recover, serve the management API, and run until a shutdown. Raises LLMOSError."""
    prepare_home(settings)
    lock = HomeLock(settings.run / "kernel.lock")
    lock.take()
    ephemeral = ephemeral and not was_to_stay(settings)
    kernel = build(settings, ephemeral=ephemeral)
    kernel.pid = os.getpid()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: kernel.begin_shutdown(keep=False))
    await kernel.recover()
    serving = await serve(kernel, settings, port=settings.management_port)
    kernel.management = f"http://127.0.0.1:{serving.port}"
    note = {
        "pid": os.getpid(),
        "started_at": kernel.started_at,
        "management": kernel.management,
        "ephemeral": ephemeral,
    }
    (settings.run / "kernel.json").write_text(json.dumps(note), encoding="utf-8")
    try:
        async with watching(kernel, settings):
            await kernel.run()
    finally:
        await serving.close()
        (settings.run / "kernel.json").unlink(missing_ok=True)
        lock.release()


@asynccontextmanager
async def watching(kernel: Kernel, settings: Settings) -> AsyncIterator[None]:
    """Look at the metrics meanwhile, unless the settings say that nobody looks."""
    if not settings.alerts_every:
        yield
        return
    clock = SystemClock()
    scraper, sinks = Scraper(ensure_admin_key(settings.admin_key)), Sinks(settings.home, clock.sleep)
    watch = Watch(kernel, scraper.read, sinks, clock, file=settings.alerts, every=settings.alerts_every)
    looking = asyncio.create_task(watch.run(), name="alerts")
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await sinks.close()
        await scraper.close()


def _log_to(settings: Settings) -> Path:
    path = settings.logs / "kernel.log"
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=10 * 2**20, backupCount=3)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    return path


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m llm_os.app", description="Run a kernel in this process.")
    parser.add_argument("--ephemeral", action="store_true", help="end when the last session and work have ended")
    arguments = parser.parse_args(argv)
    settings = Settings()
    prepare_home(settings)
    path = _log_to(settings)
    try:
        asyncio.run(run_kernel(settings, ephemeral=arguments.ephemeral))
    except LLMOSError as error:
        log.error("%s", error)
        print(json.dumps({"error": error.to_dict()}), file=sys.stderr)
        return error.exit_code
    except Exception:
        log.exception("The kernel ended by a defect; see %s.", path)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
