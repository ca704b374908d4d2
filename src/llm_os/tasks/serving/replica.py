"""One replica of an engine that is tried: its worker's program as a child, as a launcher would start it.

It must not know an engine or the kernel. Whatever ends this process ends the worker too, and with it what the worker
started: the system is asked to, so nothing is left even by a kill that nobody can catch.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from pydantic import ValidationError

from llm_os.errors import LLMOSError, from_dict
from llm_os.spec.attempts import AttemptSpec, Input, Report, ServeCall
from llm_os.spec.calibration import Candidate
from llm_os.spec.parity import Parity
from llm_os.tasks.context import Context

PATIENCE = 600.0
"""Seconds that a start with its comparison may take."""
LOOKS = 0.05
GRACE = 5.0
"""Seconds from the wish that it ends to its end by force."""
SOCKET = "worker.sock"
NAME = "trial"
NOT_PASSED_ON = frozenset({"OMP_WAIT_POLICY"})
"""Said of tasks, not of engines; an engine that wants it says so."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):  # noqa: N818 - what it says is a result
    """A candidate is out of the question.

    Attributes:
        why: one sentence or more, for people.
        parity: the figures, where it does not agree with the reference.
    """

    def __init__(self, why: str, parity: Parity | None = None) -> None:
        super().__init__(why)
        self.why, self.parity = why, parity


class Replica:
    """A worker that answers on its socket.

    Attributes:
        parity: how far it agrees; None: it was not compared.
        ready_seconds: from its start until it answers, without the comparison.
    """

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process = process
        self._folder = folder
        # A folder's path can be longer than a socket's may be; by its descriptor it is always short.
        self._descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._session: aiohttp.ClientSession | None = None
        self.parity: Parity | None = None
        self.ready_seconds = 0.0

    async def until_ready(self) -> None:
        """Raises Refused: it ended, or says nothing."""
        begun = time.monotonic()
        while True:
            dead = self._process.returncode is not None
            report = next((one for one in self._reports() if one.kind in ("ready", "error")), None)
            if report is not None and report.kind == "error":
                raise _refused(from_dict(report.values))
            if report is not None and not dead:
                break
            if dead:
                raise Refused(f"Its process ended ({_code(self._process)}); its last words are in the log.")
            if time.monotonic() - begun > PATIENCE:
                raise Refused(f"It does not answer after {PATIENCE:.0f} s.")
            await asyncio.sleep(LOOKS)
        try:
            compared = float(str(report.values.get("compared_for") or 0.0))
            self.parity = None if (told := report.values.get("parity")) is None else Parity.model_validate(told)
        except ValueError as error:
            raise Refused("It tells a comparison that cannot be read; is it of another release?") from error
        self.ready_seconds = round(max(0.0, time.monotonic() - begun - compared), 2)
        connector = aiohttp.UnixConnector(path=f"/proc/self/fd/{self._descriptor}/{SOCKET}", limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)

    def _reports(self) -> list[Report]:
        """Raises Refused: they are none."""
        path = self._folder / "reports.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        try:
            return [Report.model_validate_json(line) for line in lines if line.endswith(b"\n")]
        except ValidationError as error:
            raise Refused("It writes reports that cannot be read; is it of another release?") from error

    @asynccontextmanager
    async def asked(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Its answer to a request. Raises Refused: it died, or refuses."""
        assert self._session is not None  # noqa: S101 - until_ready comes first
        try:
            async with self._session.post(f"http://worker{path}", json=dict(body)) as answer:
                if answer.status != 200:
                    raise Refused(f"It refused a request ({answer.status}): {(await answer.text())[:300]}")
                yield answer
        except (aiohttp.ClientError, OSError) as error:
            raise Refused(f"It broke off while it was asked: {error} ({type(error).__name__}).") from error

    def peak_memory(self) -> int:
        """Most resident bytes so far, of the worker and of the programs it started, each at its own worst moment."""
        with contextlib.suppress(psutil.NoSuchProcess):
            worker = psutil.Process(self._process.pid)
            return sum(_peak(one.pid) for one in (worker, *worker.children(recursive=True)))
        return 0

    async def end(self, grace: float) -> None:
        """Ask it to end, then end it by force."""
        if self._session is not None:
            await self._session.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM if grace else signal.SIGKILL)
        try:
            await asyncio.wait_for(self._process.wait(), grace or GRACE)
        except TimeoutError:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            os.close(self._descriptor)
        await self._process.wait()


@asynccontextmanager
async def started(candidate: Candidate, context: Context, folder: Path, threads: int) -> AsyncIterator[Replica]:
    """A replica that is ready; it is ended at the end, whatever happens.

    Raises:
        Refused: it cannot be started, did not get ready, or does not agree with the reference.
    """
    spec = _lay_out(candidate, context, folder, threads)
    env = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
    try:
        process = await asyncio.create_subprocess_exec(
            *spec.argv,
            stdin=asyncio.subprocess.DEVNULL,  # what it says goes to this task's log
            cwd=folder,
            env={**env, **spec.env},
            process_group=0,  # whoever asks the task to stop must not end it in the middle of an answer
            preexec_fn=_dying_with(os.getpid()),
        )
    except OSError as error:
        raise Refused(f"Its program cannot be started: {error.strerror}: {spec.argv[0]}.") from error
    replica = Replica(process, folder)
    grace = 0.0
    try:
        await replica.until_ready()
        yield replica
        grace = GRACE
    finally:
        await replica.end(grace)


def _lay_out(candidate: Candidate, context: Context, folder: Path, threads: int) -> AttemptSpec:
    """Write `spec.json` as the kernel does."""
    folder.mkdir(parents=True)
    model, reference = context.inputs["model"], context.inputs.get("reference")
    known = {"attempt": str(folder), "threads": str(threads), "socket": SOCKET}

    def filled(text: str) -> str:
        for name, value in known.items():
            text = text.replace("{" + name + "}", value)
        return text

    asked = reference if candidate.compared else None
    spec = AttemptSpec(
        attempt=folder.name,
        owner=NAME,
        token=1,
        argv=tuple(filled(part) for part in candidate.argv),
        env={name: filled(value) for name, value in candidate.env.items()},
        threads=threads,
        devices=context.devices,
        cwd=str(folder),
        serve=ServeCall(
            engine=candidate.member.engine,
            deployment=NAME,
            model=Input(path=str(model.path), facts=model.facts),
            version="the model",
            task=str(model.facts.meta.get("task")),
            options=dict(candidate.member.options),
            socket=SOCKET,
            reference=None if asked is None else Input(path=str(asked.path), facts=asked.facts),
        ),
    )
    (folder / "spec.json").write_text(spec.model_dump_json())
    return spec


def _refused(error: LLMOSError) -> Refused:
    told = error.details.get("parity")
    return Refused(error.message, None if told is None else Parity.model_validate(told))


def _code(process: asyncio.subprocess.Process) -> str:
    code = process.returncode or 0
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _peak(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def _dying_with(parent: int) -> Callable[[], None]:
    """What the child does before it becomes the program: it asks the system to be killed when its parent dies."""

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before that was asked
            os._exit(1)

    return prepare
