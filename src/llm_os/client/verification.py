"""Holds a live deployment against its reference, or stored bytes against their digests; knows no engine."""

from __future__ import annotations

import time

from llm_os.client.connection import Connection
from llm_os.client.jobs import run
from llm_os.client.references import reference_job
from llm_os.client.transport import Transport, place
from llm_os.errors import NotFoundError, UnavailableError
from llm_os.spec.deployments import Deployment
from llm_os.spec.models import ModelVersion
from llm_os.spec.verification import ModelVerification, Verification

WAIT = 20
"""Seconds of one question; it is asked again until it is done."""
UNHEARD = 30.0
"""Seconds after which a replica that has not heard of it never will."""
LONGEST = 3600.0
"""Seconds that a comparison may take: a thousand questions to an engine that others ask, too."""


def verify_deployment(connection: Connection, name: str) -> Verification:
    """Ask every replica again what PyTorch says, which is asked first where nobody did.

    Raises:
        ConflictError: no replica answers, or they ended meanwhile.
        UnavailableError: a replica of an older release, or one that does not come to an end.
        What the job `evaluation/reference` raises: the version cannot run in PyTorch here.
    """
    transport, path = connection.transport, place("deployments", name, "deployment")
    served = transport.call("GET", path, Deployment)
    try:
        found = transport.call("POST", f"{path}/verify", Verification)
    except NotFoundError:  # nobody made the reference
        version = transport.call("GET", place("models", served.version, "model"), ModelVersion)
        run(connection, reference_job(version), f"Asking {version.ref} in PyTorch, to compare the engine with it")
        found = transport.call("POST", f"{path}/verify", Verification)
    return _followed(transport, path, found)


def _followed(transport: Transport, path: str, found: Verification) -> Verification:
    begun = time.monotonic()
    while not found.done:
        took = time.monotonic() - begun
        deaf = [one.attempt for one in found.replicas if not one.begun]
        if took > LONGEST or (deaf and took > UNHEARD):
            who = f"The replica {deaf[0]} has not heard of it" if deaf else "It takes more than an hour"
            raise UnavailableError(
                f"{found.deployment} could not be compared: {who}.",
                hint="One that an older release started never does: update the deployment, or stop and deploy it.",
            )
        params = {"number": found.number, "wait": 1 if deaf else WAIT}
        found = transport.call("GET", f"{path}/verify", Verification, params=params)
    return found


def verify_model(transport: Transport, ref: str) -> ModelVerification:
    """Read the stored bytes of a version again. Raises NotFoundError, IntegrityError for a damaged manifest."""
    path = f"{place('models', ref, 'model')}/verify"
    while True:
        found = transport.call("POST", path, ModelVerification, params={"wait": WAIT})
        if found.done:
            return found
