"""Traces of requests for a collector of OpenTelemetry; must not know what is asked, who has which key, or the network.

Off unless the setting `traces` names a collector: then nothing of OpenTelemetry is imported, and a request costs a look
at a None. On, finished spans wait in a bounded queue for a thread that sends them: a collector that is away costs spans
and never a request. No prompt, answer or key is in them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llm_os._version import __version__
from llm_os.server.gateway.exchange import Exchange
from llm_os.server.gateway.spool import tokens_of
from llm_os.spec.hosts import is_loopback

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

log = logging.getLogger("llm_os.gateway")

WAITING = 4096
"""Finished spans that wait to be sent; what comes beyond is dropped."""
SENT_WITHIN = 5.0
"""Seconds in which the collector must have taken some."""
SENT_EVERY = 2.0
LAST_WORDS = 2.0
"""Seconds that the last spans get at the end."""
COMPLAINS_EVERY = 60.0
"""Seconds between two lines of the log about a collector that takes nothing."""
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
"""Endpoint -> `gen_ai.operation.name`, where the conventions have one."""


def connected(collector: str | None) -> Tracing | None:
    """Traces that go to a collector, or none.

    Args:
        collector: its address, such as `http://127.0.0.1:4318`.
    """
    if collector is None:
        return None
    try:
        import requests
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:  # requests must be answered all the same
        log.error("no traces are sent, as %s; install llm-os[traces], or unset LLM_OS_TRACES", error)
        return None
    session = requests.Session()
    session.trust_env = not is_loopback(urlsplit(collector).hostname or "")  # no proxy reaches this machine's loopback
    where = collector.rstrip("/") + "/v1/traces"
    exporter = OTLPSpanExporter(endpoint=where, timeout=SENT_WITHIN, session=session)
    every = SENT_EVERY * 1000
    logging.getLogger(OTLPSpanExporter.__module__).addFilter(Seldom(time.monotonic))
    log.info("traces go to %s", collector)
    return Tracing(BatchSpanProcessor(exporter, max_queue_size=WAITING, schedule_delay_millis=every), time.monotonic)


class Seldom(logging.Filter):
    """Lets one record through every COMPLAINS_EVERY seconds of `clock`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock, self._next = clock, 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + COMPLAINS_EVERY
        return True


class Tracing:
    """Begins a trace for each request that is asked of a model.

    Args:
        processor: takes finished spans; must not block.
        clock: monotonic seconds, as of `Exchange`.
    """

    def __init__(self, processor: SpanProcessor, clock: Callable[[], float]) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        named = Resource.create({"service.name": "llm-os-gateway", "service.version": __version__})
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("llm_os.gateway", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._clock = clock

    def begin(self, exchange: Exchange, method: str, headers: Mapping[str, str]) -> Trace | None:
        """The trace of a request, which goes on with the caller's where `traceparent` names one; None for a look."""
        if method != "POST":
            return None
        return Trace(self._tracer, self._propagator, self._clock, exchange, headers)

    def close(self) -> None:
        """Send what waits, for LAST_WORDS seconds at most. Blocks."""
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(LAST_WORDS)


class Trace:
    """The spans of one request: its own, its waits, and one for each attempt at a replica."""

    def __init__(
        self, tracer: Any, propagator: Any, clock: Callable[[], float], exchange: Exchange, headers: Mapping[str, str]
    ) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context

        self._tracer, self._propagator, self._clock = tracer, propagator, clock
        self._started, self._wall = exchange.started, time.time_ns()
        told = {"http.request.method": "POST", "http.route": exchange.route, "llm_os.request_id": exchange.request_id}
        self._span = tracer.start_span(
            f"POST {exchange.route}".strip(),
            context=propagator.extract(headers),
            kind=SpanKind.SERVER,
            attributes=told,
            start_time=self._wall,
        )
        self._inside = set_span_in_context(self._span)
        self._attempt: Any = None
        self._waited = False

    def _waits(self, exchange: Exchange) -> None:
        """Spans of the waits that end now, once."""
        if self._waited:
            return
        self._waited, ends = True, self._clock()
        for name, seconds in (("queue", exchange.queued), ("wait for a replica", exchange.held)):
            if seconds:
                span = self._tracer.start_span(name, context=self._inside, start_time=self._at(ends - seconds))
                span.end(self._at(ends))
                ends -= seconds

    def attempted(self, replica: str, exchange: Exchange) -> bytes:
        """An attempt begins. Returns the lines of a request's head that let the replica go on with the trace."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        self._waits(exchange)
        self._attempt = self._tracer.start_span(
            "attempt",
            context=self._inside,
            kind=SpanKind.CLIENT,
            attributes={"llm_os.replica": replica, "llm_os.try": exchange.tries},
            start_time=self._at(self._clock()),
        )
        lines: dict[str, str] = {}
        self._propagator.inject(lines, context=set_span_in_context(self._attempt))
        return "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("ascii", "ignore")

    def failed(self, why: str) -> None:
        """The attempt ended without an answer."""
        if self._attempt is not None:
            self._fail(self._attempt, why)
            self._attempt.end(self._at(self._clock()))
            self._attempt = None

    def end(self, exchange: Exchange, code: str | None) -> None:
        """The request is answered, or its caller left.

        Args:
            code: of the error that was answered.
        """
        self._waits(exchange)
        if self._attempt is not None:
            if exchange.first_byte is not None:
                self._attempt.add_event("first token", timestamp=self._at(exchange.first_byte))
            if exchange.broken:
                self.failed("the replica broke off in the middle of the answer")
            elif code is not None:
                self.failed(code)
            else:
                self._attempt.end(self._at(self._clock()))
        self._span.set_attributes(_facts(exchange, code))
        if exchange.status >= 500 or exchange.broken:
            self._fail(self._span, code or "the replica broke off in the middle of the answer")
        self._span.end(self._at(self._clock()))

    def _at(self, monotonic: float) -> int:
        return self._wall + round((monotonic - self._started) * 1e9)

    @staticmethod
    def _fail(span: Any, why: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        span.set_status(Status(StatusCode.ERROR, why))


def _facts(exchange: Exchange, code: str | None) -> dict[str, str | int | float]:
    """By OpenTelemetry's conventions for HTTP and generative models; what they do not know is under `llm_os.`."""
    prompt, answer = tokens_of(exchange.usage)
    facts: dict[str, str | int | float | None] = {
        "http.response.status_code": exchange.status,
        "error.type": code,
        "gen_ai.operation.name": OPERATIONS.get(exchange.route),
        "gen_ai.provider.name": "llm_os",
        "gen_ai.request.model": exchange.model or None,
        "gen_ai.response.model": exchange.version or None,
        "gen_ai.usage.input_tokens": prompt or None,
        "gen_ai.usage.output_tokens": answer or None,
        "llm_os.tenant": exchange.tenant or None,
        "llm_os.priority": exchange.priority or None,
        "llm_os.tries": exchange.tries,
    }
    if exchange.first_byte is not None:
        facts["gen_ai.response.time_to_first_chunk"] = exchange.first_byte - exchange.started
    return {name: value for name, value in facts.items() if value is not None}
