"""Which engines could serve a version here, what they were measured to do, and which is taken. Starts and times none.

The candidates come from the registry alone; the task `serving/calibration` starts and times them. What it found is
looked up by the key of that job, which changes with the model, its reference, the machine and the engines' versions.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from llm_os import programs
from llm_os.drivers.device import Unavailable
from llm_os.drivers.engine import Engine
from llm_os.errors import InvalidInputError, InvalidOptionError, LLMOSError, UnsupportedModelError
from llm_os.kernel.attempts import PROGRAM
from llm_os.kernel.references import reference_of
from llm_os.kernel.state import State
from llm_os.kernel.submission import cache_key, find_model, resolve, validated
from llm_os.memory.ledger import held_memory
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json
from llm_os.spec.calibration import Calibration, Candidate, Member, Trial
from llm_os.spec.deployments import Deployment, DeploymentSpec, Revision, RevisionMember
from llm_os.spec.jobs import JobSpec
from llm_os.spec.models import ModelVersion
from llm_os.spec.parity import Parity
from llm_os.spec.resources import Capacity
from llm_os.store import rows

log = logging.getLogger(__name__)

TASK = "serving/calibration"
ROOM = 2**30
"""Memory is counted in whole GiB: some KiB more or less after an update of the system are the same machine."""
NOTHING = "nothing was measured on this machine"
HINT = "Leave the precision out, or take another engine: llm-os doctor shows which are here."


def candidates_for(
    state: State, tx: Connection, digest: str, session: str | None, precision: str | None = None, engine: str = ""
) -> tuple[Candidate, ...]:
    """What could serve the model of this digest here and fits into what the session is granted, best known first.

    Args:
        precision: only what serves in it. engine: only of this one; empty: of all that may be taken unasked.
    """
    facts, ledger = state.artifacts.facts(digest), state.ledger(tx)
    granted, found = ledger.granted(session), []
    for one in _able(state, facts, engine):
        for options in one.candidates(facts, granted, precision):
            candidate = _candidate(state, one, options.model_dump(mode="json"), facts, granted)
            if ledger.never_fits(candidate.resources, session) is None:
                found.append(candidate)
    return tuple(found)


def _able(state: State, facts: ArtifactFacts, named: str = "") -> list[Engine]:
    """Engines that are here and open such a model, the preferred one first."""
    found = [
        engine
        for engine in state.plugins.engines()
        if (engine.name == named if named else engine.preference >= 0)
        and facts.meta.get("format") in engine.formats
        and facts.meta.get("task") in engine.tasks
        and engine.refuses(facts) is None
        and not isinstance(engine.probe(), Unavailable)
    ]
    return sorted(found, key=lambda engine: (engine.preference, engine.name), reverse=True)


def _candidate(
    state: State, engine: Engine, options: dict[str, Json], facts: ArtifactFacts, granted: Capacity
) -> Candidate:
    probe, model = engine.probe(), engine.Options.model_validate(options)
    resources = engine.footprint(model, facts, granted)
    process = engine.process(model, facts, resources)
    python = programs.interpreter(process.environment, state.settings)
    return Candidate(
        member=Member(engine=engine.name, options=options),
        engine_version="" if isinstance(probe, Unavailable) else probe.version,
        argv=tuple(part.replace("{python}", python) for part in process.argv),
        env={**PROGRAM, **process.env},
        resources=resources,
        compared=engine.compared,
    )


def completed(state: State, tx: Connection, spec: JobSpec, session: str | None) -> JobSpec:
    """A job that measures engines, with what only the kernel knows; any other job as it is.

    Raises:
        InvalidOptionError: somebody else named the programs to start.
        InvalidInputError: there are not two candidates.
        NotFoundError: no such model.
    """
    if spec.task != TASK or "model" not in spec.inputs:
        return spec
    if foreign := sorted(set(spec.options) - {"precision"}):
        raise InvalidOptionError(f"{TASK}: '{foreign[0]}' is not yours to give.", hint="Only `precision` is.")
    digest, _ = resolve(tx, spec.inputs["model"])
    precision = spec.options.get("precision")
    whole, found = _job(state, tx, digest, session, None if precision is None else str(precision))
    if len(found) < 2:
        raise InvalidInputError(_too_few(state, digest, found, precision), hint=HINT if precision else "Deploy it.")
    return spec.model_copy(update={"options": whole.options, "inputs": {**spec.inputs, **whole.inputs}})


def _job(
    state: State, tx: Connection, digest: str, session: str | None, precision: str | None
) -> tuple[JobSpec, tuple[Candidate, ...]]:
    """The job that measures the engines for a model, and its candidates."""
    found = candidates_for(state, tx, digest, session, precision)
    granted, reference = state.ledger(tx).granted(session), reference_of(state, tx, digest)
    memory = granted.memory // ROOM * ROOM
    engines = {engine.name: engine for engine in state.plugins.engines()}
    versions = sorted({f"{one.member.engine} {identity_of(engines[one.member.engine], one.member)}" for one in found})
    kind = json.dumps([state.machine.kind(), granted.cpus, memory, versions])
    options: dict[str, Json] = {
        "candidates": [one.model_dump(mode="json") for one in found],
        "fingerprint": hashlib.sha256(kind.encode()).hexdigest(),
        "threads": max(1, int(granted.cpus)),
        "room": memory,
        "precision": precision,
    }
    inputs = {"model": digest, **({"reference": reference} if reference is not None else {})}
    return JobSpec(task=TASK, options=options, inputs=inputs), found


def identity_of(engine: Engine, served: Member | RevisionMember) -> str:
    """Of the program that serves with these options: what was found of another build, or environment, is another's."""
    try:
        return engine.identity(engine.Options.model_validate(dict(served.options)))
    except (LLMOSError, ValidationError):  # its environment is gone, or it has other options by now: its start says so
        probe = engine.probe()
        return "" if isinstance(probe, Unavailable) else probe.version


def calibration_for(
    state: State,
    tx: Connection,
    version: ModelVersion,
    session: str | None = None,
    precision: str | None = None,
    *,
    uncompared: bool = False,
) -> Calibration | None:
    """What engines were measured to do with a version under this session's grant; None: it was never measured here.

    Takes some milliseconds: engines are probed for their versions.

    Args:
        uncompared: also what was measured before there was a reference to compare them with: their speeds hold.
    """
    job, found = _job(state, tx, version.manifest, session, precision)
    if len(found) < 2:
        return None
    task: Any = state.plugins.task(TASK)
    options = validated(task.Options, dict(job.options), TASK).model_dump(mode="json")
    result = rows.get_result(tx, cache_key(TASK, options, job.inputs))
    if result is None and uncompared:
        result = rows.get_result(tx, cache_key(TASK, options, {"model": job.inputs["model"]}))
    if result is None or "calibration" not in result:
        return None
    return Calibration.model_validate(result["calibration"]).model_copy(update={"version": version.ref})


def trial_of(
    state: State,
    tx: Connection,
    ref: str,
    mine: Member | RevisionMember,
    session: str | None,
    wish: str | None,
    *,
    uncompared: bool,
) -> Trial | None:
    """What an engine did with a version while it was measured; None: nobody knows.

    Looked for where it was chosen: among what serves in the precision that was asked for (`wish`), and among all. It is
    asked for in every turn, by what serves: whatever goes wrong in a plugin, or with what is stored, is told and ends
    none.
    """
    try:
        version = find_model(tx, ref)
        for precision in dict.fromkeys((wish, None)):
            found = calibration_for(state, tx, version, session, precision, uncompared=uncompared)
            trial = found.trial(mine.engine, mine.options) if found is not None else None
            if trial is not None:
                return trial
    except SQLAlchemyError:
        raise
    except Exception as error:
        log.warning("It cannot be told what %s does with %s: %s", mine.engine, ref, error, exc_info=error)
    return None


def judged(
    state: State, tx: Connection, served: Revision, mine: RevisionMember, deployment: Deployment
) -> Parity | None:
    """How far an engine agreed with the reference of what it serves while it was measured."""
    precision = deployment.spec.precision
    trial = trial_of(state, tx, served.version, mine, deployment.session, precision, uncompared=False)
    return None if trial is None or trial.error is not None else trial.parity


def taken(
    state: State,
    tx: Connection,
    spec: DeploymentSpec,
    version: ModelVersion,
    session: str | None,
    *,
    alone: bool = False,
) -> tuple[DeploymentSpec, str]:
    """The spec with what is taken where nobody said, by what was measured; and why, in a sentence.

    An engine that was named stays, and so do options. Where nothing was measured the spec stays as it is: the preferred
    engine is taken then. Two engines side by side become `members`; `engine` is then the one for many requests. Where
    the deployment carries adapters, only what has room for them is taken, if there is any.

    Args:
        alone: one engine and no more, the one for few requests: an on-demand replica.

    Raises:
        UnsupportedModelError: nothing here serves it in the precision that was asked for.
    """
    if spec.precision is None and (spec.members or spec.engine is not None or spec.options):
        return spec, ""
    if spec.members:
        members = tuple(_in_precision(state, tx, spec, version, session, one) for one in spec.members)
        return spec.model_copy(update={"members": members, "precision": None}), ""
    if spec.engine is not None or spec.options:
        asked = Member(engine=spec.engine or "", options=spec.options)
        member = _in_precision(state, tx, spec, version, session, asked)
        # The options say it now; the wish would bind whatever engine comes later.
        return spec.model_copy(update={"engine": member.engine, "options": member.options, "precision": None}), ""
    calibration = calibration_for(state, tx, version, session, spec.precision)
    members, why = ((), "") if calibration is None else _with_room(state, spec, version, calibration)
    if not members:
        return _unmeasured(state, tx, spec, version, session)
    if len(members) > 1 and not alone and (single := _why_not_both(state, tx, members, spec, version, session)):
        members = members[-1:]
        why = f"{members[0].engine} alone, {single}; {why}"
    if alone:
        members = members[:1]
    one = members[-1]
    both = members if len(members) > 1 else ()
    return spec.model_copy(update={"engine": one.engine, "options": one.options, "members": both}), why


def _in_precision(
    state: State, tx: Connection, spec: DeploymentSpec, version: ModelVersion, session: str | None, asked: Member
) -> Member:
    """An engine that was named, or any of them, with options that make it serve in the precision that was asked for."""
    found = candidates_for(state, tx, version.manifest, session, spec.precision, asked.engine)
    if not found:
        raise UnsupportedModelError(_too_few(state, version.manifest, found, spec.precision), hint=HINT)
    member = _roomy(state, spec, version, [one.member for one in found])[0]
    return member.model_copy(update={"options": {**member.options, **asked.options}})


def _roomy(state: State, spec: DeploymentSpec, version: ModelVersion, members: Sequence[Member]) -> Sequence[Member]:
    """Those with room for the adapters that are carried; with less room, or all, where none has: that is refused."""
    if not spec.adapters:
        return members
    engines = {engine.name: engine for engine in state.plugins.engines()}

    def room(member: Member) -> int:
        engine = engines[member.engine]
        found = engine.adapter_room(engine.Options.model_validate(dict(member.options)), version.task)
        return 0 if found is None else found.count

    enough = [member for member in members if room(member) >= len(spec.adapters)]
    return enough or [member for member in members if room(member)] or members


def _with_room(
    state: State, spec: DeploymentSpec, version: ModelVersion, found: Calibration
) -> tuple[tuple[Member, ...], str]:
    """What was chosen by its figures and why; where that has no room for the adapters, the quickest that has."""
    able = {one.member.model_dump_json(): one for one in found.trials if one.error is None and one.speeds}
    roomy = _roomy(state, spec, version, [one.member for one in able.values()])
    if all(member in roomy for member in found.members):
        return found.members, found.why
    # The product of its speeds: the order of the geometric means of their shares of the best ones.
    best = max(roomy, key=lambda one: math.prod(speed.per_second for speed in able[one.model_dump_json()].speeds))
    return (best,), f"{best.engine} is the quickest that has room for adapters; without them: {found.why}"


def _why_not_both(
    state: State,
    tx: Connection,
    members: tuple[Member, ...],
    spec: DeploymentSpec,
    version: ModelVersion,
    session: str | None,
) -> str:
    """Why engines cannot stand side by side though they are the best so, for people; empty: they can.

    They need room beside what runs now, but for the replicas that they shall replace.
    """
    if spec.scaling is not None:
        return "because it scales"
    engines = {engine.name: engine for engine in state.plugins.engines()}
    facts, ledger = state.artifacts.facts(version.manifest), state.ledger(tx)
    granted, needed, row = ledger.granted(session), 0, rows.find_deployment(tx, spec.name)
    for member in members:
        engine = engines[member.engine]
        needed += engine.footprint(engine.Options.model_validate(dict(member.options)), facts, granted).memory
    own = row.deployment.id if row is not None else None
    replaced = sum(held_memory(held) for held in ledger.holdings() if held.owner == own)
    fits = spec.replicas * needed <= ledger.free(session).memory + replaced
    return "" if fits else "because there is no room for both beside what runs now"


def _unmeasured(
    state: State, tx: Connection, spec: DeploymentSpec, version: ModelVersion, session: str | None
) -> tuple[DeploymentSpec, str]:
    """The first candidate of a precision that was asked for; else the spec as it is, and why the preferred one."""
    if spec.precision is not None:
        member = _in_precision(state, tx, spec, version, session, Member(engine=""))
        told = f"{member.engine} serves it in {spec.precision}; {NOTHING}"
        return spec.model_copy(update={"engine": member.engine, "options": member.options}), told
    able, what = _able(state, state.artifacts.facts(version.manifest)), ""
    if spec.adapters and (roomy := [one for one in able if one.adapter_room(one.Options(), version.task) is not None]):
        able, what = roomy, " and holds adapters beside it"
    if not able:
        return spec, ""
    if len(able) == 1:
        return spec, f"{able[0].name} is the only engine here that serves {version.task} from {version.format}{what}"
    others = ", ".join(one.name for one in able[1:])
    return spec, f"{able[0].name}{what and ' holds adapters and'} is preferred to {others}; {NOTHING}"


def _too_few(state: State, digest: str, found: tuple[Candidate, ...], precision: Json) -> str:
    facts = state.artifacts.facts(digest)
    what = f"{facts.meta.get('task')} from {facts.meta.get('format')}" + (f" in {precision}" if precision else "")
    if not found:
        return f"No engine here serves {what}."
    return f"Nothing is to be measured: {found[0].member.engine} is the only one here that serves {what}."
