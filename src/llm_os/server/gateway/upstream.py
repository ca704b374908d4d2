"""Connections to replicas, kept alive, and which of them is asked; must not know keys or tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from llm_os.errors import UnavailableError
from llm_os.server.gateway.balance import Balance, Choice
from llm_os.server.gateway.prefixes import BLOCK, TOKEN, Prefixes
from llm_os.server.gateway.priming import Priming, Turn
from llm_os.server.gateway.wire import Pool
from llm_os.spec.routing import Endpoint, Route, RoutingTable

_UNIX = "unix:"
CACHE_TOKENS = 16384
"""Tokens that the cache of a replica is taken to hold where its engine does not say."""


class Upstreams:
    """One pool for each replica and one balance for each deployment, made at first use.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pools: dict[str, Pool] = {}
        self._balances: dict[str, Balance] = {}
        self._in_flight: Counter[str] = Counter()
        self._priming = Priming(clock)

    def choose(
        self, route: Route, names: Sequence[int] = (), tokens: float = 1.0, avoid: Collection[str] = ()
    ) -> tuple[Endpoint, Choice]:
        """A replica, by what it has read lately and how busy it is; one to avoid (its attempt) if there is no other.

        Args:
            names: blocks of the prompt. tokens: of the prompt.
        """
        balance = self._balances.get(route.deployment)
        if balance is None:
            balance = self._balances[route.deployment] = Balance(Prefixes(_cache_blocks(route)), BLOCK / TOKEN)
        attempts = {endpoint.attempt: endpoint for endpoint in route.endpoints}
        choice = balance.choose(list(attempts), names, tokens, self._clock(), avoid)
        return attempts[choice.replica], choice

    def turn(self, route: Route, endpoint: Endpoint, names: Sequence[int]) -> Turn:
        """The turn of a prompt of these blocks at a replica that was chosen for it."""
        return self._priming.turn(endpoint.attempt, names, _cache_blocks(route) if route.shares_prefixes else None)

    @contextmanager
    def busy(self, route: Route, endpoint: Endpoint, choice: Choice, answer: Callable[[], float]) -> Iterator[None]:
        """Count a request while it runs; `answer` are the tokens of its answer, at its end."""
        balance = self._balances[route.deployment]
        balance.begin(choice, self._clock())
        self._in_flight[endpoint.url] += 1
        try:
            yield
        finally:
            balance.end(choice, answer(), self._clock())
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

    def forget(self, table: RoutingTable) -> None:
        """Drop what is kept of replicas and deployments that are no longer served and idle."""
        served = {endpoint.url for route in table.routes for endpoint in route.endpoints}
        for url in set(self._pools) - served - set(self._in_flight):
            self._pools.pop(url).close()
        replicas = {route.deployment: {one.attempt for one in route.endpoints} for route in table.routes}
        for name, balance in list(self._balances.items()):
            if name in replicas:
                balance.keep(replicas[name])
            else:
                del self._balances[name]
        self._priming.forget({attempt for attempts in replicas.values() for attempt in attempts})

    def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()


def _cache_blocks(route: Route) -> int:
    """Blocks of text that the cache of a replica is taken to hold."""
    return (route.cache_tokens or CACHE_TOKENS) * TOKEN // BLOCK
