"""The routing table as the gateway sees it, and who may see what; must not know HTTP or the kernel.

The kernel writes the file beside and renames it. It may be dead, and the file may be damaged: the last good table
stays in force.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from pydantic import ValidationError

from llm_os.errors import (
    InvalidInputError,
    LLMOSError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
    did_you_mean,
)
from llm_os.server import keys
from llm_os.spec.routing import KeyEntry, Route, RoutingTable

log = logging.getLogger("llm_os.gateway")

WATCH_EVERY = 0.2
"""Seconds between two looks at the file."""

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
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self.table = RoutingTable(version=0)

    def refresh(self) -> bool:
        """Read the file if it changed. True when a new table came into force."""
        try:
            facts = self._path.stat()
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
            self.table = RoutingTable.model_validate_json(text)
        except ValidationError as error:
            log.error("the routing table is damaged, version %d stays: %s", self.table.version, error)
            return False
        log.info("routing table %d: %d routes", self.table.version, len(self.table.routes))
        return True

    async def watch(self) -> None:
        """Follow the file until cancelled."""
        while True:
            self.refresh()
            await asyncio.sleep(WATCH_EVERY)


def visible(table: RoutingTable, entry: KeyEntry) -> list[Route]:
    """Routes that a key may use, by name."""
    return sorted(
        (route for route in table.routes if keys.may_use(entry, route.deployment)), key=lambda route: route.deployment
    )


def find(table: RoutingTable, entry: KeyEntry, model: str, task: str) -> Route:
    """The ready route that a request means: a deployment's name, or a version (`card@n`) that is served.

    Raises:
        PermissionDeniedError: the key has a list of deployments, and this is not on it.
        NotFoundError: nothing of that name is served; the names the key may see are in the hint.
        InvalidInputError: it is served, but at another endpoint.
        UnavailableError: it is known and no replica is ready (retryable).
    """
    seen = visible(table, entry)
    named = [route for route in seen if route.deployment == model] or [
        route for route in seen if route.version == model
    ]
    if not named:
        raise missing(entry, model, [route.deployment for route in seen])
    fitting = [route for route in named if SERVED_BY.get(route.task) == SERVED_BY[task]]
    if not fitting:
        raise _wrong_task(named[0], model)
    ready = [route for route in fitting if route.endpoints]
    if not ready:
        raise UnavailableError(
            f"The deployment '{fitting[0].deployment}' has no ready replica now.",
            hint=f"Try again in a moment; 'llm-os why {fitting[0].deployment}' says what it waits for.",
            details={"param": "model", "retry_after": 1},
        )
    return ready[0]


def missing(entry: KeyEntry, model: str, names: list[str]) -> LLMOSError:
    # A key with a list gets the same answer for every other name: it does not learn what else is served.
    if entry.deployments is not None and model not in entry.deployments:
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
