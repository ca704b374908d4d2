"""Adapters of deployments that serve: added, replaced, removed, and told to the replicas. Never touches a process.

What a deployment shall carry is part of its spec, so it outlives kernel and replicas. Replicas are told through the
`control.json` of their attempts, after the routing table was written: whoever asks for what is going is not sent to a
replica that has let it go already.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection

from llm_os.errors import ConflictError, DiskFullError, LLMOSError, NotFoundError, did_you_mean
from llm_os.kernel.adapters import check, check_room, clash, held_by
from llm_os.kernel.deployments import Deployments
from llm_os.kernel.revisions import in_force, member, revision
from llm_os.kernel.state import State
from llm_os.kernel.submission import find_model
from llm_os.spec.api import AddAdapter
from llm_os.spec.attempts import Control
from llm_os.spec.base import Json
from llm_os.spec.deployments import Deployment, DeploymentState
from llm_os.spec.events import EventKind
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.store import rows

log = logging.getLogger(__name__)

_TOLD = frozenset({AttemptState.RUNNING, AttemptState.READY})


class Adapting:
    """Args: publish: writes the routing table, so that a caller who was answered finds what it asked for."""

    def __init__(self, state: State, deployments: Deployments, publish: Callable[[], None]) -> None:
        self._state = state
        self._deployments = deployments
        self._publish = publish

    def add(self, name: str, request: AddAdapter) -> Deployment:
        """Carry an adapter. Returns at once; `replicas` of the deployment tells who holds it.

        Raises:
            NotFoundError: no such deployment, or version.
            ConflictError: the name is taken, the deployment ends, is an on-demand one, or is being updated.
            Anything that `adapters.check` and `adapters.check_room` raise.
        """
        with self._state.database.transaction() as tx:
            row = self._live(tx, name)
            deployment, served = row.deployment, in_force(row)
            version = find_model(tx, request.version)
            known = dict(deployment.spec.adapters)
            called = request.name or version.card
            if called in known and not request.replace:
                if known[called] == version.ref:
                    return deployment
                raise clash(name, called, known[called])
            base = find_model(tx, served.version)
            for mine in served.members:  # each of them is asked for it
                engine = next(one for one in self._state.plugins.engines() if one.name == mine.engine)
                options = engine.Options.model_validate(dict(mine.options))
                check_room(name, len(known | {called: version.ref}), base, engine, options)
                check(tx, version, base, engine, options)
            was = f" in the place of {known[called]}" if called in known else ""
            message = f"{name}:{called} is {version.ref}{was}."
            self._write(tx, row, known | {called: version.ref}, EventKind.ADAPTER_ADDED, message, called)
            found = self._deployments.get(tx, name).deployment
        self._publish()
        self._state.pulse.beat()
        return found

    def remove(self, name: str, adapter: str) -> Deployment:
        """Carry it no more; answers that have begun with it end with it. Raises NotFoundError, ConflictError."""
        with self._state.database.transaction() as tx:
            row = self._live(tx, name, updating=True)
            known = dict(row.deployment.spec.adapters)
            if adapter not in known:
                raise NotFoundError(f"{name} has no adapter '{adapter}'.", hint=did_you_mean(adapter, known))
            message = f"{name}:{adapter} ({known.pop(adapter)}) is served no more."
            self._write(tx, row, known, EventKind.ADAPTER_REMOVED, message, adapter)
            found = self._deployments.get(tx, name).deployment
        self._publish()
        self._state.pulse.beat()
        return found

    def _write(
        self,
        tx: Connection,
        row: rows.DeploymentRow,
        adapters: Mapping[str, str],
        kind: EventKind,
        message: str,
        adapter: str,
    ) -> None:
        deployment = row.deployment
        spec = deployment.spec.model_copy(update={"adapters": dict(adapters)})
        changed = deployment.model_copy(update={"spec": spec})
        rows.update_deployment(tx, changed, was=deployment.state, not_before=row.not_before)
        data: dict[str, Json] = {"adapter": adapter, "version": adapters.get(adapter)}
        rows.add_event(tx, self._state.clock.now(), kind, deployment.spec.name, message, data)
        self._deployments.settle(tx, deployment.id)

    def _live(self, tx: Connection, name: str, *, updating: bool = False) -> rows.DeploymentRow:
        """The deployment, if its adapters may change now; `updating`: also while a new version is on its way."""
        row = self._deployments.get(tx, name)
        deployment = row.deployment
        if deployment.state.ended or deployment.state is DeploymentState.STOPPING:
            raise ConflictError(f"{name} is {deployment.state.value}.", hint="Deploy the model again.")
        if row.private:
            raise ConflictError(f"{name} belongs to a handle and ends by itself.", hint="Deploy the model by a name.")
        if deployment.updating and not updating and deployment.rollout is not None:
            raise ConflictError(
                f"{name} is being updated to {deployment.rollout.target.version}.",
                hint=f"Wait for it, or take it back: llm-os rollback {name}",
            )
        return row

    def tell(self, live: Sequence[Attempt]) -> None:
        """Tell every replica what it shall hold, if that is news. Repeated as long as it cannot be written."""
        for attempt in live:
            if attempt.owner_kind != "replica" or attempt.state not in _TOLD:
                continue
            watch = self._state.watch(attempt.id)
            with self._state.database.reading() as tx:
                row, now = rows.find_deployment(tx, attempt.owner), rows.get_attempt(tx, attempt.id)
                if row is None or now is None or now.attempt.state not in _TOLD:  # asked to stop a moment ago
                    continue
                carried = tuple(sorted(row.deployment.spec.adapters.items()))
                if carried == watch.carried or (not carried and not attempt.adapters and watch.carried is None):
                    continue
                try:
                    served = revision(row, attempt.revision)
                    wanted = held_by(self._state, tx, row.deployment, served, member(row, attempt))
                except LLMOSError as error:  # an artifact is gone: what it holds stays
                    log.warning("%s cannot be told of its adapters: %s", attempt.id, error)
                    continue
            try:
                self._state.files.write_control(attempt.id, Control(adapters=wanted))
            except DiskFullError:
                continue
            watch.carried = carried

    def heard(self, tx: Connection, attempt: Attempt) -> Attempt:
        """The attempt as its replica told last: what it holds, and what it could not take."""
        watch = self._state.watch(attempt.id)
        told = watch.newest("adapters") or watch.newest("ready")
        held, failed = (_texts(told.values.get(name)) if told is not None else {} for name in ("adapters", "failed"))
        if (held, failed) == (dict(attempt.adapters), dict(attempt.adapters_failed)):
            return attempt
        changed = attempt.model_copy(update={"adapters": held, "adapters_failed": failed})
        if not rows.update_attempt(tx, changed, was=attempt.state):
            return attempt
        row = rows.find_deployment(tx, attempt.owner)
        name = row.deployment.spec.name if row is not None else attempt.owner
        for adapter in sorted(failed.keys() - attempt.adapters_failed.keys()):
            message = f"A replica of {name} cannot hold the adapter '{adapter}': {failed[adapter]}"
            data: dict[str, Json] = {"adapter": adapter, "attempt": attempt.id}
            rows.add_event(tx, self._state.clock.now(), EventKind.ADAPTER_FAILED, name, message, data)
        self._deployments.settle(tx, attempt.owner)
        return changed


def _texts(value: Json) -> dict[str, str]:
    """Names and texts; nothing of what is something else."""
    return {name: str(one) for name, one in value.items()} if isinstance(value, dict) else {}
