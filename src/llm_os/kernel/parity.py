"""With what a replica is compared before it serves, and what came out. Looks records up; never runs a model."""

from __future__ import annotations

import hashlib
import json

from sqlalchemy import Connection

from llm_os.drivers.device import Unavailable
from llm_os.drivers.engine import Engine
from llm_os.kernel.calibrations import identity_of, judged
from llm_os.kernel.references import reference_of
from llm_os.kernel.replicas import kind_of
from llm_os.kernel.revisions import in_force, member, revision
from llm_os.kernel.state import State
from llm_os.kernel.submission import find_model
from llm_os.spec.attempts import Report
from llm_os.spec.deployments import Revision, RevisionMember
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.parity import Parity
from llm_os.store import rows

SAYS_THE_SAME = frozenset({"threads", "stream_interval"})
"""Options with which an engine says what it says without them."""


def reference_for(
    state: State, tx: Connection, row: rows.DeploymentRow, attempt: Attempt, engine: Engine
) -> str | None:
    """Digest of the reference that a replica shall be compared with before it serves.

    None: nobody made one, it is not to be compared (an on-demand replica, `check` off, an engine that is the
    reference itself), or what came out is known.
    """
    if row.private or not row.deployment.spec.check or not engine.compared:
        return None
    mine = (a for a in rows.live_attempts_of(tx, row.deployment.id) if kind_of(a) == kind_of(attempt))
    if any(other.state is AttemptState.READY for other in mine):
        return None  # a service that runs is not judged anew because one of its replicas was lost
    served, own = revision(row, attempt.revision), member(row, attempt)
    digest = reference_behind(state, tx, served)
    if digest is None or _found(state, tx, row, served, own, _key(digest, own, engine)) is not None:
        return None
    return digest


def keep(state: State, tx: Connection, attempt: Attempt, ready: Report | None, *, anyway: bool = False) -> None:
    """Write into the revision of a replica that is ready how far it agrees: as it reported, or as is known.

    Args:
        anyway: somebody asked for it.
    """
    row = rows.find_deployment(tx, attempt.owner)
    if row is None or not (anyway or (row.deployment.spec.check and not row.private)):
        return
    served, mine = revision(row, attempt.revision), member(row, attempt)
    engine = next((one for one in state.plugins.engines() if one.name == mine.engine), None)
    digest = reference_behind(state, tx, served) if engine is not None and (anyway or engine.compared) else None
    if engine is None or digest is None:
        return
    key = _key(digest, mine, engine)
    told = ready.values.get("parity") if ready is not None else None
    found = _found(state, tx, row, served, mine, key) if told is None else Parity.model_validate(told)
    if found is not None and not found.key:
        more = {"key": key, "engine_version": _version(engine), "at": state.clock.now()}
        found = found.model_copy(update=more)
    if found is None or found == mine.parity:
        return
    judged = served.judged(attempt.member, found)
    deployment = row.deployment
    history = tuple(judged if one.number == served.number else one for one in deployment.history or (in_force(row),))
    rollout = deployment.rollout
    if rollout is not None and rollout.target.number == served.number:
        rollout = rollout.model_copy(update={"target": judged})
    changed = deployment.model_copy(update={"history": history, "rollout": rollout})
    rows.update_deployment(tx, changed, was=deployment.state, not_before=row.not_before)


def reference_behind(state: State, tx: Connection, served: Revision) -> str | None:
    """Digest of the reference of the version that a revision serves, if somebody made one."""
    return reference_of(state, tx, find_model(tx, served.version).manifest)


def _key(digest: str, served: RevisionMember, engine: Engine) -> str:
    """Equal where a comparison gives the same. Threads are left out: they change the order of sums and no more."""
    options = {name: value for name, value in served.options.items() if name not in SAYS_THE_SAME}
    whole = json.dumps([digest, engine.name, identity_of(engine, served), options], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()


def _version(engine: Engine) -> str:
    probe = engine.probe()
    return "" if isinstance(probe, Unavailable) else probe.version


def _found(
    state: State, tx: Connection, row: rows.DeploymentRow, served: Revision, own: RevisionMember, key: str
) -> Parity | None:
    """What came out before: here, in any deployment, or while engines were measured.

    None where this service was asked once more and did not agree: no older figure speaks for it.
    """
    if own.parity is not None and own.parity.key == key:
        return own.parity if own.parity.agrees else None
    return _known(tx, key) or judged(state, tx, served, own, row.deployment)


def _known(tx: Connection, key: str) -> Parity | None:
    """What came out for the same thing before, in any deployment."""
    for row in rows.all_deployments(tx, include_ended=True):
        rollout = row.deployment.rollout
        for one in (*row.deployment.history, *([rollout.target] if rollout is not None else [])):
            for part in one.members:
                if part.parity is not None and part.parity.key == key and part.parity.agrees:
                    return part.parity
    return None
