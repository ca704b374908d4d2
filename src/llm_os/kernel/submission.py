"""Checks a job before it is accepted: options by name, inputs to digests, size against the grant. Writes nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection

from llm_os._version import __version__
from llm_os.errors import CapacityError, InvalidInputError, InvalidOptionError, NotFoundError, did_you_mean
from llm_os.kernel.ports import TaskPlugin
from llm_os.kernel.state import State
from llm_os.memory.ledger import Ledger
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json, descriptions
from llm_os.spec.conditions import Condition, Reason
from llm_os.spec.jobs import JobSpec
from llm_os.spec.models import ModelVersion
from llm_os.spec.resources import ResourceSpec
from llm_os.store import rows


@dataclass(frozen=True, slots=True)
class Checked:
    spec: JobSpec
    """With validated options and digests for refs."""
    resources: ResourceSpec
    cache_key: str | None
    chosen: Condition | None
    """What was chosen for what was asked at large, and why."""
    parent: str | None
    """`card@number` of the model input, for the lineage."""


def check_session(tx: Connection, session: str | None) -> None:
    """Raises NotFoundError for a session that is not open: nobody would end what belongs to it."""
    found = rows.get_session(tx, session) if session is not None else None
    if session is not None and (found is None or found.closed):
        raise NotFoundError(f"Session {session} is not open.", hint="It was closed or it expired; open a new one.")


def check(state: State, tx: Connection, spec: JobSpec, ledger: Ledger, session: str | None) -> Checked:
    """Raises NotFoundError, InvalidOptionError, InvalidInputError, CapacityError, or what the task itself raises."""
    task = state.plugins.task(spec.task)
    granted = ledger.granted(session)
    options = validated(task.Options, dict(spec.options), spec.task)
    inputs, parent = _inputs(state, tx, spec, task)
    chosen = None
    choice = task.choose(options, inputs, granted)
    if choice is not None:
        spec = spec.model_copy(update={"task": choice.task, "options": choice.options})
        task = state.plugins.task(spec.task)
        options = validated(task.Options, dict(spec.options), spec.task)
        chosen = Condition(kind="chosen", status=True, reason=Reason.CHOSEN, message=choice.because)
    if task.output == "model" and spec.name is None:
        raise InvalidInputError(f"{spec.task} makes a model and needs a name for it.", hint="Give `name`.")
    resources = spec.resources or task.resources(options, inputs, granted)
    never = ledger.never_fits(resources, session)
    if never is not None:
        short_of_memory = never.details.get("resource") == "memory"
        instead = task.alternatives(options, inputs, granted, granted.memory) if short_of_memory else ""
        raise CapacityError(
            f"{spec.task} {never.message}{'; ' + instead if instead else ''}.",
            hint="Ask for less, or grant more (set_resources, LLM_OS_MEMORY, LLM_OS_CPUS).",
            details=dict(never.details),
        )
    plain = options.model_dump(mode="json")
    digests = {role: facts.digest for role, facts in inputs.items()}
    key = cache_key(spec.task, plain, digests) if task.cacheable else None
    return Checked(spec.model_copy(update={"options": plain, "inputs": digests}), resources, key, chosen, parent)


def validated(model: type[BaseModel], options: Mapping[str, Any], where: str) -> Any:
    """The options as their model, or InvalidOptionError naming the first that is wrong."""
    unknown = sorted(set(options) - set(model.model_fields))
    if unknown:
        raise InvalidOptionError(
            f"{where} has no option '{unknown[0]}'.",
            hint=did_you_mean(unknown[0], model.model_fields),
            details={"option": unknown[0], "known": sorted(model.model_fields)},
        )
    try:
        return model.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][:1]) or "options"
        hint = descriptions(model).get(name, "")
        if first["type"] == "literal_error" and isinstance(first.get("input"), str):
            hint = did_you_mean(first["input"], re.findall(r"'([^']*)'", first["ctx"]["expected"]))
        raise InvalidOptionError(
            f"{where}: option '{name}' cannot be {first.get('input')!r}: {first['msg']}.",
            hint=hint,
            details={"option": name},
        ) from error


def cache_key(task: str, options: Mapping[str, Json], inputs: Mapping[str, str]) -> str:
    """Equal for jobs that must give equal output: same task, options, inputs and code."""
    whole = json.dumps([task, options, inputs, __version__], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(whole.encode()).hexdigest()


def _inputs(
    state: State, tx: Connection, spec: JobSpec, task: TaskPlugin
) -> tuple[dict[str, ArtifactFacts], str | None]:
    known = (*task.inputs, *task.optional_inputs)
    for role in spec.inputs:
        if role not in known:
            raise InvalidInputError(f"{spec.task} takes no input '{role}'.", hint=did_you_mean(role, known))
    missing = [role for role in task.inputs if role not in spec.inputs]
    if missing:
        raise InvalidInputError(f"{spec.task} needs an input '{missing[0]}'.", hint="Give a name or a digest.")
    facts, parent = {}, None
    for role, ref in spec.inputs.items():
        digest, version = resolve(tx, ref)
        facts[role] = state.artifacts.facts(digest)
        if role == "model":
            parent = version.ref if version else None
    return facts, parent


def resolve(tx: Connection, ref: str) -> tuple[str, ModelVersion | None]:
    """Digest and version of `card`, `card@number` or a digest. Raises NotFoundError with "did you mean"."""
    if ref.startswith("sha256:"):
        return ref, next((v for v in rows.list_models(tx) if v.manifest == ref), None)
    version = find_model(tx, ref)
    return version.manifest, version


def is_alias(ref: str) -> bool:
    """Whether it names a version by an alias: `card@production`."""
    _, at, name = ref.partition("@")
    return bool(at and name) and not name.isdigit()


def find_model(tx: Connection, ref: str) -> ModelVersion:
    """`card` is its newest version, `card@alias` what the alias means now. Raises NotFoundError with "did you mean"."""
    versions = rows.list_models(tx)
    if ref.startswith("sha256:"):
        found = [version for version in versions if version.manifest == ref]
    else:
        card, _, number = ref.partition("@")
        if is_alias(ref):
            number = str(rows.get_alias(tx, card, number))
        found = [v for v in versions if v.card == card and (not number or str(v.number) == number)]
    if not found:
        names = {version.card for version in versions} | {version.ref for version in versions}
        names |= {f"{card}@{name}" for card, name, _ in rows.list_aliases(tx)}
        raise NotFoundError(f"There is no model '{ref}'.", hint=did_you_mean(ref, names))
    return found[-1]
