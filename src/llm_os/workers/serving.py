"""The life of an engine worker: read the attempt, load, listen, say ready, drain, leave; must not know an engine.

Whatever goes wrong becomes one `error` report and an exit code of `spec.attempts`.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from llm_os.errors import CapacityError, DiskFullError, InternalError, InvalidInputError, LLMOSError
from llm_os.spec.attempts import EXIT_FAILED, EXIT_STOPPED, EXIT_USER_ERROR, AttemptSpec, Control, Report, ServeCall
from llm_os.spec.base import Json
from llm_os.spec.parity import COMPARING
from llm_os.workers import shortage
from llm_os.workers.adapters import Keeper
from llm_os.workers.backend import Backend
from llm_os.workers.comparison import compare
from llm_os.workers.recomparison import watch
from llm_os.workers.server import Face, drain, listen

Load = Callable[[ServeCall, AttemptSpec], Backend]
"""Builds the backend; may take seconds; raises LLMOSError."""
Loop = Callable[[], asyncio.AbstractEventLoop]
MARGIN = 1.5
"""Seconds of the grace kept for ending threads and the process itself."""


class Reports:
    """Appends to `reports.jsonl` of an attempt folder."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = folder / "reports.jsonl"
        self._clock = clock
        self._seq = 0

    def write(self, kind: str, values: Mapping[str, Json]) -> None:
        """One line, in one write."""
        self._seq += 1
        report = Report.model_validate({"seq": self._seq, "at": self._clock(), "kind": kind, "values": dict(values)})
        with self._file.open("ab", buffering=0) as file:
            file.write((report.model_dump_json() + "\n").encode())


def explain(error: BaseException, folder: Path) -> LLMOSError:
    """The error that a person should see."""
    if isinstance(error, LLMOSError):
        return error
    if shortage.of_disk(error):
        return DiskFullError(f"The disk is full: {error}.", hint="Free some space; it is started again by itself.")
    if shortage.of_memory(error):
        return CapacityError(f"The engine ran out of memory: {error}.", hint="Free memory, or serve a smaller model.")
    return InternalError(
        f"The engine ended with {type(error).__name__}: {error}. Its log is {folder / 'log'}.",
        details={"log": str(folder / "log"), "type": type(error).__name__},
    )


async def serve(spec: AttemptSpec, call: ServeCall, backend: Backend, reports: Reports) -> int:
    """Answer until SIGTERM or until the backend is broken. The exit code; raises what `begin` raises."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    face = Face(call, backend)
    socket = Path(call.socket)
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    os.umask(0o177)  # the socket is born 0600
    try:
        await backend.begin()
        since = time.monotonic()
        comparing = asyncio.create_task(compare(call, backend, _telling(reports)))
        if not await _before(comparing, stop):
            await backend.end()
            return EXIT_STOPPED
        if (failed := comparing.exception()) is not None:
            await asyncio.wait({asyncio.create_task(backend.lost())}, timeout=1.0)  # it is seen after what it broke
            raise backend.broken or failed
        told: dict[str, Json] = {"endpoint": f"unix:{call.socket}", "engine": call.engine}
        if (parity := comparing.result()) is not None:
            told |= {"parity": parity.model_dump(mode="json"), "compared_for": round(time.monotonic() - since, 3)}
        keeper = Keeper(call, backend, Path(spec.cwd), reports.write)
        told |= await keeper.begin()
        runner = await listen(face.app(), call.socket)
        reports.write("ready", told)
        keeping = asyncio.create_task(keeper.run())
        waits = {asyncio.create_task(stop.wait()), asyncio.create_task(backend.lost())}
        again = asyncio.create_task(watch(Path(spec.cwd), backend, reports.write))
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in (*waits, keeping, again):
            wait.cancel()
        broken = backend.broken
        await drain(runner, face, 0.0 if broken else max(0.5, _grace(spec) - MARGIN))
        if broken:
            raise broken
        await backend.end()
        return EXIT_STOPPED
    finally:
        socket.unlink(missing_ok=True)


def _telling(reports: Reports) -> Callable[[int, int], None]:
    """What reports how far a comparison is. A full disk ends no start: the report of its end will say so."""

    def told(done: int, total: int) -> None:
        with contextlib.suppress(OSError):
            reports.write("progress", {"stage": COMPARING, "step": done, "total": total})

    return told


async def _before(work: asyncio.Task[Any], stop: asyncio.Event) -> bool:
    """Wait for the work, but not longer than until it shall stop: then it is cancelled, and this is False."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not work.done():
        work.cancel()
        await asyncio.wait({work})
        return False
    return True


def _grace(spec: AttemptSpec) -> float:
    """Seconds until it is ended by force: one whose place others have taken gets longer than one that was stopped."""
    try:
        told = Control.model_validate_json((Path(spec.cwd) / "control.json").read_bytes()).grace
    except (OSError, ValueError):
        told = None
    return spec.stop.grace if told is None else told


def quick_loop() -> asyncio.AbstractEventLoop:
    """uvloop, which leaves more of the processors to the model; an engine's own environment may lack it.

    Not for workers that start programs: it knows no process groups.
    """
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def run(folder: Path, load: Load, loop: Loop = asyncio.new_event_loop) -> int:
    """Serve what the attempt folder names; see `spec.attempts` for the exit codes."""
    reports = Reports(folder)
    try:
        spec = AttemptSpec.model_validate_json((folder / "spec.json").read_bytes())
        if spec.serve is None:
            raise InternalError(f"The attempt {spec.attempt} serves nothing.")
        backend = load(spec.serve, spec)
        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(serve(spec, spec.serve, backend, reports))
    except Exception as error:  # noqa: BLE001 - the border: whatever it is becomes a report
        traceback.print_exc()
        told = explain(error, folder)
        with contextlib.suppress(OSError):  # no room for a report: the exit code and the log are left
            reports.write("error", told.to_dict())
        return EXIT_USER_ERROR if isinstance(told, InvalidInputError) else EXIT_FAILED


def threads_of(options: Mapping[str, Any], spec: AttemptSpec) -> int:
    """Threads that an engine computes with: as many as it was asked for (`threads`), of those that it is granted."""
    asked = options.get("threads")
    return max(1, spec.threads if asked is None else min(int(asked), spec.threads))


def pause_of(options: Mapping[str, Any]) -> float:
    """Seconds between two events of a stream while several are answered: twice what is asked (`stream_interval`)."""
    return float(options.get("stream_interval", 0)) / 500


def main(load: Load, loop: Loop = asyncio.new_event_loop) -> NoReturn:
    """`python -m llm_os.workers.NAME <attempt folder>`."""
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    code = run(Path(sys.argv[1]).resolve(), load, loop)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # The outcome is written. Threads of engines that hang or crash while the interpreter ends must not change it.
    os._exit(code)
