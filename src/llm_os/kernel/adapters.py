"""Which adapters a deployment may carry, and which of them a replica shall hold. Looks records up; changes none."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from llm_os.drivers.engine import Engine
from llm_os.errors import (
    CapacityError,
    ConflictError,
    InvalidInputError,
    LLMOSError,
    NotFoundError,
    UnsupportedModelError,
)
from llm_os.kernel.state import State
from llm_os.kernel.submission import find_model
from llm_os.spec.attempts import AdapterInput
from llm_os.spec.base import Spec
from llm_os.spec.deployments import Deployment, DeploymentSpec, Revision, RevisionMember
from llm_os.spec.models import ModelVersion
from llm_os.spec.routing import RouteAdapter
from llm_os.store import rows


def resolved(tx: Connection, spec: DeploymentSpec) -> DeploymentSpec:
    """The spec with `card@number` for what it calls its adapters. Raises NotFoundError."""
    if not spec.adapters:
        return spec
    return spec.model_copy(update={"adapters": {name: find_model(tx, ref).ref for name, ref in spec.adapters.items()}})


def check_all(tx: Connection, spec: DeploymentSpec, base: ModelVersion, engine: Engine, options: Spec) -> None:
    """Raises what `check` and `check_room` raise, for the adapters that a deployment of this base carries."""
    if not spec.adapters:
        return
    check_room(spec.name, len(spec.adapters), base, engine, options)
    for name, ref in spec.adapters.items():
        try:
            check(tx, find_model(tx, ref), base, engine, options)
        except LLMOSError as error:
            hint = f"{error.hint} Or remove it: llm-os adapters remove {spec.name} {name}"
            raise type(error)(f"{spec.name} carries the adapter '{name}': {error.message}", hint=hint) from error


def check_room(name: str, count: int, base: ModelVersion, engine: Engine, options: Spec) -> None:
    """Raises UnsupportedModelError: this engine holds no adapters. CapacityError: not so many."""
    room = engine.adapter_room(options, base.task)
    if room is None:
        raise UnsupportedModelError(
            f"{engine.name} holds no adapters beside a {base.task} model.",
            hint=f"Serve the adapter in its place, merged: llm-os update {name} ADAPTER",
        )
    if count > room.count:
        raise CapacityError(
            f"{name} would carry {count} adapters, and its replicas have room for {room.count}.",
            hint=f"Make room: llm-os update {name} --option {room.options[0]}={count}"
            + (f"; or remove one: llm-os adapters remove {name} ADAPTER" if room.count else ""),
            details={"adapters": count, "room": room.count},
        )


def check(tx: Connection, adapter: ModelVersion, base: ModelVersion, engine: Engine, options: Spec) -> None:
    """Whether this version is an adapter of this base that the engine can hold beside it.

    Raises:
        InvalidInputError: it is no adapter, or one of another base.
        NotFoundError: nobody knows its base.
        UnsupportedModelError: its kind cannot stand beside others. CapacityError: its rank is too large.
    """
    if adapter.format != "adapter":
        raise InvalidInputError(
            f"{adapter.ref} is no adapter: it is a whole model ({adapter.format}).",
            hint="Train one with method='lora', merge=False; a whole model is deployed by itself.",
        )
    digest = adapter.meta.get("base")
    if not isinstance(digest, str):
        raise NotFoundError(
            f"It is not recorded on what {adapter.ref} was trained.",
            hint=f"Merge it: llm-os merge {adapter.card} --base MODEL; then deploy the merged version.",
        )
    if digest != base.manifest:
        known = next((one.ref for one in rows.list_models(tx) if one.manifest == digest), None)
        raise InvalidInputError(
            f"{adapter.ref} was trained on {known or 'a model that is not here'}, and {base.ref} is another one.",
            hint=f"Add it to a deployment of {known or 'its base'}, or serve it merged: llm-os deploy {adapter.ref}",
            details={"adapter": adapter.ref, "base": base.ref},
        )
    facts = adapter.meta.get("adapter")
    about = facts if isinstance(facts, Mapping) else {}
    if (method := about.get("method", "lora")) not in ("lora", "qlora"):
        raise UnsupportedModelError(
            f"{adapter.ref} is of the kind {method}, which cannot stand beside others.",
            hint=f"Serve it merged: llm-os deploy {adapter.ref}",
        )
    room, rank = engine.adapter_room(options, base.task), about.get("rank")
    if room is not None and isinstance(rank, int) and rank > room.rank:
        raise CapacityError(
            f"{adapter.ref} has rank {rank}, and replicas of {engine.name} have room for {room.rank} here.",
            hint=f"Deploy or update with --option {room.options[1]}={rank}, or train it with a smaller rank.",
            details={"rank": rank, "room": room.rank},
        )


def clash(name: str, adapter: str, there: str) -> LLMOSError:
    return ConflictError(
        f"{name} has an adapter '{adapter}' already ({there}).",
        hint=f"Replace it: llm-os adapters add {name} VERSION --as {adapter} --replace; or choose another name: --as.",
    )


def held_by(
    state: State, tx: Connection, deployment: Deployment, served: Revision, mine: RevisionMember
) -> tuple[AdapterInput, ...]:
    """What a replica of this engine shall hold: the deployment's adapters that were made for its revision's model."""
    if not deployment.spec.adapters:
        return ()
    engine = next((one for one in state.plugins.engines() if one.name == mine.engine), None)
    if engine is None or engine.adapter_room(engine.Options.model_validate(dict(mine.options)), served.task) is None:
        return ()
    base, found = find_model(tx, served.version).manifest, []
    for name, ref in sorted(deployment.spec.adapters.items()):
        version = find_model(tx, ref)
        if version.meta.get("base") == base:
            path = state.artifacts.path(version.manifest)
            found.append(AdapterInput(name=name, version=version.ref, path=str(path)))
    return tuple(found)


def told_of(deployment: Deployment) -> tuple[RouteAdapter, ...]:
    """What the gateway knows of a deployment's adapters."""
    failed = {name: why for replica in deployment.replicas for name, why in replica.adapters_failed.items()}
    return tuple(
        RouteAdapter(name=name, version=ref, failed=failed.get(name, ""))
        for name, ref in sorted(deployment.spec.adapters.items())
    )
