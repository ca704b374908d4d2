"""What a deployment serves: version, engine, options and size, chosen and checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from sqlalchemy import Connection

from llm_os.drivers.device import Unavailable
from llm_os.drivers.engine import Engine
from llm_os.errors import CapacityError, NotFoundError, UnavailableError, UnsupportedModelError, did_you_mean
from llm_os.kernel.state import State
from llm_os.kernel.submission import validated
from llm_os.spec.base import Spec
from llm_os.spec.deployments import Deployment, DeploymentSpec, Revision
from llm_os.spec.models import ModelVersion
from llm_os.store import rows

MOST_KEPT = 8
"""Revisions of a deployment that it can go back to."""


def planned(
    state: State, tx: Connection, spec: DeploymentSpec, version: ModelVersion, session: str | None, number: int = 1
) -> Revision:
    """The revision that serves this version as the spec says.

    Raises:
        CapacityError: a replica can never fit.
        Anything that `chosen_engine` raises.
    """
    engine, options = chosen_engine(state, spec, version)
    ledger = state.ledger(tx)
    resources = engine.footprint(options, state.artifacts.facts(version.manifest), ledger.granted(session))
    never = ledger.never_fits(resources, session)
    if never is not None:
        raise CapacityError(
            f"A replica of {version.ref} {never.message}.", hint="Grant more, or serve a smaller model."
        )
    return Revision(
        number=number,
        version=version.ref,
        task=version.task,
        engine=engine.name,
        options=options.model_dump(mode="json"),
        resources=resources,
        generation=dict(said) if isinstance(said := version.meta.get("generation"), Mapping) else {},
    )


def fitted(state: State, spec: DeploymentSpec, version: ModelVersion, *, keep_options: bool = False) -> DeploymentSpec:
    """The spec, without an engine that does not open this version: it is chosen anew. So are options, if not asked."""
    engine = next((one for one in state.plugins.engines() if one.name == spec.engine), None)
    if engine is None or (version.format in engine.formats and version.task in engine.tasks):
        return spec
    return spec.model_copy(update={"engine": None, "options": spec.options if keep_options else {}})


def without_foreign_key(spec: DeploymentSpec, before: ModelVersion, after: ModelVersion) -> DeploymentSpec:
    """The spec, without the file of a key that was for another server: a key goes to the server it was given for."""
    if "key_file" not in spec.options or _origin(before) == _origin(after):
        return spec
    kept = {name: value for name, value in spec.options.items() if name != "key_file"}
    return spec.model_copy(update={"options": kept})


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
        probe = chosen.probe()
        if isinstance(probe, Unavailable):
            raise UnavailableError(f"{chosen.name} cannot be used here: {probe.reason}", hint=probe.hint)
        return chosen, validated(chosen.Options, dict(spec.options), f"engine {chosen.name}")
    fitting = [e for e in engines.values() if version.format in e.formats and task in e.tasks]
    ready = [engine for engine in fitting if not isinstance(engine.probe(), Unavailable)]
    if not ready:
        reasons = [f"{e.name}: {p.reason}" for e in fitting if isinstance(p := e.probe(), Unavailable)]
        raise UnsupportedModelError(
            f"No engine here serves {version.ref} ({task}, {version.format}).",
            hint="; ".join(reasons) or "An encoder without a head must be trained first: model.train(data).",
        )
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


def next_number(deployment: Deployment) -> int:
    """Larger than that of any revision there was: what was counted for one never counts for another."""
    rollout = deployment.rollout
    return 1 + max(deployment.revision, rollout.target.number if rollout is not None else 0)
