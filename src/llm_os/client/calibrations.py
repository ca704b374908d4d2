"""Has engines measured before a version is served, where nobody said which one. Must not know how they are measured."""

from __future__ import annotations

import contextlib
import sys

from llm_os.client.connection import Connection
from llm_os.client.jobs import run
from llm_os.client.references import is_compared, make_reference
from llm_os.client.transport import place
from llm_os.errors import BrokenWeightsError, CapacityError, JobCancelledError, LLMOSError
from llm_os.spec import api
from llm_os.spec.calibration import Calibration
from llm_os.spec.deployments import Deployment, DeploymentSpec
from llm_os.spec.jobs import JobSpec
from llm_os.spec.models import ModelVersion

TASK = "serving/calibration"


def is_chosen(spec: DeploymentSpec) -> bool:
    """Whether nobody said which engine shall serve it, so that the best one is looked for."""
    return spec.engine is None and not spec.options and not spec.members


def measured(connection: Connection, version: ModelVersion, precision: str | None = None) -> api.Measured:
    """Which engines could serve a version under this session's grant, and what is known of them."""
    params: dict[str, str | int | float] = {"session": connection.session}
    if precision is not None:
        params["precision"] = precision
    path = f"{place('models', version.ref, 'model')}/calibration"
    return connection.transport.call("GET", path, api.Measured, params=params)


def calibrate(
    connection: Connection,
    version: ModelVersion,
    precision: str | None = None,
    *,
    again: bool = False,
    reference: bool = True,
) -> Calibration | None:
    """Measure the engines that could serve a version, unless that was done.

    Args:
        again: measure although it was done.
        reference: have the reference made first, if it can be made here; else they are compared with one that is there.

    Returns:
        None: there are not two to choose from.

    Raises:
        LLMOSError: what the job ended with, such as JobCancelledError.
    """
    known = measured(connection, version, precision)
    if len(known.candidates) < 2:
        return None
    if known.calibration is not None and not again:
        return known.calibration
    if reference and any(candidate.compared for candidate in known.candidates):
        make_reference(connection, version)
    spec = JobSpec(task=TASK, options={"precision": precision}, inputs={"model": version.manifest})
    title = f"Measuring {len(known.candidates)} ways to serve {version.ref}"
    run(connection, spec, title, again=again)
    return measured(connection, version, precision).calibration


def ensure_calibration(
    connection: Connection, version: ModelVersion, spec: DeploymentSpec, *, reference: bool = True
) -> None:
    """`calibrate` before a deployment for which nobody named an engine; what goes wrong is said, and it is served.

    Raises:
        JobCancelledError: somebody cancelled it. BrokenWeightsError: nothing could serve that.
    """
    if not is_chosen(spec):
        return
    try:
        calibrate(connection, version, spec.precision, reference=reference)
    except (JobCancelledError, BrokenWeightsError):
        raise
    except LLMOSError as error:
        print(f"The engine of {version.ref} is chosen without measuring: {error}", file=sys.stderr)


def calibrate_for_update(connection: Connection, record: Deployment, request: api.UpdateDeployment) -> None:
    """`ensure_calibration` of what a deployment is updated to, where nobody named its engine, then or now.

    Raises what the update would be refused with, before that work.
    """
    named = request.engine is not None or request.options is not None or request.members is not None
    if named or request.model is None or not record.because or not connection.calibrate:
        return
    path = place("models", request.model or record.version, "model")
    version = connection.transport.call("GET", path, ModelVersion)
    spec = DeploymentSpec(name=record.spec.name, model=version.ref, precision=record.spec.precision)
    body = request.model_copy(update={"only_check": True})
    with contextlib.suppress(CapacityError):  # measuring may find what needs less
        connection.transport.call(
            "POST", f"{place('deployments', record.spec.name, 'deployment')}/update", Deployment, body=body
        )
    ensure_calibration(connection, version, spec, reference=record.spec.check and not is_compared(version, None))
