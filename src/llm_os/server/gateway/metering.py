"""What the gateway tells the kernel: who was asked when, and what was served, in `run/usage.json`; knows no HTTP."""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import ValidationError

from llm_os.server.gateway.exchange import Exchange
from llm_os.server.gateway.spool import Account, Spool
from llm_os.spec.routing import FIRST_WINDOW, DeploymentUsage, GatewayUsage, RevisionUsage, RoutingTable

MOST_FIRSTS = 1000
"""First tokens that are remembered: of the window, or the newest of it."""
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

    __slots__ = ("admitted", "created_at", "firsts", "in_flight", "last_request_at", "live", "requests", "revisions")

    def __init__(self, known: DeploymentUsage) -> None:
        self.created_at = known.created_at
        self.last_request_at = known.last_request_at
        self.in_flight = self.admitted = 0
        self.requests = known.requests
        self.revisions = {number: _Fared(usage) for number, usage in known.revisions.items()}
        self.live: dict[str, Exchange] = {}
        self.firsts: deque[tuple[float, float]] = deque(maxlen=MOST_FIRSTS)
        """When streams that have ended had their first token, and how long after their arrival."""

    def ended(self, exchange: Exchange) -> None:
        """It is over; how long its first token took is still told for a while."""
        del self.live[exchange.request_id]
        if exchange.streams and exchange.first_byte is not None:
            self.firsts.append((exchange.first_byte, exchange.first_byte - exchange.started))

    def first_tokens(self, now: float) -> tuple[float | None, int]:
        """(seconds within which 95 of 100 streams had their first token, their number), see `DeploymentUsage`.

        Args:
            now: on the clock of exchanges.
        """
        streams = [one for one in self.live.values() if one.streams]
        had = [(one.first_byte, one.first_byte - one.started) for one in streams if one.first_byte is not None]
        took = [seconds for at, seconds in (*self.firsts, *had) if now - at <= FIRST_WINDOW]
        usual = percentile(took, 0.95) or 0.0
        # Who waits longer than that already makes it worse, before the token is there.
        took += [age for one in streams if one.first_byte is None and (age := now - one.started) > usual]
        return percentile(took, 0.95), len(took)

    def of(self, revision: int) -> _Fared:
        """How requests fared at this revision."""
        if (found := self.revisions.get(revision)) is None:
            found = self.revisions[revision] = _Fared(RevisionUsage())
        return found

    def told(self, now: float) -> DeploymentUsage:
        """What the kernel is told.

        Args:
            now: on the clock of exchanges.
        """
        first_token, first_tokens = self.first_tokens(now)
        return DeploymentUsage(
            last_request_at=self.last_request_at,
            in_flight=self.in_flight,
            requests=self.requests,
            tokens_in_flight=round(sum(one.tokens_left for one in self.live.values()), 1),
            first_token=None if first_token is None else round(first_token, 4),
            first_tokens=first_tokens,
            created_at=self.created_at,
            revisions={number: fared.told() for number, fared in self.revisions.items()},
        )


class _UnderWay:
    """One request while it runs. (A class: a generator of `contextlib` costs three times as much.)"""

    __slots__ = ("_count", "_exchange", "_metering", "_requests")

    def __init__(self, metering: Metering, count: _Count, requests: int, exchange: Exchange | None) -> None:
        self._metering, self._count, self._requests, self._exchange = metering, count, requests, exchange

    def __enter__(self) -> None:
        self._count.requests += self._requests
        if self._exchange is not None:
            self._count.live[self._exchange.request_id] = self._exchange
        self._metering.moved(self._count, 1, self._requests)

    def __exit__(self, *_: object) -> None:
        if self._exchange is not None:
            self._count.ended(self._exchange)
        self._metering.moved(self._count, -1, -self._requests)


def percentile(values: list[float], share: float) -> float | None:
    """The smallest of the values that so many are not above; None of none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None


_NEW = DeploymentUsage(last_request_at=0.0, in_flight=0, requests=0)


class Metering:
    """Counts by deployment, and sums by account.

    Args:
        path: the file; what an earlier gateway counted is taken over, but for its requests in flight.
        clock: seconds since the epoch.
        known: the routing table in force; deployments that it does not have are forgotten when idle.
        watch: the clock of exchanges.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float],
        known: Callable[[], RoutingTable],
        watch: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._clock = clock
        self._watch = watch
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

    def request(self, deployment: str, exchange: Exchange | None = None) -> AbstractContextManager[None]:
        """Count one request from its admission to its end.

        Args:
            exchange: what is known of it, if replicas work for it.
        """
        return _UnderWay(self, self._count(deployment), 1, exchange)

    def waiting(self, deployment: str, exchange: Exchange | None = None) -> AbstractContextManager[None]:
        """A request that waits for the deployment to be ready: it is wanted."""
        return _UnderWay(self, self._count(deployment), 0, exchange)

    def _count(self, deployment: str) -> _Count:
        count = self._usage.get(deployment)
        if count is None:
            count = self._usage[deployment] = _Count(_NEW)
            found = (route.created_at for route in self._known().routes if route.deployment == deployment)
            count.created_at = next(found, 0.0)
        return count

    def moved(self, count: _Count, in_flight: int, admitted: int) -> None:
        """So many more requests of this deployment are under way, so many of them let in."""
        count.last_request_at = self._clock()
        count.in_flight += in_flight
        count.admitted += admitted
        self._changed = True

    def in_flight(self, deployment: str) -> int:
        """Requests that are let in and have not ended; none that waits for a first replica."""
        count = self._usage.get(deployment)
        return 0 if count is None else count.admitted

    def asked(self, deployment: str, revision: int) -> None:
        """A replica of this revision is asked; `fared` or `refused` follows, or nobody waits for it any more."""
        if (count := self._usage.get(deployment)) is not None:
            count.of(revision).asked += 1
            self._changed = True

    def refused(self, deployment: str, revision: int) -> None:
        """What it was asked was refused by all: it tells nothing of this revision, as if it had not been asked."""
        if (count := self._usage.get(deployment)) is not None and (fared := count.of(revision)).asked > fared.requests:
            fared.asked -= 1
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
        now = self._watch()
        deployments = {name: count.told(now) for name, count in self._usage.items()}
        return GatewayUsage(written_at=self._clock(), deployments=deployments, served=self._spool.sums(), spool=spool)

    def _moves(self) -> bool:
        """Whether numbers change by themselves: answers grow, first tokens become old."""
        now = self._watch()
        for count in self._usage.values():
            if count.live:
                return True
            if count.firsts and now - count.firsts[-1][0] > FIRST_WINDOW:
                count.firsts.clear()
                return True
        return False

    def flush(self) -> bool:
        """Write the file beside and rename it, if anything changed. True when it was written.

        A full disk must not stop requests: the failure is logged once, the next change tries again.
        """
        if not self._changed and not self._moves():
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
