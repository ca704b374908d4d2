"""All that the gateway knows of the kernel: `run/routes.json`, written beside and renamed."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from llm_os.spec.base import Json, Record
from llm_os.spec.calibration import Speed
from llm_os.spec.quotas import Quota


class Endpoint(Record):
    attempt: str
    url: str
    """`unix:/path/to.sock`."""
    revision: int = 1
    """Of the deployment; revisions are numbered from 1."""
    version: str = ""
    """`card@number` that it serves; empty: the route's."""
    engine: str = ""
    """That it runs with; empty: the route's."""
    speeds: tuple[Speed, ...] = ()
    """What its engine was measured to do, fewest streams first; empty: nobody knows."""
    adapters: Mapping[str, str] = Field(default_factory=dict)
    """Adapters that it holds, by name: `card@number`."""
    lacks: tuple[str, ...] = ()
    """What its engine cannot, as the conformance suite names it (`drivers.engine.Engine.gaps`)."""
    cache_tokens: int | None = None
    """Tokens that its cache holds; None: as the route says."""
    shares_prefixes: bool | None = None
    """None: as the route says."""


class Canary(Record):
    """A revision that is tried on some of the requests. Its endpoints get no others."""

    revision: int
    weight: float
    """Share of the requests, or of the copies."""
    tenants: tuple[str, ...] = ()
    """All of whose requests go there."""
    shadow: bool = False
    """It gets copies only, and its answers are thrown away."""


class RouteAdapter(Record):
    """An adapter that requests may name: `DEPLOYMENT:NAME`."""

    name: str
    version: str
    """`card@number` that the replicas shall hold."""
    failed: str = ""
    """Why one could not take it."""


class Route(Record):
    deployment: str
    version: str
    task: str
    engine: str
    endpoints: tuple[Endpoint, ...] = ()
    """Ready replicas only."""
    absent: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """What engines lack that shall answer beside those of the endpoints, and have no ready replica, by engine."""
    cache_tokens: int | None = None
    """Tokens that the cache of a replica holds; None where the engine does not say."""
    revision: int = 1
    """In force; other options are another one."""
    canary: Canary | None = None
    shares_prefixes: bool = False
    """What a replica has read of one prompt, it need not read again in another that begins alike."""
    adapters: tuple[RouteAdapter, ...] = ()
    generation: Mapping[str, Json] = Field(default_factory=dict)
    """What holds for a request that does not say, as the version itself has it."""
    created_at: float


class KeyEntry(Record):
    """A key by its sha256 (hexadecimal); the key itself is stored nowhere."""

    id: str
    sha256: str
    role: str
    """`admin`, `user` or `monitor`."""
    tenant: str = "default"
    deployments: tuple[str, ...] | None = None
    """None: all of them."""
    name: str | None = None
    """What people call it; None for the keys that deployments bring with them."""
    created_at: float = 0.0
    """Seconds since the epoch; 0 where it is not told."""
    quota: Quota = Quota()


class RoutingTable(Record):
    version: int
    routes: tuple[Route, ...] = ()
    keys: tuple[KeyEntry, ...] = ()


class RevisionUsage(Record):
    """How requests fared that a revision answered, copies among them."""

    requests: int = 0
    failed: int = 0
    """Status 500 and above, or broken off."""
    first_bytes: int = 0
    """Of the others: answers that began."""
    first_byte_seconds: float = 0.0
    """Their times from the replica's request to the first byte, added up."""
    asked: int = 0
    """Requests that were sent to it, with those under way."""

    @property
    def silent(self) -> bool:
        """It was asked, and has not answered once."""
        return self.asked > 0 and self.first_bytes == 0


FIRST_WINDOW = 15.0
"""Seconds over which first tokens are looked at."""


class DeploymentUsage(Record):
    last_request_at: float
    """Seconds since the epoch."""
    in_flight: int
    """Requests under way or waiting."""
    requests: int
    tokens_in_flight: float = 0.0
    """Of these requests: tokens of prompts still to read and of answers still to write, as they are guessed."""
    first_token: float | None = None
    """Seconds from arrival to the first token within which 95 of 100 streams of the last `FIRST_WINDOW` had theirs; a
    stream that waits longer counts as it waits. None: there was none."""
    first_tokens: int = 0
    """Streams that this is of."""
    revisions: Mapping[int, RevisionUsage] = Field(default_factory=dict)
    """By the revision's number: those that answer, and the last that did."""
    created_at: float = 0.0
    """Of the deployment that it was counted for: another one of the same name begins anew."""


class Served(Record):
    """What was served to a tenant by a key of a deployment's version since counting began."""

    tenant: str
    key: str
    deployment: str
    version: str
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class GatewayUsage(Record):
    """`run/usage.json`: what the gateway tells the kernel, written beside and renamed at most twice a second.

    What was served is exact at every time: `served` holds the sums of all requests but those whose lines are in the
    file `usage.SPOOL.jsonl` beside it.
    """

    written_at: float
    deployments: Mapping[str, DeploymentUsage] = Field(default_factory=dict)
    served: tuple[Served, ...] = ()
    spool: int = 0
    extra: Mapping[str, Json] = Field(default_factory=dict)
