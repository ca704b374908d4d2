"""All that the gateway knows of the kernel: `run/routes.json`, written beside and renamed."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from llm_os.spec.base import Json, Record


class Endpoint(Record):
    attempt: str
    url: str
    """`unix:/path/to.sock`."""


class Route(Record):
    deployment: str
    version: str
    task: str
    engine: str
    endpoints: tuple[Endpoint, ...] = ()
    """Ready replicas only."""
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


class RoutingTable(Record):
    version: int
    routes: tuple[Route, ...] = ()
    keys: tuple[KeyEntry, ...] = ()


class DeploymentUsage(Record):
    last_request_at: float
    """Seconds since the epoch."""
    in_flight: int
    requests: int


class GatewayUsage(Record):
    """`run/usage.json`: what the gateway tells the kernel, written beside and renamed at most twice a second."""

    written_at: float
    deployments: Mapping[str, DeploymentUsage] = Field(default_factory=dict)
    extra: Mapping[str, Json] = Field(default_factory=dict)
