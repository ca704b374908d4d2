"""What stands before every management request: key or peer, Host, Origin, size; must not know the routes' meaning.

An ASGI layer for each listener, because the same application answers on the Unix socket and on TCP, and only the
listener knows which of the two it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_os.errors import LLMOSError, TooLargeError
from llm_os.server import envelope, keys
from llm_os.server.loopback import refuse_foreign
from llm_os.spec.routing import KeyEntry

log = logging.getLogger("llm_os.management")

MAX_BODY = 8 * 2**20
"""Bytes of a request body; what is larger goes as a path over the socket."""

OVER_SOCKET = "llm_os.over_socket"
"""Scope entry: True on the Unix socket, where the peer is this user."""


class Door:
    """Wraps the application of one listener.

    Args:
        app: what answers when the door lets a request in.
        over_socket: whether this is the Unix socket, whose peer was checked when it connected.
        entries: keys that may manage, for TCP.
        watchers: keys that may read `/metrics` besides, asked for at each such request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        over_socket: bool,
        entries: Sequence[KeyEntry] = (),
        watchers: Callable[[], Sequence[KeyEntry]] = tuple,
    ) -> None:
        self._app = app
        self._watchers = watchers
        self._over_socket = over_socket
        self._entries = keys.by_digest(entries)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            self._admit(scope)
            reading = _Limited(receive)
            await self._app({**scope, OVER_SOCKET: self._over_socket}, reading, send)
        except LLMOSError as error:
            await _answer(send, error)

    def _admit(self, scope: Scope) -> None:
        header = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refuse_foreign(header.get("host"), header.get("origin"), check_host=not self._over_socket)
        length = header.get("content-length", "")
        if length.isdigit() and int(length) > MAX_BODY:
            raise _too_large()
        if self._over_socket or scope["path"] == "/health":
            return
        if scope["path"] == "/metrics":
            known = {**keys.by_digest(self._watchers()), **self._entries}
            keys.authorise(header.get("authorization"), known, keys.MAY_WATCH)
        else:
            keys.authorise(header.get("authorization"), self._entries, keys.MAY_MANAGE)


class _Limited:
    """`receive` that stops at MAX_BODY, for bodies that do not say their length."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._seen = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > MAX_BODY:
            raise _too_large()
        return message


def _too_large() -> TooLargeError:
    return TooLargeError(
        f"The request body is larger than {MAX_BODY // 2**20} MiB.",
        hint="Give large data as a path over the Unix socket.",
        details={"limit": MAX_BODY},
    )


async def _answer(send: Send, error: LLMOSError) -> None:
    body = json.dumps(envelope.management_body(error)).encode()
    head = {"content-type": "application/json", "content-length": str(len(body)), **envelope.headers(error)}
    # The unread rest of a refused body must not be taken for the next request.
    head["connection"] = "close"
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
