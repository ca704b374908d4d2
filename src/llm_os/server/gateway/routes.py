"""The routing table as the gateway sees it, and who may see what; must not know HTTP or the kernel.

The kernel writes the file beside and renames it. It may be dead, and the file may be damaged: the last good table
stays in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from llm_os.errors import (
    InvalidInputError,
    LLMOSError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    UnavailableError,
    did_you_mean,
)
from llm_os.server import keys
from llm_os.spec.routing import KeyEntry, Route, RoutingTable

log = logging.getLogger("llm_os.gateway")

WATCH_EVERY = 0.2
"""Seconds between two looks at the file."""
HOLD = 120.0
"""Seconds that a request without a deadline waits for a deployment that has no ready replica."""
MOST_HELD = 128
"""Requests of a tenant that wait so for one deployment."""
MOST_MEANT = 4096
"""Headers, and meanings of requests, that are remembered."""
MOST_REMEMBERED = 256
"""Characters of such a header."""

SERVED_BY = {
    "text-generation": "/v1/chat/completions",
    "text2text-generation": "/v1/chat/completions",
    "text-classification": "/classify",
    "multi-label-classification": "/classify",
    "token-classification": "/classify",
    "sentence-similarity": "/v1/embeddings",
    "feature-extraction": "/v1/embeddings",
}
"""Task of a deployment -> the endpoint that serves it."""


class Routes:
    """The newest good routing table.

    Attributes:
        table: immutable; replaced as a whole, so a request sees one version from start to end.
        keys: its keys by digest.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self.table = RoutingTable(version=0)
        self.keys: Mapping[str, KeyEntry] = {}
        self._news = asyncio.Event()
        self._held: Counter[tuple[str, str]] = Counter()
        self._meant: dict[tuple[str, str, str, str], Route] = {}
        self._headers: dict[str, KeyEntry] = {}
        self._looked = False
        self.listeners: list[Callable[[RoutingTable], None]] = []
        """Called with every new table."""

    def refresh(self) -> bool:
        """Read the file if it changed. True when a new table came into force."""
        try:
            facts = os.stat(self._path)  # once a request: Path.stat costs twice as much
            seen = (facts.st_mtime_ns, facts.st_ino, facts.st_size)
            if seen == self._seen:
                return False
            text = self._path.read_bytes()
        except OSError as error:
            if self._seen is not None:
                log.warning("the routing table cannot be read, version %d stays: %s", self.table.version, error)
                self._seen = None
            return False
        self._seen = seen
        try:
            self.table = RoutingTable.model_validate_json(text, extra="ignore")  # a newer kernel says more
        except ValidationError as error:
            log.error("the routing table is damaged, version %d stays: %s", self.table.version, error)
            return False
        self.keys = keys.by_digest(self.table.keys)
        self._meant.clear()
        self._headers.clear()
        log.info("routing table %d: %d routes", self.table.version, len(self.table.routes))
        self._news.set()
        self._news = asyncio.Event()
        for listener in self.listeners:
            listener(self.table)
        return True

    def look(self) -> None:
        """`refresh`, once for all that is done in the same pass of the event loop."""
        if not self._looked:
            self._looked = True
            asyncio.get_running_loop().call_soon(self._passed)
            self.refresh()

    def _passed(self) -> None:
        self._looked = False

    def authorise(self, header: str | None, roles: frozenset[str]) -> KeyEntry:
        """As `keys.authorise`, by the table in force; a header that was right is known until the next one."""
        entry = None if header is None else self._headers.get(header)
        if entry is not None and entry.role in roles:
            return entry
        entry = keys.authorise(header, self.keys, roles)
        if header is not None and len(header) <= MOST_REMEMBERED:
            if len(self._headers) >= MOST_MEANT:
                self._headers.clear()
            self._headers[header] = entry
        return entry

    def meant(self, entry: KeyEntry, name: str, model: str, task: str) -> Route:
        """What a request for `model` means at the deployment or version `name`; remembered until the next table.

        Raises: see `find` and `pinned`.
        """
        asked = entry.sha256, name, model, task
        if (known := self._meant.get(asked)) is not None and self.keys.get(entry.sha256) is entry:
            return known
        found = pinned(find(self.table, entry, name, task), model)
        if self.keys.get(entry.sha256) is entry:  # else the key is of an older table
            if len(self._meant) >= MOST_MEANT:
                self._meant.clear()
            self._meant[asked] = found
        return found

    async def watch(self) -> None:
        """Follow the file until cancelled."""
        while True:
            self.refresh()
            await asyncio.sleep(WATCH_EVERY)

    async def news(self, seconds: float) -> None:
        """Wait for the next table, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    async def held(self, find: Callable[[], Route], tenant: str, clock: Callable[[], float], until: float) -> Route:
        """The route that `find` finds, when it has a ready replica; waits for that until `until` on `clock`.

        Raises:
            OverloadedError: many requests of this tenant wait for it already.
            UnavailableError: it did not become ready, or is no longer served (retryable).
            Anything that `find` raises at first.
        """
        route = find()
        if route.endpoints:
            return route
        name = route.deployment
        if self._held[name, tenant] >= MOST_HELD:
            raise OverloadedError(
                f"{MOST_HELD} requests wait for '{name}', which has no ready replica.",
                hint=f"Try again in a moment; 'llm-os why {name}' says what it waits for.",
                details={"param": "model", "retry_after": 5},
            )
        self._held[name, tenant] += 1
        try:
            return await self.ready(find, name, clock, until)
        finally:
            self._held[name, tenant] -= 1
            if not self._held[name, tenant]:
                del self._held[name, tenant]

    async def ready(self, find: Callable[[], Route], name: str, clock: Callable[[], float], until: float) -> Route:
        """As `held`, for a request that was let in.

        Raises UnavailableError: there is no replica, or it is no longer served.
        """
        while True:
            try:
                route = find()
            except UnavailableError:  # an adapter that no replica could take: it says so itself
                raise
            except LLMOSError as gone:
                there = any(one.deployment == name for one in self.table.routes)
                what = f"'{name}' no longer serves it: {gone.message}"  # another version has come, or an adapter gone
                raise UnavailableError(
                    what if there else f"The deployment '{name}' ended before it answered.",
                    hint=f"'llm-os why {name}' says why.",
                ) from gone
            if route.endpoints:
                return route
            left = until - clock()
            if left <= 0:
                raise UnavailableError(
                    f"The deployment '{name}' has no ready replica now.",
                    hint=f"Try again in a moment; 'llm-os why {name}' says what it waits for.",
                    details={"param": "model", "retry_after": 1},
                )
            await self.news(left)


def visible(table: RoutingTable, entry: KeyEntry) -> list[Route]:
    """Routes that a key may use, by name."""
    return sorted(
        (route for route in table.routes if keys.may_use(entry, route.deployment)), key=lambda route: route.deployment
    )


def find(table: RoutingTable, entry: KeyEntry, model: str, task: str) -> Route:
    """The route that a request means: a deployment's name, or a version (`card@n`) that is served.

    Either may be followed by `:ADAPTER`, which `pinned` looks at.

    One with a ready replica goes before one without.

    Raises:
        PermissionDeniedError: the key has a list of deployments, and this is not on it.
        NotFoundError: nothing of that name is served; the names the key may see are in the hint.
        InvalidInputError: it is served, but at another endpoint.
    """
    model = model.partition(":")[0]
    named = [r for r in table.routes if r.deployment == model and keys.may_use(entry, model)]
    named = named or [route for route in visible(table, entry) if model in versions(route)]
    if not named:
        raise missing(entry, model, [route.deployment for route in visible(table, entry)])
    fitting = [route for route in named if SERVED_BY.get(route.task) == SERVED_BY[task]]
    if not fitting:
        raise _wrong_task(named[0], model)
    return next((route for route in fitting if route.endpoints), fitting[0])


def versions(route: Route) -> set[str]:
    """`card@number` of all that answers for a deployment."""
    return {route.version} | {one.version for one in route.endpoints if one.version}


def answering(route: Route) -> set[str]:
    """`card@number` of all that may answer, adapters among them."""
    held = {version for endpoint in route.endpoints for version in endpoint.adapters.values()}
    return versions(route) | {one.version for one in route.adapters} | held


def whole(table: RoutingTable, route: Route) -> Route:
    """The deployment's route with all its replicas, of which `pinned` took some; as it is, where it is gone."""
    return next((one for one in table.routes if one.deployment == route.deployment and one.endpoints), route)


def pinned(route: Route, model: str) -> Route:
    """The route for a request that named a version, or an adapter: that one answers it, whatever else is tried.

    Raises NotFoundError, UnavailableError: see `adapted`; or the version is served no more.
    """
    model, colon, adapter = model.partition(":")
    if model != route.deployment:
        if model not in versions(route):
            raise NotFoundError(
                f"'{route.deployment}' serves no version '{model}'.",
                hint=f"It serves: {', '.join(sorted(versions(route)))}.",
                details={"param": "model"},
            )
        mine = tuple(one for one in route.endpoints if (one.version or route.version) == model)
        absent = route.absent if model == route.version else {}
        route = route.model_copy(update={"endpoints": mine, "canary": None, "version": model, "absent": absent})
    return adapted(route, adapter) if colon else alone(route)


def alone(route: Route) -> Route:
    """The route for requests that the model answers by itself: adapters beside it are nothing to them."""
    return route.model_copy(update={"adapters": ()}) if route.adapters else route


def adapted(route: Route, name: str) -> Route:
    """The route for requests that an adapter answers: its version, and the replicas that hold it.

    Replicas that hold the version that shall be there go before those that hold the one before it.

    Raises:
        NotFoundError: the deployment has no such adapter.
        UnavailableError: no replica could take it.
    """
    found = next((one for one in route.adapters if one.name == name), None)
    if found is None:
        known = [f"{route.deployment}:{one.name}" for one in route.adapters]
        raise NotFoundError(
            f"'{route.deployment}' has no adapter '{name}'.",
            hint=did_you_mean(f"{route.deployment}:{name}", [*known, route.deployment]),
            details={"param": "model"},
        )
    holding = [one for one in route.endpoints if one.adapters.get(name) == found.version]
    holding = holding or [one for one in route.endpoints if name in one.adapters]
    if not holding and found.failed and route.endpoints:
        raise UnavailableError(
            f"The adapter '{name}' ({found.version}) could not be taken in: {found.failed}",
            hint=f"Replace or remove it: llm-os adapters remove {route.deployment} {name}",
            details={"param": "model"},
        )
    mine = tuple(one.model_copy(update={"version": one.adapters[name]}) for one in holding)
    told = {"version": found.version, "adapters": (found,), "endpoints": mine, "absent": {}}
    return route.model_copy(update=told)


def views(route: Route) -> list[Route]:
    """What requests can mean by a deployment: its model alone, or one of its adapters, be it there yet or not."""
    bare = route.model_copy(update={"endpoints": ()})
    return [alone(bare), *(adapted(bare, one.name) for one in route.adapters)]


def missing(entry: KeyEntry, model: str, names: list[str]) -> LLMOSError:
    # A key with a list gets the same answer for every other name: it does not learn what else is served.
    if entry.deployments is not None and model.partition(":")[0] not in entry.deployments:
        return PermissionDeniedError(
            f"This key may not use '{model}'.",
            hint="It may use: " + (", ".join(sorted(entry.deployments)) or "nothing") + ".",
            details={"param": "model"},
        )
    return NotFoundError(
        f"No deployment or version '{model}' is served.", hint=did_you_mean(model, names), details={"param": "model"}
    )


def _wrong_task(route: Route, model: str) -> InvalidInputError:
    endpoint = SERVED_BY.get(route.task)
    if endpoint is None:
        hint = "The gateway has no endpoint for this task."
    else:
        hint = f"Send it to POST {endpoint}."
    return InvalidInputError(
        f"'{model}' serves {route.task}, which is not asked here.", hint=hint, details={"param": "model"}
    )
