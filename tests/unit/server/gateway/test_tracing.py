"""Spans of requests: what is in them, how they hang together, and that nothing of them is there when they are off."""

import logging
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from llm_os.server.gateway import tracing
from llm_os.server.gateway.exchange import Exchange

memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter", reason="llm-os[traces]")

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Bed:
    """A tracer that keeps its spans, and a clock."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor

        self.kept, self.clock = memory.InMemorySpanExporter(), Clock()
        self.tracing = tracing.Tracing(SimpleSpanProcessor(self.kept), self.clock)

    def asked(self, headers: Mapping[str, str] | None = None, **facts: Any) -> Exchange:
        exchange = Exchange("req-1", self.clock(), route="/v1/chat/completions", **facts)
        exchange.trace = self.tracing.begin(exchange, "POST", headers or {})
        return exchange

    def spans(self) -> dict[str, Any]:
        return {span.name: span for span in self.kept.get_finished_spans()}


def seconds(span: Any) -> float:
    return round((span.end_time - span.start_time) / 1e9, 6)


def test_a_request_has_a_span_with_its_waits_its_attempt_and_what_it_took() -> None:
    bed = Bed()
    exchange = bed.asked(model="chat", version="smollm2@1", tenant="team", priority="batch")
    bed.clock.now += 3
    exchange.held, exchange.queued, exchange.tries = 2.0, 0.5, 1
    assert exchange.trace is not None
    exchange.trace.attempted("att-1", exchange)
    bed.clock.now += 1
    exchange.first_byte, exchange.status = bed.clock(), 200
    bed.clock.now += 4
    exchange.usage = {"prompt_tokens": 7, "completion_tokens": 3}
    exchange.trace.end(exchange, None)
    spans = bed.spans()
    root, attempt = spans["POST /v1/chat/completions"], spans["attempt"]
    assert {name: seconds(span) for name, span in spans.items()} == {
        "POST /v1/chat/completions": 8.0,
        "wait for a replica": 2.0,
        "queue": 0.5,
        "attempt": 5.0,
    }
    assert spans["wait for a replica"].end_time == spans["queue"].start_time
    assert spans["queue"].end_time == attempt.start_time
    assert {span.parent.span_id for name, span in spans.items() if span is not root} == {root.context.span_id}
    (event,) = attempt.events
    assert (event.name, event.timestamp - attempt.start_time) == ("first token", 10**9)
    facts = dict(root.attributes)
    assert facts["gen_ai.operation.name"] == "chat"
    assert (facts["gen_ai.usage.input_tokens"], facts["gen_ai.usage.output_tokens"]) == (7, 3)
    assert (facts["gen_ai.request.model"], facts["gen_ai.response.model"]) == ("chat", "smollm2@1")
    assert (facts["llm_os.tenant"], facts["llm_os.priority"]) == ("team", "batch")
    assert facts["gen_ai.response.time_to_first_chunk"] == 4.0
    assert root.status.is_ok
    assert root.parent is None


def test_the_callers_trace_goes_on_to_the_replica() -> None:
    bed = Bed()
    exchange = bed.asked({"traceparent": CALLER, "tracestate": "vendor=1"})
    assert exchange.trace is not None
    head = exchange.trace.attempted("att-1", exchange)
    exchange.trace.end(exchange, None)
    spans = bed.spans()
    root, attempt = spans["POST /v1/chat/completions"], spans["attempt"]
    assert f"{root.context.trace_id:032x}-{root.parent.span_id:016x}" == CALLER[3:-3]
    lines = head.decode().split("\r\n")
    assert f"traceparent: {CALLER[:36]}{attempt.context.span_id:016x}-01" in lines
    assert "tracestate: vendor=1" in lines


@pytest.mark.parametrize("broken", ["", "00-zz", CALLER[:-3], CALLER.replace("0af7", "\xff\xfe\xfd"), "x" * 9000])
def test_a_broken_traceparent_begins_a_trace_of_its_own(broken: str) -> None:
    bed = Bed()
    exchange = bed.asked({"traceparent": broken, "tracestate": "\xe4=,=,\x01" * 99})
    assert exchange.trace is not None
    assert exchange.trace.attempted("att-1", exchange).startswith(b"traceparent: 00-")
    exchange.trace.end(exchange, None)
    assert bed.spans()["POST /v1/chat/completions"].parent is None


def test_an_attempt_that_failed_has_a_span_of_its_own_and_says_why() -> None:
    bed = Bed()
    exchange = bed.asked()
    assert exchange.trace is not None
    for exchange.tries, replica in enumerate(("att-1", "att-2"), start=1):
        exchange.trace.attempted(replica, exchange)
        bed.clock.now += 1
        if replica == "att-1":
            exchange.trace.failed("the connection ended")
            bed.clock.now += 5  # nobody works on it meanwhile
    exchange.status = 503
    exchange.trace.end(exchange, "unavailable")
    first, second = (span for span in bed.kept.get_finished_spans() if span.name == "attempt")
    assert (first.attributes["llm_os.replica"], first.status.description) == ("att-1", "the connection ended")
    assert (second.attributes["llm_os.try"], second.status.description) == (2, "unavailable")
    assert (seconds(first), seconds(second)) == (1.0, 1.0)
    root = bed.spans()["POST /v1/chat/completions"]
    assert not root.status.is_ok
    assert (root.attributes["error.type"], root.attributes["http.response.status_code"]) == ("unavailable", 503)


def test_a_refusal_is_no_error_of_the_server() -> None:
    bed = Bed()
    exchange = bed.asked()
    exchange.status = 429
    assert exchange.trace is not None
    exchange.trace.end(exchange, "overloaded")
    (span,) = bed.kept.get_finished_spans()
    assert span.status.is_ok or span.status.is_unset
    assert span.attributes["error.type"] == "overloaded"


def test_looks_at_lists_and_health_are_not_traced() -> None:
    assert Bed().tracing.begin(Exchange("req-1", 0.0, route="/health"), "GET", {}) is None


def test_a_collector_that_is_away_is_a_line_a_minute_of_the_log() -> None:
    clock, record = Clock(), logging.makeLogRecord({})
    seldom = tracing.Seldom(clock)
    assert [seldom.filter(record), seldom.filter(record)] == [True, False]
    clock.now += tracing.COMPLAINS_EVERY
    assert seldom.filter(record)


def test_without_the_extra_requests_are_answered_and_the_log_says_what_is_missing() -> None:
    code = (
        "import logging, sys; logging.basicConfig(); sys.modules['opentelemetry.exporter'] = None;"
        "from llm_os.server.gateway import tracing; assert tracing.connected('http://127.0.0.1:4318') is None"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "install llm-os[traces]" in done.stderr


def test_nothing_of_opentelemetry_is_loaded_when_it_is_off() -> None:
    code = (
        "import sys; from llm_os.server.gateway import main, tracing; assert tracing.connected(None) is None;"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_request_that_its_caller_does_not_sample_leaves_no_span() -> None:
    bed = Bed()
    exchange = bed.asked({"traceparent": CALLER[:-2] + "00"})
    assert exchange.trace is not None
    assert exchange.trace.attempted("att-1", exchange).endswith(b"-00\r\n")
    exchange.trace.failed("why")
    exchange.trace.end(exchange, "unavailable")
    assert bed.kept.get_finished_spans() == ()
