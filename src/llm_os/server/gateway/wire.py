"""HTTP/1.1 to replicas over their Unix sockets, as little of it as a proxy needs; must not know what is asked.

A request is one write, an answer is read as it comes, a connection whose answer was read to its end is used again.
The parser is llhttp (httptools), the one of Node.js. A general client does far more for each request than the rest of
the gateway together: that is why this file is here (`docs/decisions/0010-own-client-to-replicas.md`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

CONNECT_WITHIN = 5.0
"""Seconds to connect to a Unix socket: its replica lives or it does not."""
SILENT_FOR = 600.0
"""Seconds without a byte after which a replica counts as hung; a long prompt on few cores takes minutes."""
AT_ONCE = 0.5
"""Seconds in which a connection that was idle breaks if its end had closed it before; later it was something else."""
_HIGH = 2**18
"""Bytes of an answer that may wait for a slow caller before the replica is made to wait."""


class BrokenConnectionError(Exception):
    """The replica went away before its answer was complete.

    Attributes:
        sent: the request was sent; the replica may have worked on it.
        stale: on a connection that had been idle: the replica may have closed it in the same moment.
    """

    def __init__(self, why: str, *, sent: bool = True, stale: bool = False) -> None:
        super().__init__(why)
        self.sent, self.stale = sent, stale


class SilentError(Exception):
    """The replica said nothing for SILENT_FOR seconds."""


class Answer:
    """An answer as it comes. Close it, read to its end or not.

    Attributes:
        status: of the answer.
        content_type: without parameters, in lower case; empty if there is none.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.status = 0
        self.content_type = ""
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._begun = self._complete = False
        self._failed: str | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._since = 0.0

    async def begin(self) -> None:
        """Wait for the head. Raises BrokenConnectionError, SilentError."""
        while not self._begun:
            await self._more()

    async def readany(self) -> bytes:
        """What has come; empty at the end. Raises BrokenConnectionError, SilentError."""
        while not self._parts:
            if self._complete:
                return b""
            await self._more()
        whole = self._parts.popleft() if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._connection.resume()
        return whole

    async def read(self) -> bytes:
        """All of it. Raises BrokenConnectionError, SilentError."""
        parts = []
        while part := await self.readany():
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Give the connection back; one with an unread rest is broken off, so that the replica stops its work."""
        self._connection.done(whole=self._complete)

    async def _more(self) -> None:
        if self._failed is not None:
            raise BrokenConnectionError(self._failed)
        loop = asyncio.get_running_loop()
        self._waiter, self._since = loop.create_future(), loop.time()
        self._connection.watch(loop, SILENT_FOR)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def patience(self, now: float) -> float | None:
        """Seconds for which its reader goes on waiting, who is told when there are none left; None: nobody waits."""
        if self._waiter is None or self._waiter.done():
            return None
        left = self._since + SILENT_FOR - now
        if left <= 0:
            self._waiter.set_exception(SilentError())
        return left

    def head(self, status: int, content_type: str) -> None:
        """The head is there."""
        if self._begun:
            return  # a second answer, which nobody asked for
        self.status, self.content_type, self._begun = status, content_type, True
        self._wake()

    def feed(self, part: bytes) -> bool:
        """A part of the body is there; False when enough waits to be read."""
        if self._complete:
            return True
        self._parts.append(part)
        self._size += len(part)
        self._wake()
        return self._size < _HIGH

    def end(self) -> None:
        """It is complete."""
        self._complete = True
        self._wake()

    def fail(self, why: str) -> None:
        """It will never be complete."""
        if not self._complete:
            self._failed = why
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """One connection of a pool; one request at a time. The `on_` methods are the parser's."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._answer: Answer | None = None
        self._type = ""
        self._early: Callable[[], None] | None = None
        self._paused = self._keep = self._sized = False
        self._watching: asyncio.TimerHandle | None = None
        self.lost = False

    def ask(self, request: bytes, early: Callable[[], None] | None = None) -> Answer:
        """Send a whole request."""
        assert self._transport is not None  # noqa: S101 - connected before it is in a pool
        self._parser = httptools.HttpResponseParser(self)
        self._type, self._sized, self._early = "", False, early
        self._answer = Answer(self)
        self._transport.write(request)
        return self._answer

    def watch(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Look in so many seconds whether a reader waits for too long: one timer, not one for each wait."""
        if self._watching is None and not self.lost:
            self._watching = loop.call_later(seconds, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watching = None
        left = None if self._answer is None else self._answer.patience(loop.time())
        if left is not None and left > 0:
            self.watch(loop, left)

    def resume(self) -> None:
        """The reader has caught up."""
        if self._paused and self._transport is not None and not self.lost:
            self._paused = False
            self._transport.resume_reading()

    def done(self, *, whole: bool) -> None:
        """The answer is read, or nobody wants it any more. Idempotent."""
        if self._answer is None:
            return
        self._answer = None
        if whole and self._keep and not self.lost:
            self.resume()
            self._pool.give_back(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Break it off."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not of this class, but like it

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._answer is None:  # nobody asked
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._answer.fail(f"no HTTP answer: {error}")
            self.abort()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if self._watching is not None:
            self._watching.cancel()
        self._pool.forget(self)
        if self._answer is not None and self._answer.status and not self._sized and error is None:
            self._answer.end()  # a body without a length ends with its connection
        elif self._answer is not None:
            self._answer.fail(f"the connection ended{f': {error}' if error else ''}")

    def on_header(self, name: bytes, value: bytes) -> None:
        field = name.lower()
        if field in (b"content-length", b"transfer-encoding"):
            self._sized = True
        elif field == b"content-type":
            self._type = value.split(b";")[0].strip().lower().decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._parser is not None  # noqa: S101 - it calls us
        self._keep = self._parser.should_keep_alive()
        if self._answer is not None and self._parser.get_status_code() >= 200:
            self._answer.head(self._parser.get_status_code(), self._type)
        elif self._answer is not None and self._early is not None:
            self._early()

    def on_body(self, body: bytes) -> None:
        if self._answer is not None and not self._answer.feed(body) and not self._paused:
            assert self._transport is not None  # noqa: S101 - it brought the body
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._answer is not None and self._parser is not None and self._parser.get_status_code() >= 200:
            self._answer.end()


class Pool:
    """Connections to one replica, made when they are needed.

    Args:
        path: of its Unix socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: deque[Connection] = deque()
        self._all: set[Connection] = set()

    async def post(
        self,
        target: str,
        body: bytes,
        headers: bytes = b"",
        *,
        fresh: bool = False,
        early: Callable[[], None] | None = None,
    ) -> Answer:
        """Ask; the answer's head is there when this returns.

        Args:
            target: the path.
            headers: further lines of the head, each with its end.
            fresh: not on a connection that was idle.
            early: called for every interim answer (1xx) that comes before the answer.

        Raises:
            BrokenConnectionError: the replica is not there, or went away.
            SilentError: it does not answer.
        """
        reused, begun = bool(self._idle) and not fresh, asyncio.get_running_loop().time()
        connection = self._idle.pop() if reused else await self._connected()
        head = (
            f"POST {target} HTTP/1.1\r\nhost: replica\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
        )
        answer = connection.ask(b"".join((head.encode("latin-1"), headers, b"\r\n", body)), early)
        try:
            await answer.begin()
        except BaseException as error:
            answer.close()
            at_once = asyncio.get_running_loop().time() - begun < AT_ONCE
            if reused and at_once and isinstance(error, BrokenConnectionError):
                raise BrokenConnectionError(str(error), stale=True) from error
            raise
        return answer

    async def _connected(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_WITHIN) as limit:
                _, connection = await loop.create_unix_connection(lambda: Connection(self), self._path)
        except TimeoutError as error:
            if limit.expired():
                raise BrokenConnectionError(f"no connection in {CONNECT_WITHIN:.0f} s", sent=False) from error
            raise
        except OSError as error:
            raise BrokenConnectionError(f"{type(error).__name__}: {error}", sent=False) from error
        self._all.add(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        """It can be used again."""
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """It has ended."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Break every connection off."""
        for connection in list(self._all):
            connection.abort()
