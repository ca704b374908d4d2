"""Builds routes.json, all that the gateway knows of the kernel, and writes it when it changed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from llm_os.errors import LLMOSError
from llm_os.kernel.revisions import in_force, revision
from llm_os.kernel.state import State
from llm_os.spec.deployments import Deployment, DeploymentState, Phase
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.routing import Canary, Endpoint, KeyEntry, Route, RoutingTable
from llm_os.store import rows

log = logging.getLogger(__name__)


class Published:
    """The routing table that the gateway has.

    Args:
        admin_sha256: of the home's own key.
    """

    def __init__(self, state: State, admin_sha256: str | None) -> None:
        self._state = state
        self._admin_sha256 = admin_sha256
        self._text = ""
        self._sharing: frozenset[str] | None = None

    def write(self) -> None:
        """Write the table if it says anything new; where that fails, a later turn tries again."""
        try:
            self.told()
        except LLMOSError as error:  # a full disk: the gateway goes on with its last table
            log.warning("The routing table could not be written: %s", error)

    @property
    def sharing(self) -> frozenset[str]:
        """Engines whose requests share what was read."""
        if self._sharing is None:
            self._sharing = frozenset(one.name for one in self._state.plugins.engines() if one.shares_prefixes)
        return self._sharing

    def told(self) -> None:
        """Write the table if it says anything new. Raises LLMOSError: the gateway goes on with its last table."""
        with self._state.database.reading() as tx:
            table = routing_table(tx, 0, self._admin_sha256, self.sharing)
        text = table.model_dump_json()
        if text == self._text:
            return
        stamped = table.model_copy(update={"version": int(self._state.clock.now() * 1000)})
        self._state.files.write_routes(stamped)
        self._text = text


def routing_table(
    tx: Connection, version: int, admin_sha256: str | None, sharing: Collection[str] = ()
) -> RoutingTable:
    """Every live deployment with its ready replicas, and every key.

    Args:
        sharing: engines whose requests share what was read.
    """
    routes = []
    for row in rows.all_deployments(tx, include_ended=False):
        if row.deployment.state is DeploymentState.STOPPING:
            continue
        routes.append(_route(row, rows.live_attempts_of(tx, row.deployment.id), sharing))
    keys = rows.list_keys(tx)
    if admin_sha256:
        keys.append(KeyEntry(id="admin", sha256=admin_sha256, role="admin"))
    return RoutingTable(version=version, routes=tuple(routes), keys=tuple(keys))


def _route(row: rows.DeploymentRow, attempts: Sequence[Attempt], sharing: Collection[str]) -> Route:
    deployment = row.deployment
    endpoints = [
        Endpoint(attempt=a.id, url=a.endpoint, revision=a.revision, version=revision(row, a.revision).version)
        for a in attempts
        if a.state is AttemptState.READY and a.endpoint
    ]
    tokens = deployment.spec.options.get("cache_tokens")
    return Route(
        deployment=deployment.spec.name,
        version=deployment.version,
        task=deployment.task,
        engine=deployment.engine,
        endpoints=tuple(endpoints),
        cache_tokens=tokens if isinstance(tokens, int) else None,
        revision=deployment.revision,
        canary=_canary(deployment),
        shares_prefixes=deployment.engine in sharing,
        generation=in_force(row).generation,
        created_at=deployment.created_at,
    )


def _canary(deployment: Deployment) -> Canary | None:
    """Which requests the new revision gets; None where it gets its part as every other."""
    rollout = deployment.rollout
    if rollout is None or rollout.phase not in {Phase.STARTING, Phase.CANARY}:
        return None
    policy, tried = rollout.policy, rollout.phase is Phase.CANARY
    return Canary(
        revision=rollout.target.number,
        weight=policy.canary if tried else 0.0,
        tenants=policy.tenants if tried else (),
        shadow=policy.shadow,
    )
