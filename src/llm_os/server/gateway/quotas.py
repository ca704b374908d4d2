"""What a key may use in a minute: buckets that fill evenly; a refusal says when it would not be one. Knows no HTTP."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from llm_os.errors import QuotaExceededError
from llm_os.spec.routing import KeyEntry

_MINUTE = 60.0


@dataclass(slots=True)
class Bucket:
    """Holds a minute's worth, and fills evenly up to it. It may be in debt: what was taken was more than thought.

    Attributes:
        most: what is in it when it is full.
        level: what is in it at `at` (seconds).
    """

    most: float
    level: float
    at: float

    def wait(self, amount: float, now: float) -> float:
        """Seconds until so much can be taken; more than it ever holds is there when it is full."""
        self._fill(now)
        return max(0.0, min(amount, self.most) - self.level) * _MINUTE / self.most

    def take(self, amount: float, now: float) -> None:
        """Take so much, or give it back if negative."""
        self._fill(now)
        self.level = min(self.most, self.level - amount)

    def _fill(self, now: float) -> None:
        self.level = min(self.most, self.level + (now - self.at) * self.most / _MINUTE)
        self.at = now


class Use:
    """One request's part of its key's quota, from its admission to its end."""

    def __init__(self, account: _Account, estimate: float) -> None:
        self._account = account
        self._estimate = estimate

    def settle(self, tokens: float, now: float) -> None:
        """It has ended, with so many tokens."""
        self._account.running -= 1
        if self._account.tokens is not None:
            self._account.tokens.take(tokens - self._estimate, now)


@dataclass(slots=True)
class _Account:
    requests: Bucket | None
    tokens: Bucket | None
    running: int = 0


class Quotas:
    """The accounts of all keys.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    def admit(self, entry: KeyEntry, estimate: float) -> Use:
        """Reserve a request of about so many tokens.

        Raises:
            QuotaExceededError: with `retry_after` (seconds) and the limit that is reached.
        """
        now, quota = self._clock(), entry.quota
        account = self._account(entry, now)
        if quota.concurrent is not None and account.running >= quota.concurrent:
            raise QuotaExceededError(
                f"The key '{entry.name or entry.id}' may have {quota.concurrent} requests at once, and has them.",
                hint="Try again when one of them has ended.",
                details={"retry_after": 1, "quota": "concurrent", "limit": quota.concurrent},
            )
        self._refuse(entry, account, estimate, now)
        if account.requests is not None:
            account.requests.take(1.0, now)
        if account.tokens is not None:
            account.tokens.take(estimate, now)
        account.running += 1
        return Use(account, estimate)

    @staticmethod
    def _refuse(entry: KeyEntry, account: _Account, estimate: float, now: float) -> None:
        """Raises QuotaExceededError for the limit that would hold it back the longest."""
        waits = [
            (bucket.wait(amount, now), name, int(bucket.most))
            for name, bucket, amount in (
                ("requests_per_minute", account.requests, 1.0),
                ("tokens_per_minute", account.tokens, estimate),
            )
            if bucket is not None
        ]
        wait, name, limit = max(waits, default=(0.0, "", 0))
        if wait > 0:
            seconds = max(1, math.ceil(wait))
            raise QuotaExceededError(
                f"The key '{entry.name or entry.id}' may have {limit} {name.split('_')[0]} a minute, and has them.",
                hint=f"Try again in {seconds} s, or ask for a key with a larger quota.",
                details={"retry_after": seconds, "quota": name, "limit": limit},
            )

    def _account(self, entry: KeyEntry, now: float) -> _Account:
        found = self._accounts.get(entry.id)
        if found is None:
            found = self._accounts[entry.id] = _Account(None, None)
        found.requests = _fitted(found.requests, entry.quota.requests_per_minute, now)
        found.tokens = _fitted(found.tokens, entry.quota.tokens_per_minute, now)
        return found

    def forget(self, known: set[str]) -> None:
        """Drop the accounts of keys that are gone and have nothing running."""
        for key in [key for key, account in self._accounts.items() if key not in known and not account.running]:
            del self._accounts[key]


def _fitted(bucket: Bucket | None, most: int | None, now: float) -> Bucket | None:
    if most is None:
        return None
    if bucket is None or bucket.most != most:
        return Bucket(float(most), float(most), now)
    return bucket
