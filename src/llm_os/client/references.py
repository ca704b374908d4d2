"""Makes what an engine is compared with before it serves, where there is none yet. Must not know how it is compared."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llm_os.client.connection import Connection
from llm_os.client.jobs import run
from llm_os.client.transport import place
from llm_os.errors import BrokenWeightsError, JobCancelledError, LLMOSError
from llm_os.spec.api import UpdateDeployment
from llm_os.spec.deployments import Deployment
from llm_os.spec.jobs import JobSpec
from llm_os.spec.models import WEIGHTS_OF, ModelVersion

TASKS = ("text-generation", "text-classification", "multi-label-classification")
"""What engines are compared on."""
NOT_COMPARED = ("torch", "fake")
"""Engines that are the reference themselves, or have no model."""
PATIENCE = 120.0
"""Seconds that making the reference may wait for room: then the version is served without a comparison, and told so."""


def is_compared(version: ModelVersion, engine: str | None) -> bool:
    """Whether another engine than the reference will serve it. Of itself the kernel takes one for GGUF only."""
    if version.format == "remote":  # its weights are not here
        return False
    other = version.format == "gguf" if engine is None else engine not in NOT_COMPARED
    return other and version.task in TASKS


def ensure_reference(connection: Connection, version: ModelVersion, engine: str | None) -> None:
    """Have the reference of a version made, unless it is there; says so on stderr where it cannot be made here.

    Raises:
        JobCancelledError: somebody cancelled it. BrokenWeightsError: nothing could serve that.
    """
    if is_compared(version, engine):
        make_reference(connection, version)


def reference_job(version: ModelVersion) -> JobSpec:
    """The job that asks PyTorch; of the weights that were rounded, where the version's were."""
    return JobSpec(task="evaluation/reference", inputs={"model": str(version.meta.get(WEIGHTS_OF, version.manifest))})


def make_reference(connection: Connection, version: ModelVersion) -> None:
    """Have it made where engines of this task are compared. Says, and raises, what `ensure_reference` does."""
    if version.task not in TASKS or version.format == "remote":
        return
    spec = reference_job(version)
    try:
        run(
            connection,
            spec,
            f"Asking {version.ref} in PyTorch, to compare the engine with it",
            patience=PATIENCE,
        )
    except (JobCancelledError, BrokenWeightsError):
        raise
    except LLMOSError as error:  # what the reference cannot do, an engine may
        print(f"{version.ref} is served without a comparison with PyTorch: {error}", file=sys.stderr)


def compared(version: ModelVersion, engines: Sequence[str | None]) -> str | None:
    """The first of these engines that is compared; the first of all, where none is."""
    return next((engine for engine in engines if is_compared(version, engine)), engines[0])


def ensure_for_update(connection: Connection, record: Deployment, asked: UpdateDeployment) -> None:
    """`ensure_reference` of what a deployment is updated to: another model for its engines, or engines.

    Raises what the update would be refused with, before that work. Anything that `ensure_reference` raises.
    """
    if not record.spec.check:
        return
    wanted = place("models", asked.model or record.version, "model")
    version = connection.transport.call("GET", wanted, ModelVersion)
    now = record.engines if asked.model is None else (*record.engines, None)  # None: where they do not open it
    named = tuple(member.engine for member in asked.members or ()) or ((asked.engine,) if asked.engine else now)
    engine = compared(version, named)
    if not is_compared(version, engine):
        return
    path = place("deployments", record.spec.name, "deployment")
    body = asked.model_copy(update={"only_check": True})
    connection.transport.call("POST", f"{path}/update", Deployment, body=body)
    ensure_reference(connection, version, engine)


def ensure_for_move(connection: Connection, version: ModelVersion, followers: Sequence[str]) -> None:
    """`ensure_reference` of a version that an alias shall mean, where one of these deployments will be compared.

    Raises what `ensure_reference` raises.
    """
    for name in followers:
        record = connection.transport.call("GET", place("deployments", name, "deployment"), Deployment)
        if not record.spec.check or version.ref in {record.version, record.refused}:  # it will not move there
            continue
        engine = compared(version, (*record.engines, None))
        if is_compared(version, engine) and _takes(connection, record, version):
            ensure_reference(connection, version, engine)
            return


def _takes(connection: Connection, record: Deployment, version: ModelVersion) -> bool:
    """Whether the deployment can be updated to it. While it is updated to another one, the kernel does not tell."""
    if record.updating:
        return True
    path = place("deployments", record.spec.name, "deployment")
    try:
        body = UpdateDeployment(model=version.ref, only_check=True)
        connection.transport.call("POST", f"{path}/update", Deployment, body=body)
    except LLMOSError:  # the deployment says so itself when the alias has moved
        return False
    return True
