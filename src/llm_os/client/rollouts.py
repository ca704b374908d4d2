"""Follows the update of a deployment, phase by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator

from llm_os.client.transport import Transport
from llm_os.client.waiting import Starting
from llm_os.spec.deployments import Deployment as DeploymentRecord
from llm_os.spec.deployments import Phase, Rollout

LOOK_EVERY = 0.2
"""Seconds between two looks at a rollout."""


def rollout_steps(transport: Transport, name: str, starting: Starting | None = None) -> Iterator[DeploymentRecord]:
    """The deployment at each phase of its rollout, the last one when it has ended.

    Args:
        starting: shows how far the start of the new version is.
    """
    try:
        yield from _rollout_steps(transport, name, starting)
    finally:
        if starting is not None:
            starting.close()


def _rollout_steps(transport: Transport, name: str, starting: Starting | None) -> Iterator[DeploymentRecord]:
    seen: tuple[int, Phase] | None = None
    while True:
        record = transport.call("GET", f"/v1/deployments/{name}", DeploymentRecord)
        rollout = record.rollout
        if rollout is None:
            return
        if starting is not None:
            starting.look(record)
        if seen != (now := (rollout.target.number, rollout.phase)):
            seen = now
            if starting is not None:
                starting.close()
            yield record
        elif not record.updating:
            yield record  # the deployment was ended in the middle of a phase
        if not record.updating:
            return
        time.sleep(LOOK_EVERY)


def rollout_of(record: DeploymentRecord) -> Rollout:
    """The rollout of a deployment that is being, or was, updated."""
    assert record.rollout is not None  # noqa: S101 - the kernel has just begun one
    return record.rollout
