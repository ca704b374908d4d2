"""What the gateway tells the kernel: who was asked when, in `run/usage.json`; must not know HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from llm_os.spec.routing import DeploymentUsage, GatewayUsage

log = logging.getLogger("llm_os.gateway")

WRITE_EVERY = 0.5
"""Seconds between two writes at least."""


class Metering:
    """Counts by deployment.

    Args:
        path: the file; what an earlier gateway counted is taken over, but for its requests in flight.
        clock: seconds since the epoch.
        served: names of the deployments that the routing table knows; others are forgotten when idle.
    """

    def __init__(self, path: Path, clock: Callable[[], float], served: Callable[[], set[str]]) -> None:
        self._path = path
        self._clock = clock
        self._served = served
        self._changed = True
        self._failed = False
        self._usage: dict[str, DeploymentUsage] = {
            name: usage.model_copy(update={"in_flight": 0}) for name, usage in self._earlier().items()
        }

    def _earlier(self) -> dict[str, DeploymentUsage]:
        try:
            return dict(GatewayUsage.model_validate_json(self._path.read_bytes()).deployments)
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            log.warning("the usage of the earlier gateway cannot be read, counting begins anew: %s", error)
            return {}

    @contextmanager
    def request(self, deployment: str) -> Iterator[None]:
        """Count one request from its admission to its end."""
        self._count(deployment, in_flight=1, requests=1)
        try:
            yield
        finally:
            self._count(deployment, in_flight=-1, requests=0)

    def _count(self, deployment: str, *, in_flight: int, requests: int) -> None:
        now = self._clock()
        before = self._usage.get(deployment) or DeploymentUsage(last_request_at=now, in_flight=0, requests=0)
        self._usage[deployment] = DeploymentUsage(
            last_request_at=now, in_flight=before.in_flight + in_flight, requests=before.requests + requests
        )
        self._changed = True

    def snapshot(self) -> GatewayUsage:
        """What is written."""
        return GatewayUsage(written_at=self._clock(), deployments=dict(self._usage))

    def flush(self) -> bool:
        """Write the file beside and rename it, if anything changed. True when it was written.

        A full disk must not stop requests: the failure is logged once, the next change tries again.
        """
        if not self._changed:
            return False
        served = self._served()
        for name in [name for name, usage in self._usage.items() if not usage.in_flight and name not in served]:
            del self._usage[name]
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            beside.write_text(self.snapshot().model_dump_json(), encoding="utf-8")
            beside.replace(self._path)
        except OSError as error:
            if not self._failed:
                log.error("the usage cannot be written; idle deployments will not end until it can: %s", error)
            self._failed = True
            return False
        self._changed = self._failed = False
        return True

    async def run(self) -> None:
        """Write changes until cancelled."""
        while True:
            self.flush()
            await asyncio.sleep(WRITE_EVERY)
