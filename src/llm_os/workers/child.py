"""A server program that a worker starts, watches and ends; must not know which program, or HTTP.

It listens on a Unix socket in a folder that only this user can enter. It dies with its worker, whatever kills that.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from llm_os.errors import LLMOSError, UnavailableError
from llm_os.workers.causes import ended

SOCKET = "up.sock"
KEPT = 16 * 1024
"""Bytes of its output that are kept for its last words; all of it goes to the log."""
PATIENCE = 1800.0
"""Seconds that a start may take: large models are read from slow disks."""
LOOKS = 0.05
"""Seconds between two looks whether it answers; grows to ten times that."""
GRACE = 5.0
"""Seconds from the wish that it ends to its end by force."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Child:
    """See the module.

    Args:
        who: for messages: `llama.cpp`.
        argv: its command; `{socket}` stands for the name of its socket, which lies in the folder it starts in.
        folder: made if it is not there, mode 0700.
        env: added to this process's environment; secrets go here, never into `argv`.
    """

    def __init__(self, who: str, argv: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.who = who
        self._argv = [part.replace("{socket}", SOCKET) for part in argv]
        self._env = dict(env or {})
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        (folder / SOCKET).unlink(missing_ok=True)
        self._folder = folder
        # A folder's path can be longer than a socket's may be; by its descriptor it is always short.
        self._descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.socket = f"/proc/self/fd/{self._descriptor}/{SOCKET}"
        self._process: asyncio.subprocess.Process | None = None
        self._output = bytearray()
        self._listening: asyncio.Task[None] | None = None
        self._ready = False

    async def start(self) -> None:
        """Start it. Raises UnavailableError when it cannot be executed."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self._folder,
                env={**os.environ, **self._env},
                process_group=0,  # a signal to the worker's group must not end it while requests still run
                preexec_fn=_dying_with(os.getpid()),
            )
        except OSError as error:
            raise UnavailableError(
                f"{self.who} cannot be started: {error.strerror}: {self._argv[0]}.",
                hint="Is it installed, and built for this machine? `llm-os doctor` shows what is there.",
            ) from error
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._process is not None  # noqa: S101 - `start` sets it
        assert self._process.stdout is not None  # noqa: S101
        while chunk := await self._process.stdout.read(65536):
            self._output = (self._output + chunk)[-KEPT:]
            with contextlib.suppress(OSError):  # a full disk ends no service
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()

    async def death(self) -> LLMOSError:
        """Wait for its end: why it ended, in its own last words."""
        assert self._process is not None  # noqa: S101 - `start` sets it
        code = await self._process.wait()
        if self._listening is not None:
            with contextlib.suppress(TimeoutError):  # a child of its own may hold its output open
                await asyncio.wait_for(asyncio.shield(self._listening), 1.0)
        when = "while it served" if self._ready else "while it started"
        return ended(self.who, code, self._output.decode(errors="replace"), when=when)

    async def until(self, answers: Callable[[], Awaitable[bool]]) -> None:
        """Wait until it answers. Raises what `death` tells, or UnavailableError after PATIENCE seconds."""
        death = asyncio.create_task(self.death())
        pause = LOOKS
        try:
            async with asyncio.timeout(PATIENCE):
                while not death.done():
                    if await answers():
                        self._ready = True
                        os.chmod(self.socket, 0o600)
                        return
                    await asyncio.wait({death}, timeout=pause)
                    pause = min(pause * 1.5, 10 * LOOKS)
            raise death.result()
        except TimeoutError as late:
            raise UnavailableError(
                f"{self.who} runs, but does not answer after {PATIENCE:.0f} s.", hint="Its output is in the log."
            ) from late
        finally:
            death.cancel()

    async def end(self) -> None:
        """Ask it to end, then end it by force. May be called twice."""
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), GRACE)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if self._listening is not None:
            self._listening.cancel()
        with contextlib.suppress(OSError):
            (self._folder / SOCKET).unlink(missing_ok=True)


def _dying_with(parent: int) -> Callable[[], None]:
    """What the child does before it becomes the program: it asks the system to be killed when its parent dies."""

    def prepare() -> None:
        os.umask(0o077)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before that was asked
            os._exit(1)

    return prepare
