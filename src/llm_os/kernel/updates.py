"""What people ask of rollouts: begin one, let it take over, take it back. One transaction each; touches no process."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from llm_os.errors import ConflictError, InvalidInputError, InvalidOptionError
from llm_os.kernel.deployments import Deployments
from llm_os.kernel.revisions import (
    chosen_anew,
    fitted,
    in_force,
    next_number,
    planned,
    still_unasked,
    without_foreign_key,
)
from llm_os.kernel.rollouts import Rollouts
from llm_os.kernel.state import State
from llm_os.kernel.submission import find_model
from llm_os.spec.api import UpdateDeployment
from llm_os.spec.base import Json
from llm_os.spec.deployments import Deployment, DeploymentSpec, DeploymentState, Phase, Revision
from llm_os.store import rows


class Updates:
    def __init__(self, state: State, deployments: Deployments, rollouts: Rollouts) -> None:
        self._state = state
        self._deployments = deployments
        self._rollouts = rollouts

    def update(self, name: str, request: UpdateDeployment) -> Deployment:
        """Begin to serve another version, or the same one otherwise.

        Raises:
            NotFoundError: no such deployment, or model.
            ConflictError: it ends or has ended, it is an on-demand one, or an update is under way.
            InvalidInputError: nothing would change.
            Anything that `revisions.planned` raises.
        """
        with self._state.database.transaction() as tx:
            row = self._live(tx, name)
            deployment = row.deployment
            if deployment.rollout is not None and deployment.updating:
                raise ConflictError(
                    f"{name} is being updated to {deployment.rollout.target.version} ({deployment.rollout.phase}).",
                    hint=f"Wait for it, or take it back: llm-os rollback {name}",
                )
            version = find_model(tx, request.model or deployment.version)
            spec = _asked(deployment, request)
            if request.engine is None and request.members is None:  # one that was chosen for the old model is no wish
                if request.options is None:
                    spec = chosen_anew(self._state, tx, row, spec, version)
                spec = fitted(self._state, spec, version, keep_options=request.options is not None)
            else:  # a precision that was asked for was one of another engine
                spec = spec.model_copy(update={"precision": None})
            if request.options is None:
                spec = without_foreign_key(spec, find_model(tx, deployment.version), version)
            if version.task != deployment.task:
                raise InvalidInputError(
                    f"{name} serves {deployment.task}, and {version.ref} is {version.task}.",
                    hint="Its callers would get no answer: deploy it under a name of its own.",
                )
            target = planned(self._state, tx, spec, version, deployment.session, next_number(deployment))
            if request.engine is None and request.members is None and request.options is None:
                target = still_unasked(row, target)
            if _what(target) == _what(in_force(row)) and spec.model == deployment.spec.model:
                engines = " and ".join(member.engine for member in target.members)
                raise InvalidInputError(
                    f"{name} serves {target.version} with {engines} and these options already.",
                    hint="Name another version, engine or option.",
                )
            if request.only_check:
                return deployment
            self._rollouts.begin(tx, row, spec, target, request.policy or deployment.spec.update, "asked for")
            found = self._deployments.get(tx, name).deployment
        self._state.pulse.beat()
        return found

    def promote(self, name: str) -> Deployment:
        """Let a version that is being tried take over. Raises ConflictError when none is."""
        with self._state.database.transaction() as tx:
            row = self._live(tx, name)
            rollout = row.deployment.rollout
            if rollout is None or rollout.phase is not Phase.CANARY:
                raise ConflictError(
                    f"No new version of {name} is being tried.",
                    hint=f"Update it first: llm-os update {name} MODEL --until-promoted",
                )
            self._rollouts.go(tx, row, rollout, Phase.ROLLING, "promoted by hand")
            found = self._deployments.get(tx, name).deployment
        self._state.pulse.beat()
        return found

    def roll_back(self, name: str) -> Deployment:
        """Take an update back that is under way, or go to the version before. Raises ConflictError: there is none."""
        with self._state.database.transaction() as tx:
            row = self._live(tx, name)
            deployment = row.deployment
            if deployment.rollout is not None and deployment.updating:
                if deployment.rollout.returns:
                    raise ConflictError(
                        f"{name} is going back to {deployment.rollout.target.version} already.", hint="Wait for it."
                    )
                self._rollouts.take_back(tx, row, deployment.rollout, "taken back by hand")
            elif len(deployment.history) < 2:
                raise ConflictError(
                    f"{name} has served nothing but {deployment.version}.", hint="There is no version to go back to."
                )
            else:
                self._rollouts.go_back(tx, row, "taken back by hand")
            found = self._deployments.get(tx, name).deployment
        self._state.pulse.beat()
        return found

    def _live(self, tx: Connection, name: str) -> rows.DeploymentRow:
        row = self._deployments.get(tx, name)
        state = row.deployment.state
        if state.ended or state is DeploymentState.STOPPING:
            raise ConflictError(f"{name} is {state.value}.", hint="Deploy the model again.")
        if row.private:
            raise ConflictError(f"{name} belongs to a handle and ends by itself.", hint="Deploy the model by a name.")
        return row


def _what(one: Revision) -> tuple[str, list[tuple[str, Mapping[str, Json]]]]:
    """Version, and engines with their options."""
    return one.version, [(member.engine, member.options) for member in one.members]


def _asked(deployment: Deployment, request: UpdateDeployment) -> DeploymentSpec:
    """The spec as it shall be; options are those of their engine, and of each of them where there are several."""
    spec = deployment.spec
    if all(one is None for one in (request.model, request.engine, request.options, request.members)):
        raise InvalidInputError(f"Nothing of {spec.name} is to change.", hint="Name a model, an engine or an option.")
    asked = spec.model_copy(update={"model": request.model or spec.model})
    if request.members is not None:
        if request.engine is not None or request.options is not None:
            raise InvalidOptionError(
                "`members` names the engines, so `engine` and `options` are left out.",
                hint="Give each member its own options.",
                details={"option": "members"},
            )
        return asked.model_copy(update={"engine": None, "options": {}, "members": request.members})
    if request.engine is None and spec.members:
        return asked if request.options is None else _with_options(asked, request.options)
    engine = request.engine or spec.engine
    if request.options is not None:
        options = dict(request.options)
    else:
        options = {} if engine != spec.engine else dict(spec.options)
    return asked.model_copy(update={"engine": engine, "options": options, "members": ()})


def _with_options(spec: DeploymentSpec, options: Mapping[str, Json]) -> DeploymentSpec:
    members = tuple(member.model_copy(update={"options": options}) for member in spec.members)
    return spec.model_copy(update={"engine": None, "options": {}, "members": members})
