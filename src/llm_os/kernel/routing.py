"""Builds routes.json, all that the gateway knows of the kernel, and writes it when it changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from sqlalchemy import Connection

from llm_os.drivers.engine import Engine
from llm_os.errors import LLMOSError
from llm_os.kernel.adapters import told_of
from llm_os.kernel.calibrations import trial_of
from llm_os.kernel.replicas import in_force as shares_in_force
from llm_os.kernel.revisions import in_force, member, revision
from llm_os.kernel.state import State
from llm_os.spec.base import Json
from llm_os.spec.calibration import Speed
from llm_os.spec.deployments import Deployment, DeploymentState, Phase, Revision, RevisionMember
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.routing import Canary, Endpoint, KeyEntry, Route, RoutingTable
from llm_os.store import rows

log = logging.getLogger(__name__)

Speeds = Callable[[Revision, RevisionMember, Deployment], tuple[Speed, ...]]
MEASURED_AGAIN = 60.0
"""Seconds after which it is looked up again what engines were measured to do."""


class Published:
    """The routing table that the gateway has.

    Args:
        admin_sha256: of the home's own key.
    """

    def __init__(self, state: State, admin_sha256: str | None) -> None:
        self._state = state
        self._admin_sha256 = admin_sha256
        self._text = ""
        self._engines: Mapping[str, Engine] | None = None
        self._speeds: dict[str, tuple[float, tuple[Speed, ...]]] = {}

    def write(self) -> None:
        """Write the table if it says anything new; where that fails, a later turn tries again."""
        try:
            self.told()
        except LLMOSError as error:  # a full disk: the gateway goes on with its last table
            log.warning("The routing table could not be written: %s", error)

    @property
    def engines(self) -> Mapping[str, Engine]:
        """All engines by name: what they lack, and whether their requests share what was read."""
        if self._engines is None:
            self._engines = {one.name: one for one in self._state.plugins.engines()}
        return self._engines

    def speeds(
        self, tx: Connection, served: Revision, member: RevisionMember, deployment: Deployment
    ) -> tuple[Speed, ...]:
        """`speeds_of`, looked up again after a while: the table is made at each turn, engines are measured seldom."""
        asked = f"{served.version} {deployment.session} {deployment.spec.precision}"
        now, key = self._state.clock.now(), f"{asked} {member.engine} {sorted(member.options.items())}"
        looked, found = self._speeds.get(key, (float("-inf"), ()))
        if now - looked > MEASURED_AGAIN:
            found = speeds_of(self._state, tx, served, member, deployment)
            self._speeds[key] = (now, found)
        return found

    def told(self) -> None:
        """Write the table if it says anything new. Raises LLMOSError: the gateway goes on with its last table."""
        with self._state.database.reading() as tx:
            table = routing_table(tx, 0, self._admin_sha256, self.engines, partial(self.speeds, tx))
        text = table.model_dump_json()
        if text == self._text:
            return
        stamped = table.model_copy(update={"version": int(self._state.clock.now() * 1000)})
        self._state.files.write_routes(stamped)
        self._text = text


def routing_table(
    tx: Connection,
    version: int,
    admin_sha256: str | None,
    engines: Mapping[str, Engine] = MappingProxyType({}),
    speeds: Speeds = lambda *_: (),
) -> RoutingTable:
    """Every live deployment with its ready replicas, and every key.

    Args:
        engines: by name. speeds: what an engine was measured to do with a version, fewest streams first.
    """
    routes = []
    for row in rows.all_deployments(tx, include_ended=False):
        if row.deployment.state is DeploymentState.STOPPING:
            continue
        routes.append(_route(row, rows.live_attempts_of(tx, row.deployment.id), engines, speeds))
    keys = rows.list_keys(tx)
    if admin_sha256:
        keys.append(KeyEntry(id="admin", sha256=admin_sha256, role="admin"))
    return RoutingTable(version=version, routes=tuple(routes), keys=tuple(keys))


def _route(
    row: rows.DeploymentRow,
    attempts: Sequence[Attempt],
    engines: Mapping[str, Engine],
    speeds: Speeds,
) -> Route:
    deployment = row.deployment
    ready = [attempt for attempt in attempts if attempt.state is AttemptState.READY and attempt.endpoint]
    # Replicas of the revision before are replaced, whatever their speed: only engines side by side are compared.
    beside = len({(one.revision, one.member) for one in ready}) > len({one.revision for one in ready})
    endpoints = []
    for attempt in ready:
        mine, served = member(row, attempt), revision(row, attempt.revision)
        engine = engines.get(mine.engine)
        endpoints.append(
            Endpoint(
                attempt=attempt.id,
                url=str(attempt.endpoint),
                revision=attempt.revision,
                version=served.version,
                engine=mine.engine,
                speeds=speeds(served, mine, deployment) if beside else (),
                lacks=tuple(sorted(engine.gaps)) if engine is not None else (),
                cache_tokens=_cache_tokens(mine.options),
                shares_prefixes=engine is not None and engine.shares_prefixes,
                adapters=attempt.adapters,
            )
        )
    return Route(
        deployment=deployment.spec.name,
        version=deployment.version,
        task=deployment.task,
        engine=deployment.engine,
        endpoints=tuple(endpoints),
        absent={
            name: tuple(sorted(engines[name].gaps))
            for name in sorted(_shall_answer(deployment) - {one.engine for one in endpoints})
            if endpoints and name in engines
        },
        cache_tokens=_cache_tokens(deployment.spec.options),
        revision=deployment.revision,
        canary=_canary(deployment),
        shares_prefixes=any(one.shares_prefixes for one in endpoints),
        adapters=told_of(deployment),
        generation=in_force(row).generation,
        created_at=deployment.created_at,
    )


def _shall_answer(deployment: Deployment) -> set[str]:
    """Engines of the revision in force that are not out, and those of one that takes over."""
    engines = set[str]()
    if deployment.history:
        members = deployment.history[-1].members
        engines = {one.engine for one, shall in zip(members, shares_in_force(deployment), strict=True) if shall}
    rollout = deployment.rollout
    if rollout is not None and rollout.phase is Phase.ROLLING:
        engines |= {one.engine for one in rollout.target.members}
    return engines


def _cache_tokens(options: Mapping[str, Json]) -> int | None:
    tokens = options.get("cache_tokens")
    return tokens if isinstance(tokens, int) else None


def speeds_of(
    state: State, tx: Connection, served: Revision, member: RevisionMember, deployment: Deployment
) -> tuple[Speed, ...]:
    """What this engine with these options was measured to do with a version on this machine; empty: nobody knows.

    What is known of it now, or was when it was chosen: a new release of ours, of it, or of the machine's system asks
    for new figures, but what serves goes on as well as before.
    """
    precision = deployment.spec.precision
    trial = trial_of(state, tx, served.version, member, deployment.session, precision, uncompared=True)
    return member.speeds if trial is None else trial.speeds


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
