"""What the gateway tells the kernel: who was asked when, and what was served, in `run/usage.json`; knows no HTTP."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pydantic import ValidationError

from llm_os.server.gateway.spool import Account, Spool
from llm_os.spec.routing import DeploymentUsage, GatewayUsage, RoutingTable

log = logging.getLogger("llm_os.gateway")


class _Count:
    """One deployment, changed in place: this is done twice for each request."""

    __slots__ = ("in_flight", "last_request_at", "requests")

    def __init__(self, last_request_at: float, requests: int) -> None:
        self.last_request_at = last_request_at
        self.in_flight = 0
        self.requests = requests


class Metering:
    """Counts by deployment, and sums by account.

    Args:
        path: the file; what an earlier gateway counted is taken over, but for its requests in flight.
        clock: seconds since the epoch.
        known: the routing table in force; deployments that it does not have are forgotten when idle.
    """

    def __init__(self, path: Path, clock: Callable[[], float], known: Callable[[], RoutingTable]) -> None:
        self._path = path
        self._clock = clock
        self._known = known
        self._changed = True
        self._failed = False
        earlier = self._earlier()
        counted = earlier.deployments if earlier is not None else {}
        self._usage = {name: _Count(usage.last_request_at, usage.requests) for name, usage in counted.items()}
        self._spool = Spool(path, earlier)

    def _earlier(self) -> GatewayUsage | None:
        try:
            return GatewayUsage.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("the usage of the earlier gateway cannot be read, counting begins anew: %s", error)
            return None

    def request(self, deployment: str) -> AbstractContextManager[None]:
        """Count one request from its admission to its end."""
        return self._under_way(deployment, 1)

    def waiting(self, deployment: str) -> AbstractContextManager[None]:
        """A request that waits for the deployment to be ready: it is wanted."""
        return self._under_way(deployment, 0)

    @contextmanager
    def _under_way(self, deployment: str, requests: int) -> Iterator[None]:
        count = self._usage.get(deployment)
        if count is None:
            count = self._usage[deployment] = _Count(0.0, 0)
        count.last_request_at = self._clock()
        count.in_flight += 1
        count.requests += requests
        self._changed = True
        try:
            yield
        finally:
            count.last_request_at = self._clock()
            count.in_flight -= 1
            self._changed = True

    def served(self, account: Account, prompt: int, completion: int) -> None:
        """Add what a request was served; a kill after this does not lose it."""
        self._spool.add(account, prompt, completion)
        self._changed = True

    def snapshot(self, *, spool: int) -> GatewayUsage:
        """What is written: the sums are those without the lines of this spool."""
        deployments = {
            name: DeploymentUsage(last_request_at=c.last_request_at, in_flight=c.in_flight, requests=c.requests)
            for name, c in self._usage.items()
        }
        return GatewayUsage(written_at=self._clock(), deployments=deployments, served=self._spool.sums(), spool=spool)

    def flush(self) -> bool:
        """Write the file beside and rename it, if anything changed. True when it was written.

        A full disk must not stop requests: the failure is logged once, the next change tries again.
        """
        if not self._changed:
            return False
        table = self._known()
        served = {route.deployment for route in table.routes}
        if table.version:  # else there is no table yet, and nothing is known to be gone
            for name in [name for name, usage in self._usage.items() if not usage.in_flight and name not in served]:
                del self._usage[name]
            self._spool.retire({key.id for key in table.keys}, served)
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            # The sums of this moment hold all lines of the spool: the next one begins with this file.
            beside.write_text(self.snapshot(spool=self._spool.number + 1).model_dump_json(), encoding="utf-8")
            beside.replace(self._path)
        except OSError as error:
            if not self._failed:
                log.error("the usage cannot be written; idle deployments will not end until it can: %s", error)
            self._failed = True
            return False
        self._spool.folded()
        self._changed = self._failed = False
        return True
