"""Builds routes.json, all that the gateway knows of the kernel."""

from __future__ import annotations

from sqlalchemy import Connection

from llm_os.spec.deployments import DeploymentState
from llm_os.spec.jobs import AttemptState
from llm_os.spec.routing import Endpoint, KeyEntry, Route, RoutingTable
from llm_os.store import rows


def routing_table(tx: Connection, version: int, admin_sha256: str | None) -> RoutingTable:
    """Every live deployment with its ready replicas, and every key."""
    routes = []
    for row in rows.all_deployments(tx, include_ended=False):
        if row.deployment.state is DeploymentState.STOPPING:
            continue
        ready = [a for a in rows.attempts_of(tx, row.deployment.id) if a.state is AttemptState.READY and a.endpoint]
        routes.append(
            Route(
                deployment=row.deployment.spec.name,
                version=row.deployment.version,
                task=row.deployment.task,
                engine=row.deployment.engine,
                endpoints=tuple(Endpoint(attempt=a.id, url=str(a.endpoint)) for a in ready),
                created_at=row.deployment.created_at,
            )
        )
    keys = rows.list_keys(tx)
    if admin_sha256:
        keys.append(KeyEntry(id="admin", sha256=admin_sha256, role="admin"))
    return RoutingTable(version=version, routes=tuple(routes), keys=tuple(keys))
