"""Connections to replicas, kept alive, and who is least busy; must not know keys or tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from llm_os.errors import UnavailableError
from llm_os.server.gateway.wire import Pool
from llm_os.spec.routing import Endpoint

_UNIX = "unix:"


class Upstreams:
    """One pool for each replica, made at first use."""

    def __init__(self) -> None:
        self._pools: dict[str, Pool] = {}
        self._in_flight: Counter[str] = Counter()

    def choose(self, endpoints: Sequence[Endpoint], avoid: Collection[str] = ()) -> Endpoint:
        """The replica with the fewest requests in flight; those to avoid (their attempts) only if there is no other."""
        if len(endpoints) == 1:
            return endpoints[0]
        others = [endpoint for endpoint in endpoints if endpoint.attempt not in avoid]
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

    def pool(self, endpoint: Endpoint) -> Pool:
        """The connections to a replica. Raises UnavailableError for an endpoint that is no Unix socket."""
        found = self._pools.get(endpoint.url)
        if found is None:
            if not endpoint.url.startswith(_UNIX):
                raise UnavailableError(
                    f"The replica {endpoint.attempt} listens on '{endpoint.url}', which the gateway does not speak.",
                    hint="Replicas listen on Unix sockets ('unix:/path').",
                )
            found = self._pools[endpoint.url] = Pool(endpoint.url.removeprefix(_UNIX))
        return found

    def forget(self, served: Iterable[str]) -> None:
        """Close the pools of replicas that are no longer served and idle; `served` are endpoint URLs."""
        for url in set(self._pools) - set(served) - set(self._in_flight):
            self._pools.pop(url).close()

    def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
