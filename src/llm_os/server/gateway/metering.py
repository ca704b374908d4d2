"""What the gateway tells the kernel: who was asked when, and what was served, in `run/usage.json`; knows no HTTP."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pydantic import ValidationError

from llm_os.server.gateway.spool import Account, Spool
from llm_os.spec.routing import DeploymentUsage, GatewayUsage, RevisionUsage, RoutingTable

log = logging.getLogger("llm_os.gateway")


class _Fared:
    """How requests fared at one revision, changed in place."""

    __slots__ = ("asked", "failed", "first_byte_seconds", "first_bytes", "requests")

    def __init__(self, known: RevisionUsage) -> None:
        self.asked = known.requests  # what was under way when this was written has ended
        self.requests, self.failed = known.requests, known.failed
        self.first_bytes, self.first_byte_seconds = known.first_bytes, known.first_byte_seconds

    def told(self) -> RevisionUsage:
        return RevisionUsage(
            requests=self.requests,
            failed=self.failed,
            first_bytes=self.first_bytes,
            first_byte_seconds=self.first_byte_seconds,
            asked=self.asked,
        )


class _Count:
    """One deployment, changed in place: this is done twice for each request."""

    __slots__ = ("created_at", "in_flight", "last_request_at", "requests", "revisions")

    def __init__(self, known: DeploymentUsage) -> None:
        self.created_at = known.created_at
        self.last_request_at = known.last_request_at
        self.in_flight = 0
        self.requests = known.requests
        self.revisions = {number: _Fared(usage) for number, usage in known.revisions.items()}

    def of(self, revision: int) -> _Fared:
        """How requests fared at this revision."""
        if (found := self.revisions.get(revision)) is None:
            found = self.revisions[revision] = _Fared(RevisionUsage())
        return found

    def told(self) -> DeploymentUsage:
        return DeploymentUsage(
            last_request_at=self.last_request_at,
            in_flight=self.in_flight,
            requests=self.requests,
            created_at=self.created_at,
            revisions={number: fared.told() for number, fared in self.revisions.items()},
        )


_NEW = DeploymentUsage(last_request_at=0.0, in_flight=0, requests=0)


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
        self._usage = {name: _Count(usage) for name, usage in counted.items()}
        self._spool = Spool(path, earlier)

    def _earlier(self) -> GatewayUsage | None:
        try:
            return GatewayUsage.model_validate_json(self._path.read_bytes(), extra="ignore")
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
            count = self._usage[deployment] = _Count(_NEW)
            found = (route.created_at for route in self._known().routes if route.deployment == deployment)
            count.created_at = next(found, 0.0)
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

    def asked(self, deployment: str, revision: int) -> None:
        """A replica of this revision is asked; `fared` follows, unless nobody waits for the answer any more."""
        if (count := self._usage.get(deployment)) is not None:
            count.of(revision).asked += 1
            self._changed = True

    def fared(self, deployment: str, revision: int, first_byte: float | None) -> None:
        """A replica of this revision answered.

        Args:
            first_byte: seconds from the question to the first byte of its answer; None: it failed.
        """
        if (count := self._usage.get(deployment)) is None:
            return
        fared = count.of(revision)
        fared.requests += 1
        if first_byte is None:
            fared.failed += 1
        else:
            fared.first_bytes += 1
            fared.first_byte_seconds += first_byte
        self._changed = True

    def served(self, account: Account, prompt: int, completion: int) -> None:
        """Add what a request was served; a kill after this does not lose it."""
        self._spool.add(account, prompt, completion)
        self._changed = True

    def changed(self, table: RoutingTable) -> None:
        """There is a new routing table: what was counted for a deployment is not another's of the same name."""
        for route in table.routes:
            count = self._usage.get(route.deployment)
            if count is not None and count.created_at != route.created_at:
                count.created_at, self._changed = route.created_at, True
                count.revisions.clear()

    def _forget_revisions(self, table: RoutingTable) -> None:
        """All but those that answer, and the two newest of the others: one that was replaced is still compared."""
        for route in table.routes:
            if (count := self._usage.get(route.deployment)) is not None:
                for old in sorted(count.revisions.keys() - {one.revision for one in route.endpoints})[:-2]:
                    del count.revisions[old]

    def snapshot(self, *, spool: int) -> GatewayUsage:
        """What is written: the sums are those without the lines of this spool."""
        deployments = {name: count.told() for name, count in self._usage.items()}
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
            self._forget_revisions(table)
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
