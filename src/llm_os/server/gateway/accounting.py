"""What one request leaves behind: counters, a line of the access log, tokens of its account. Knows no HTTP."""

from __future__ import annotations

import asyncio
import json
import time

from llm_os.errors import by_code
from llm_os.server.gateway.access import AccessLog
from llm_os.server.gateway.estimates import Estimates
from llm_os.server.gateway.exchange import Exchange
from llm_os.server.gateway.metering import Metering
from llm_os.server.gateway.metrics import Metrics, Series
from llm_os.server.gateway.spool import cached_of, tokens_of

CODES = frozenset(by_code())
"""Codes of errors that are ours; engines may say anything."""
WRITE_EVERY = 0.5
"""Seconds between two writes at least."""


class Accounting:
    """See the module.

    Args:
        metering: what the kernel is told.
        metrics: what Prometheus is told.
        estimates: learns from what was counted.
        access: the access log.
        logs_prompts: what was asked goes there, too.
    """

    def __init__(
        self,
        metering: Metering,
        metrics: Metrics,
        estimates: Estimates,
        access: AccessLog,
        *,
        logs_prompts: bool = False,
    ) -> None:
        self.metering, self.metrics, self.estimates = metering, metrics, estimates
        self._access = access
        self.logs_prompts = logs_prompts

    async def run(self) -> None:
        """Write what is new until cancelled."""
        while True:
            self.flush()
            await asyncio.sleep(WRITE_EVERY)

    def flush(self) -> None:
        """Write what is new to its files."""
        self.metering.flush()
        self._access.flush()

    def served(self, exchange: Exchange, size: int) -> int:
        """Tokens that the request took, put to its account, once. Of a caller who left, as far as they can be known.

        Args:
            size: bytes of the request's body.
        """
        if exchange.tokens is not None:
            return exchange.tokens
        prompt, answer = tokens_of(exchange.usage)
        if prompt or answer:
            self.estimates.learn(exchange.model, size, prompt, answer, exchange.answers)
        elif exchange.events:
            prompt, answer = self.estimates.prompt(exchange.model, size), exchange.events
        if exchange.first_byte is not None:
            self.metering.served((exchange.tenant, exchange.key, exchange.model, exchange.version), prompt, answer)
        if prompt or answer:
            series = self._series(exchange)
            series.tokens_in.inc(prompt)
            if (cached := cached_of(exchange.usage)) is not None:
                series.tokens_cached.inc(min(cached, prompt))
            series.tokens_out.inc(answer)
        exchange.tokens = prompt + answer
        return exchange.tokens

    def ended(self, exchange: Exchange, method: str, code: str | None) -> None:
        """Counters and one line of the access log: no prompt, unless that was asked for, and never a key.

        Args:
            code: of the error that was answered.
        """
        took = time.monotonic() - exchange.started
        metrics, series = self.metrics, self._series(exchange)
        series.answered(exchange.status)
        series.duration.observe(took)
        if exchange.first_byte is not None:
            first = exchange.first_byte - exchange.started
            series.first_byte.observe(first)
            series.queued.observe(exchange.queued)
            if exchange.events:
                series.first_token.observe(first)
            if exchange.events > 1:
                tokens = max(tokens_of(exchange.usage)[1], exchange.events)
                series.between.observe((took - first) / (tokens - 1))
        if code is not None:
            metrics.rejected.labels(code if code in CODES else "engine_error").inc()
        if exchange.tries > 1:
            metrics.retried.labels(exchange.model).inc()
        if exchange.cache:
            series.cached(exchange.cache)
        if exchange.coalesced:
            metrics.coalesced.labels(exchange.model).inc()
        if exchange.broken:
            metrics.broken.labels(exchange.model).inc()
        self._access.line(
            f"{exchange.request_id} {method} {exchange.route or 'unknown'} status={exchange.status} "
            f"model={exchange.model or '-'} key={exchange.key or '-'} ms={took * 1000:.1f} "
            f"queue={exchange.queued * 1000:.1f} tries={exchange.tries}{f' error={code}' if code else ''}"
            f"{f' prompt={json.dumps(exchange.prompt, ensure_ascii=False)}' if exchange.prompt else ''}"
        )

    def _series(self, exchange: Exchange) -> Series:
        return self.metrics.of(exchange.route, exchange.model, exchange.version, exchange.tenant)
