"""Attempts as records: how one is made, asked to stop, and described to its worker. Touches no process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import Connection

from llm_os import programs
from llm_os.drivers.engine import Engine
from llm_os.errors import NotFoundError
from llm_os.kernel.state import State
from llm_os.spec.attempts import AdapterInput, AttemptSpec, Control, Input, ServeCall, TaskCall
from llm_os.spec.base import new_id
from llm_os.spec.conditions import Reason
from llm_os.spec.deployments import Deployment, Revision
from llm_os.spec.jobs import Attempt, AttemptState, Job
from llm_os.spec.placement import Placement
from llm_os.spec.processes import ProcessSpec, StopPolicy
from llm_os.spec.resources import ResourceSpec
from llm_os.store import rows

TASK_ARGV = ("{python}", "-m", "llm_os.workers.task", "{attempt}")
TASK_ENV = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait do not spin: beside other work a spinning thread takes the core that the other one needs."""
PROGRAM = {"TOKENIZERS_PARALLELISM": "true", "TQDM_DISABLE": "1"}
"""What every program of an attempt finds in its environment. Bars of libraries are for terminals, not for a log."""
HANDED_OVER = 60.0
"""Seconds that a replica gets whose place others have taken."""
_HANDED_OVER = frozenset({Reason.REPLACED, Reason.SCALED_DOWN, Reason.ROLLED_BACK})
GATEWAY = "gateway"
GATEWAY_PLACEMENT = Placement(node="local", cpus=0, memory=128 * 2**20)


def new_attempt(
    state: State,
    tx: Connection,
    *,
    kind: str,
    owner: str,
    placement: Placement,
    session: str | None,
    revision: int = 1,
    member: int = 0,
) -> Attempt:
    """Commit a new attempt; its fencing token is larger than that of any attempt of this owner before.

    Args:
        revision: of the deployment, where it is a replica. member: place of its engine there.
    """
    earlier = rows.attempts_of(tx, owner)
    number = 1 + max((attempt.number for attempt in earlier), default=0)
    attempt = Attempt(
        id=new_id("att", state.random),
        owner_kind=kind,
        owner=owner,
        number=number,
        token=number,
        state=AttemptState.PLACED,
        placement=placement,
        revision=revision,
        member=member,
        created_at=state.clock.now(),
    )
    rows.add_attempt(tx, attempt, session)
    return attempt


def ask_to_stop(state: State, tx: Connection, attempt: Attempt, reason: Reason) -> bool:
    """Note that an attempt shall end; the loop does the rest. False: it is ending or dead already."""
    if attempt.state in {AttemptState.STOPPING, AttemptState.ENDED}:
        return False
    stopping = attempt.model_copy(update={"state": AttemptState.STOPPING, "reason": reason.value})
    done = rows.update_attempt(tx, stopping, was=attempt.state)
    if done and attempt.started_at is not None:
        state.files.write_control(attempt.id, Control(stop=True, reason=reason.value, grace=grace_of(stopping)))
    return done


def grace_of(attempt: Attempt) -> float:
    """Seconds that an attempt gets to end what it has begun: longer where others do its work already."""
    return HANDED_OVER if attempt.reason in _HANDED_OVER else StopPolicy().grace


def task_spec(state: State, attempt: Attempt, job: Job, resources: ResourceSpec) -> AttemptSpec:
    """What the task worker finds in its folder. Raises NotFoundError if an input is gone."""
    process = ProcessSpec(argv=TASK_ARGV, env=TASK_ENV, resources=resources)
    call = TaskCall(
        task=job.spec.task,
        options=job.spec.options,
        inputs={role: _input(state, digest) for role, digest in job.spec.inputs.items()},
        output=str(state.files.output(attempt.id)),
        checkpoints=str(state.files.checkpoints(job.id)),
    )
    preload = state.plugins.task(job.spec.task).preload
    return _spec(state, attempt, process, {}).model_copy(update={"task": call, "preload": preload})


def serve_spec(
    state: State,
    attempt: Attempt,
    deployment: Deployment,
    revision: Revision,
    manifest: str,
    engine: Engine,
    reference: str | None = None,
) -> AttemptSpec:
    """What the engine worker finds in its folder. `reference`: digest of what it is compared with first."""
    facts = state.artifacts.facts(manifest)
    mine = revision.members[attempt.member]
    options = engine.Options.model_validate(dict(mine.options))
    process = engine.process(options, facts, mine.resources)
    socket = str(state.files.socket(attempt.id))
    call = ServeCall(
        engine=engine.name,
        deployment=deployment.spec.name,
        model=_input(state, manifest),
        version=revision.version,
        task=revision.task,
        options=options.model_dump(mode="json"),
        socket=socket,
        reference=_input(state, reference) if reference is not None else None,
    )
    return _spec(state, attempt, process, {"socket": socket}).model_copy(update={"serve": call})


def with_adapters(spec: AttemptSpec, adapters: tuple[AdapterInput, ...]) -> AttemptSpec:
    """The spec of a replica that holds these from its start."""
    if spec.serve is None or not adapters:
        return spec
    return spec.model_copy(update={"serve": spec.serve.model_copy(update={"adapters": adapters})})


def gateway_spec(state: State, attempt: Attempt, argv: tuple[str, ...], port: int) -> AttemptSpec:
    env = {"LLM_OS_HOME": str(state.settings.home), "LLM_OS_GATEWAY_PORT": str(port)}
    process = ProcessSpec(argv=argv, env=env, resources=ResourceSpec(cpus=0.1, memory=GATEWAY_PLACEMENT.memory))
    return _spec(state, attempt, process, {})


def _input(state: State, digest: str) -> Input:
    path = state.artifacts.path(digest)
    if not path:
        raise NotFoundError(f"The artifact {digest} is gone.")
    return Input(path=str(path), facts=state.artifacts.facts(digest))


def _spec(state: State, attempt: Attempt, process: ProcessSpec, names: Mapping[str, str]) -> AttemptSpec:
    folder: Path = state.files.attempt(attempt.id)
    known = {
        "attempt": str(folder),
        "python": programs.interpreter(process.environment, state.settings),
        "threads": str(attempt.placement.threads),
        "output": str(state.files.output(attempt.id)),
        **names,
    }

    def filled(text: str) -> str:
        for name, value in known.items():
            text = text.replace("{" + name + "}", value)
        return text

    return AttemptSpec(
        attempt=attempt.id,
        owner=attempt.owner,
        token=attempt.token,
        argv=tuple(filled(part) for part in process.argv),
        env={**PROGRAM, **{name: filled(value) for name, value in process.env.items()}},
        threads=attempt.placement.threads,
        devices=attempt.placement.devices,
        cwd=str(folder),
        stop=process.stop,
    )
