"""Connections to replicas, kept alive, and which of them is asked; must not know keys or tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from llm_os.errors import UnavailableError
from llm_os.server.gateway.balance import Balance, Choice
from llm_os.server.gateway.prefixes import BLOCK, TOKEN, Prefixes
from llm_os.server.gateway.priming import Priming, Turn
from llm_os.server.gateway.soonest import Load, Soonest, Work
from llm_os.server.gateway.wire import Pool
from llm_os.spec.calibration import Speed
from llm_os.spec.routing import Endpoint, Route, RoutingTable

_UNIX = "unix:"
CACHE_TOKENS = 16384
"""Tokens that the cache of a replica is taken to hold where its engine does not say."""


@dataclass(frozen=True, slots=True)
class _Laid:
    """The endpoints of a route as they are asked for; made anew when the routing table changes.

    Attributes:
        groups: replicas of engines that were measured to be unequally fast; one, where that is not known.
    """

    endpoints: tuple[Endpoint, ...]
    by_attempt: Mapping[str, Endpoint]
    groups: Sequence[tuple[Sequence[Speed], Sequence[str]]]


class Upstreams:
    """One pool for each replica and one balance for each deployment, made at first use.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pools: dict[str, Pool] = {}
        self._balances: dict[str, Balance] = {}
        self._soonest: dict[str, Soonest] = {}
        self._known: dict[str, _Laid] = {}
        self._in_flight: Counter[str] = Counter()
        self._priming = Priming(clock)

    def choose(
        self,
        route: Route,
        names: Sequence[int] = (),
        tokens: float = 1.0,
        avoid: Collection[str] = (),
        answer: float | None = None,
        answers: int = 1,
    ) -> tuple[Endpoint, Choice]:
        """A replica, by what it has read lately and how busy it is; one to avoid (its attempt) if there is no other.

        Where engines differ in speed, first the engine: the one that will have answered soonest.

        Args:
            names: blocks of the prompt. tokens: of the prompt.
            answer: tokens that are expected of all answers; None: they are no texts that are written.
            answers: that are worked on at once.
        """
        balance, now = self._balance(route), self._clock()
        laid = self._laid(route, balance)
        groups = laid.groups
        if len(groups) > 1 and avoid:
            groups = [group for group in groups if not all(one in avoid for one in group[1])] or groups
        if len(groups) == 1:
            choice = balance.choose(groups[0][1], names, tokens, now, avoid)
            return laid.by_attempt[choice.replica], choice
        levels = balance.prefixes.levels(names) if names else ()
        choices = [balance.choose(replicas, names, tokens, now, avoid, levels) for _, replicas in groups]
        reads = answer is not None
        works = [Work(one.to_read if reads else None, answer or 0.0, answers) for one in choices]
        offers = [(speeds, work) for (speeds, _), work in zip(groups, works, strict=True)]
        choice = choices[self._soonest[route.deployment].choose(offers, now)]
        return laid.by_attempt[choice.replica], choice

    async def gather(self, route: Route, answers: int = 1) -> None:
        """Before `choose`, where engines differ in speed: wait for the others of a burst, see `Soonest`."""
        if len(self._laid(route, self._balance(route)).groups) > 1:
            await self._soonest[route.deployment].gather(self._clock, answers)

    def _balance(self, route: Route) -> Balance:
        balance = self._balances.get(route.deployment)
        if balance is None:
            balance = self._balances[route.deployment] = Balance(Prefixes(_cache_blocks(route)), BLOCK / TOKEN)
            self._soonest[route.deployment] = Soonest()
        return balance

    def _laid(self, route: Route, balance: Balance) -> _Laid:
        laid = self._known.get(route.deployment)
        if laid is None or laid.endpoints is not route.endpoints:
            laid = self._known[route.deployment] = _lay(route.endpoints)
            for one in route.endpoints:
                if one.cache_tokens is not None:
                    balance.prefixes.sizes[one.attempt] = _cache_blocks(route, one)
        return laid

    def turn(self, route: Route, endpoint: Endpoint, names: Sequence[int]) -> Turn:
        """The turn of a prompt of these blocks at a replica that was chosen for it."""
        shares = route.shares_prefixes if endpoint.shares_prefixes is None else endpoint.shares_prefixes
        return self._priming.turn(endpoint.attempt, names, _cache_blocks(route, endpoint) if shares else None)

    def busy(
        self, route: Route, endpoint: Endpoint, choice: Choice, answer: Callable[[], float], answers: int = 1
    ) -> AbstractContextManager[None]:
        """Count a request while it runs; `answer` are the tokens of its `answers`, at its end."""
        balance, load = self._balances[route.deployment], self._soonest[route.deployment].load
        return _Busy(balance, load, choice, endpoint.url, self._in_flight, self._clock, answer, answers)

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
                del self._balances[name], self._soonest[name]
                self._known.pop(name, None)
        self._priming.forget({attempt for attempts in replicas.values() for attempt in attempts})

    def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()


class _Busy:
    """One request while it runs. (A class: a generator of `contextlib` costs three times as much.)"""

    __slots__ = ("_answer", "_answers", "_balance", "_choice", "_clock", "_in_flight", "_load", "_url")

    def __init__(
        self,
        balance: Balance,
        load: Load,
        choice: Choice,
        url: str,
        in_flight: Counter[str],
        clock: Callable[[], float],
        answer: Callable[[], float],
        answers: int,
    ) -> None:
        self._balance, self._load, self._choice, self._url = balance, load, choice, url
        self._in_flight, self._clock, self._answer, self._answers = in_flight, clock, answer, answers

    def __enter__(self) -> None:
        begun = self._clock()
        self._balance.begin(self._choice, begun)
        self._load.begin(begun, self._answers)
        self._in_flight[self._url] += 1

    def __exit__(self, *_: object) -> None:
        ended = self._clock()
        self._balance.end(self._choice, self._answer(), ended)
        self._load.end(ended, self._answers)
        self._in_flight[self._url] -= 1
        if not self._in_flight[self._url]:
            del self._in_flight[self._url]


def _lay(endpoints: tuple[Endpoint, ...]) -> _Laid:
    speeds: list[Sequence[Speed]] = []
    replicas: list[list[str]] = []
    for one in endpoints:
        if one.speeds not in speeds:
            speeds.append(one.speeds)
            replicas.append([])
        replicas[speeds.index(one.speeds)].append(one.attempt)
    by_attempt = {one.attempt: one for one in endpoints}
    if not all(speeds):  # of one of them nothing is known: nobody can say which is quicker
        return _Laid(endpoints, by_attempt, [((), list(by_attempt))])
    return _Laid(endpoints, by_attempt, list(zip(speeds, replicas, strict=True)))


def _cache_blocks(route: Route, endpoint: Endpoint | None = None) -> int:
    """Blocks of text that the cache of a replica is taken to hold."""
    own = endpoint.cache_tokens if endpoint is not None else None
    return (own or route.cache_tokens or CACHE_TOKENS) * TOKEN // BLOCK
