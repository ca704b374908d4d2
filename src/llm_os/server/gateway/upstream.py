"""Connections to replicas over their Unix sockets, kept alive, and who is least busy; must not know keys or tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import aiohttp

from llm_os.errors import UnavailableError
from llm_os.spec.routing import Endpoint

CONNECT_WITHIN = 5.0
"""Seconds to connect to a Unix socket: its replica lives or it does not."""
SILENT_FOR = 600.0
"""Seconds without a byte after which a replica counts as hung; a long prompt on few cores takes minutes."""

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_WITHIN, sock_read=SILENT_FOR)
_UNIX = "unix:"


class Upstreams:
    """One keep-alive pool for each replica, made at first use."""

    def __init__(self) -> None:
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._in_flight: Counter[str] = Counter()

    def choose(self, endpoints: Sequence[Endpoint], avoid: str | None = None) -> Endpoint:
        """The replica with the fewest requests in flight; `avoid` (its attempt) only if there is no other."""
        others = [endpoint for endpoint in endpoints if endpoint.attempt != avoid]
        return min(others or endpoints, key=lambda endpoint: self._in_flight[endpoint.url])

    @contextmanager
    def busy(self, endpoint: Endpoint) -> Iterator[None]:
        """Count a request while it runs."""
        self._in_flight[endpoint.url] += 1
        try:
            yield
        finally:
            self._in_flight[endpoint.url] -= 1
            if not self._in_flight[endpoint.url]:
                del self._in_flight[endpoint.url]

    def session(self, endpoint: Endpoint) -> aiohttp.ClientSession:
        """The pool of a replica. Raises UnavailableError for an endpoint that is no Unix socket."""
        found = self._sessions.get(endpoint.url)
        if found is None:
            if not endpoint.url.startswith(_UNIX):
                raise UnavailableError(
                    f"The replica {endpoint.attempt} listens on '{endpoint.url}', which the gateway does not speak.",
                    hint="Replicas listen on Unix sockets ('unix:/path').",
                )
            found = self._sessions[endpoint.url] = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path=endpoint.url.removeprefix(_UNIX), limit=0),
                timeout=_TIMEOUT,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return found

    async def forget(self, served: Iterable[str]) -> None:
        """Close the pools of replicas that are no longer served and idle; `served` are endpoint URLs."""
        gone = set(self._sessions) - set(served) - set(self._in_flight)
        for url in gone:
            await self._sessions.pop(url).close()

    async def close(self) -> None:
        """Close every connection."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
