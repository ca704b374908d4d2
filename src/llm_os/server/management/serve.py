"""Runs the management API inside the kernel's loop, on Unix socket and loopback TCP; must not know the routes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Generator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from llm_os.errors import InternalError
from llm_os.kernel.syscalls import Syscalls
from llm_os.server import keys, listening
from llm_os.server.management.app import build
from llm_os.server.management.door import Door
from llm_os.settings import Settings

log = logging.getLogger("llm_os.management")

_KEEP_ALIVE = 75
"""Seconds an idle connection stays open."""
_CLOSE_WITHIN = 2
"""Seconds that running answers (long polls) get at the end."""


def peer_uid(sock: Any) -> int:
    """User id of the process at the other end of a Unix socket; `sock` is whatever the event loop calls a socket."""
    with socket.socket(fileno=os.dup(sock.fileno())) as own:  # not every loop's socket has getsockopt
        credentials = own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def protocol_for(uid: int) -> type[H11Protocol]:
    """A protocol that hangs up on peers of any user but `uid`."""

    class SameUser(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            peer = peer_uid(transport.get_extra_info("socket"))
            if peer != uid:
                log.warning("refused a connection of user id %d on the socket", peer)
                transport.abort()

    return SameUser


class _Server(uvicorn.Server):
    """uvicorn inside a loop that is not its own: the kernel keeps its signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class Serving:
    """The API while it answers.

    Attributes:
        port: TCP port on 127.0.0.1.
    """

    def __init__(self, port: int, socket_path: Path, inode: int) -> None:
        self.port = port
        self._socket_path = socket_path
        self._inode = inode
        self._servers: list[_Server] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, app: ASGIApp, sock: socket.socket, protocol: type[H11Protocol]) -> None:
        """Answer on one more listening socket; returns when it accepts."""
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=_CLOSE_WITHIN,
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[sock]), name="management-api")
        self._servers.append(server)
        self._tasks.append(task)
        while not server.started:
            if task.done():
                task.result()
                raise InternalError("The management API ended before it answered.")
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Answer what is being answered (up to two seconds), stop listening, remove the socket. Idempotent."""
        for server in self._servers:
            server.should_exit = True
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                log.error("the management API ended badly", exc_info=outcome)
        self._servers.clear()
        self._tasks.clear()
        with contextlib.suppress(FileNotFoundError):
            # Another kernel may have made a new socket of the same name meanwhile: only ours goes.
            if self._socket_path.stat().st_ino == self._inode:
                self._socket_path.unlink()


async def serve(syscalls: Syscalls, settings: Settings, *, port: int) -> Serving:
    """Answer on `settings.socket` and on 127.0.0.1 (port 0 takes a free one) inside the running loop.

    The key of TCP is the one in `admin.key`, which is made if there is none.

    Raises:
        PortInUseError: another program listens on the port.
        ConflictError: another kernel answers on the socket.
    """
    entries = (keys.admin_entry(keys.ensure_admin_key(settings.admin_key)),)
    app = build(syscalls, settings)
    tcp = listening.on_tcp(port, "LLM_OS_MANAGEMENT_PORT")
    try:
        unix = listening.on_socket(settings.socket)
    except BaseException:
        tcp.close()
        raise
    serving = Serving(int(tcp.getsockname()[1]), settings.socket, settings.socket.stat().st_ino)
    try:
        await serving.start(Door(app, over_socket=True), unix, protocol_for(os.getuid()))
        await serving.start(Door(app, over_socket=False, entries=entries, watchers=syscalls.watchers), tcp, H11Protocol)
    except BaseException:
        await serving.close()
        raise
    return serving
