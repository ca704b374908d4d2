"""What a deployment serves: version, engine, options and size, chosen and checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from sqlalchemy import Connection

from llm_os.drivers.device import Unavailable
from llm_os.drivers.engine import Engine
from llm_os.errors import (
    CapacityError,
    InvalidOptionError,
    NotFoundError,
    UnavailableError,
    UnsupportedModelError,
    did_you_mean,
)
from llm_os.kernel.adapters import check_all
from llm_os.kernel.calibrations import calibration_for, taken, trial_of
from llm_os.kernel.state import State
from llm_os.kernel.submission import validated
from llm_os.spec.base import Json, Spec
from llm_os.spec.calibration import Member
from llm_os.spec.deployments import Deployment, DeploymentSpec, Revision, RevisionMember
from llm_os.spec.jobs import Attempt
from llm_os.spec.models import ModelVersion
from llm_os.store import rows

KEPT = "kept from "
"""How a reason begins that was found for another version."""
MOST_KEPT = 8
"""Revisions of a deployment that it can go back to."""


def planned(
    state: State, tx: Connection, spec: DeploymentSpec, version: ModelVersion, session: str | None, number: int = 1
) -> Revision:
    """The revision that serves this version as the spec says.

    Raises:
        CapacityError: a replica can never fit.
        Anything that `chosen_members` raises, and `adapters.check_all`.
    """
    precision, (spec, because) = spec.precision, taken(state, tx, spec, version, session)
    chosen, ledger = chosen_members(state, spec, version), state.ledger(tx)
    granted, facts, members = ledger.granted(session), state.artifacts.facts(version.manifest), []
    for engine, options in chosen:
        check_all(tx, spec, version, engine, options)
        resources = engine.footprint(options, facts, granted)
        never = ledger.never_fits(resources, session)
        if never is not None:
            which, instead = (f" with {engine.name}", ", or leave this engine out") if len(chosen) > 1 else ("", "")
            raise CapacityError(
                f"A replica of {version.ref}{which} {never.message}.",
                hint=f"Grant more, or serve a smaller model{instead}.",
            )
        one = RevisionMember(engine=engine.name, options=options.model_dump(mode="json"), resources=resources)
        trial = None
        if len(chosen) > 1:
            trial = trial_of(state, tx, version.ref, one, session, precision, uncompared=True)
        members.append(one.model_copy(update={"speeds": trial.speeds}) if trial is not None else one)
    first, *beside = members
    return Revision(
        number=number,
        version=version.ref,
        task=version.task,
        engine=first.engine,
        options=first.options,
        resources=first.resources,
        speeds=first.speeds,
        generation=dict(said) if isinstance(said := version.meta.get("generation"), Mapping) else {},
        beside=tuple(beside),
        because=because,
        precision=precision,
    )


def chosen_anew(
    state: State, tx: Connection, row: rows.DeploymentRow, spec: DeploymentSpec, version: ModelVersion
) -> DeploymentSpec:
    """The spec for another version: without an engine that nobody had asked for, where measuring tells of a better one.

    Where nothing was measured for the version, it keeps the engine of the version before, if that opens it.
    """
    unasked = bool(in_force(row).because) and version.ref != row.deployment.version
    if not unasked or calibration_for(state, tx, version, row.deployment.session, spec.precision) is None:
        return spec
    return spec.model_copy(update={"engine": None, "options": {}, "members": ()})


def still_unasked(row: rows.DeploymentRow, target: Revision) -> Revision:
    """The next revision with the reason of the one in force, if its engines are those that were chosen for that.

    Nobody has named them by their being kept: they are chosen anew as soon as there are figures.
    """
    before = in_force(row)
    if (
        target.because
        or not before.because
        or not {one.engine for one in target.members} <= {one.engine for one in before.members}
    ):
        return target
    same = target.version == before.version or before.because.startswith(KEPT)
    told = before.because if same else f"{KEPT}{before.version}: {before.because}"
    return target.model_copy(update={"because": told})


def chosen_members(state: State, spec: DeploymentSpec, version: ModelVersion) -> list[tuple[Engine, Spec]]:
    """The engines that were asked for side by side, or the one that was asked for or chosen; with their options.

    Raises:
        InvalidOptionError: two of them are the same, or there is an engine or an option beside them.
        Anything that `chosen_engine` raises.
    """
    if not spec.members:
        return [chosen_engine(state, spec, version)]
    mine = [one for one in spec.members if spec.engine in (None, one.engine)]
    if not any(not spec.options or dict(spec.options) == dict(one.options) for one in mine):
        raise InvalidOptionError(
            "`members` names the engines, so `engine` and `options` are left out.",
            hint="Give each member its own options.",
            details={"option": "members"},
        )
    found = [chosen_engine(state, _alone(spec, member), version) for member in spec.members]
    if len({(engine.name, options.model_dump_json()) for engine, options in found}) < len(found):
        raise InvalidOptionError(
            f"The engines {', '.join(engine.name for engine, _ in found)} are not all different.",
            hint="Leave one out, give it other options, or ask for more replicas.",
            details={"option": "members"},
        )
    return found


def settled(spec: DeploymentSpec, members: Sequence[Member]) -> DeploymentSpec:
    """The spec with the engines and options that were found right."""
    first = members[0]
    several = tuple(members) if len(members) > 1 else ()
    return spec.model_copy(update={"engine": first.engine, "options": first.options, "members": several})


def _alone(spec: DeploymentSpec, member: Member) -> DeploymentSpec:
    """The spec as it would be with this engine alone."""
    return spec.model_copy(update={"engine": member.engine, "options": member.options, "members": ()})


def fitted(state: State, spec: DeploymentSpec, version: ModelVersion, *, keep_options: bool = False) -> DeploymentSpec:
    """The spec, without engines that do not open this version: it is chosen anew. So are options, if not asked."""
    engines, facts = {one.name: one for one in state.plugins.engines()}, state.artifacts.facts(version.manifest)

    def opens(name: str | None) -> bool:
        engine = engines.get(name or "")
        serves = engine is None or (version.format in engine.formats and version.task in engine.tasks)
        return serves and (engine is None or engine.refuses(facts) is None)

    left = [member for member in spec.members if opens(member.engine)]
    if left:
        return spec if len(left) == len(spec.members) else settled(spec, left)
    if not spec.members and opens(spec.engine):
        return spec
    kept = spec.options if keep_options and not spec.members else {}
    return spec.model_copy(update={"engine": None, "options": kept, "members": ()})


def without_foreign_key(spec: DeploymentSpec, before: ModelVersion, after: ModelVersion) -> DeploymentSpec:
    """The spec, without the file of a key that was for another server: a key goes to the server it was given for."""
    held = [spec.options, *(member.options for member in spec.members)]
    if not any("key_file" in options for options in held) or _origin(before) == _origin(after):
        return spec
    members = tuple(member.model_copy(update={"options": _keyless(member.options)}) for member in spec.members)
    return spec.model_copy(update={"options": _keyless(spec.options), "members": members})


def _keyless(options: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in options.items() if name != "key_file"}


def _origin(version: ModelVersion) -> tuple[str, str]:
    parts = urlsplit(str(version.meta.get("url", "")))
    return parts.scheme, parts.netloc


def chosen_engine(state: State, spec: DeploymentSpec, version: ModelVersion) -> tuple[Engine, Spec]:
    """The engine that was asked for, or the best one here; and its options.

    Raises:
        NotFoundError, UnsupportedModelError, UnavailableError: it cannot serve that, or not here.
        InvalidOptionError: an option is wrong.
    """
    engines = {engine.name: engine for engine in state.plugins.engines()}
    task = version.task
    if spec.engine is not None:
        if spec.engine not in engines:
            raise NotFoundError(f"There is no engine '{spec.engine}'.", hint=did_you_mean(spec.engine, engines))
        chosen = engines[spec.engine]
        if version.format not in chosen.formats or task not in chosen.tasks:
            raise UnsupportedModelError(
                f"{chosen.name} serves {', '.join(chosen.tasks)} from {', '.join(chosen.formats)}; "
                f"{version.ref} is {task} in {version.format}.",
                hint="Leave the engine out to let LLM OS choose.",
            )
        if (refusal := chosen.refuses(state.artifacts.facts(version.manifest))) is not None:
            hint = "Leave the engine out to let LLM OS choose."
            raise UnsupportedModelError(f"{chosen.name} cannot serve {version.ref}: {refusal}.", hint=hint)
        probe = chosen.probe()
        if isinstance(probe, Unavailable):
            raise UnavailableError(f"{chosen.name} cannot be used here: {probe.reason}", hint=probe.hint)
        return chosen, validated(chosen.Options, dict(spec.options), f"engine {chosen.name}")
    fitting = [e for e in engines.values() if version.format in e.formats and task in e.tasks]
    facts = state.artifacts.facts(version.manifest)
    against = {engine.name: engine.refuses(facts) for engine in fitting}
    ready = [e for e in fitting if against[e.name] is None and not isinstance(e.probe(), Unavailable)]
    if not ready:
        reasons = [f"{name}: {refusal}." for name, refusal in against.items() if refusal is not None]
        reasons += [f"{e.name}: {p.reason}" for e in fitting if isinstance(p := e.probe(), Unavailable)]
        raise UnsupportedModelError(
            f"No engine here serves {version.ref} ({task}, {version.format}).",
            hint="; ".join(reasons) or "An encoder without a head must be trained first: model.train(data).",
        )
    if spec.adapters:  # one that can hold them goes before a quicker one that cannot
        room = [e for e in ready if e.adapter_room(validated(e.Options, {}, f"engine {e.name}"), task) is not None]
        ready = room or ready
    chosen = max(ready, key=lambda engine: (engine.preference, engine.name))
    return chosen, validated(chosen.Options, dict(spec.options), f"engine {chosen.name}")


def in_force(row: rows.DeploymentRow) -> Revision:
    """The revision that a deployment serves now."""
    deployment = row.deployment
    if deployment.history:
        return deployment.history[-1]
    return Revision(  # written by a release that knew no revisions
        number=deployment.revision,
        version=deployment.version,
        task=deployment.task,
        engine=deployment.engine,
        options=deployment.spec.options,
        resources=row.resources,
    )


def revision(row: rows.DeploymentRow, number: int) -> Revision:
    """The one of this number: in force, its successor, or one that was in force."""
    rollout = row.deployment.rollout
    if rollout is not None and rollout.target.number == number:
        return rollout.target
    return next((one for one in row.deployment.history if one.number == number), in_force(row))


def member(row: rows.DeploymentRow, attempt: Attempt) -> RevisionMember:
    """The engine that a replica runs with."""
    members = revision(row, attempt.revision).members
    return members[min(attempt.member, len(members) - 1)]


def next_number(deployment: Deployment) -> int:
    """Larger than that of any revision there was: what was counted for one never counts for another."""
    rollout = deployment.rollout
    return 1 + max(deployment.revision, rollout.target.number if rollout is not None else 0)
