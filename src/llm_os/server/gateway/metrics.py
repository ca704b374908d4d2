"""Counters of the gateway for Prometheus, in a registry of their own; must not know prompts, keys or the network."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llm_os._version import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TIMES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """All counters. `model` is a deployment's name, empty when a request named none that is served."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kept = {"registry": self.registry}
        self.requests = Counter(
            "llm_os_gateway_requests", "Requests that were answered.", ("route", "model", "status"), **kept
        )
        self.in_flight = Gauge("llm_os_gateway_in_flight", "Requests under way.", ("model",), **kept)
        self.first_byte = Histogram(
            "llm_os_gateway_first_byte_seconds",
            "From the request's arrival to the first byte of the answer.",
            ("route", "model"),
            buckets=_TIMES,
            **kept,
        )
        self.duration = Histogram(
            "llm_os_gateway_request_seconds",
            "From the request's arrival to the end of the answer.",
            ("route", "model"),
            buckets=_TIMES,
            **kept,
        )
        self.tokens = Counter(
            "llm_os_gateway_tokens", "Tokens, as engines reported them.", ("model", "direction"), **kept
        )
        self.rejected = Counter(
            "llm_os_gateway_rejected", "Requests that were refused, by the error's code.", ("code",), **kept
        )
        self.retried = Counter(
            "llm_os_gateway_retried", "Requests tried once more after a broken connection.", ("model",), **kept
        )
        self.broken = Counter(
            "llm_os_gateway_broken_streams", "Streams whose replica broke off after the first byte.", ("model",), **kept
        )
        build = Gauge("llm_os_gateway_build_info", "Version of the gateway.", ("version",), **kept)
        build.labels(__version__).set(1)

    def page(self) -> bytes:
        """What `/metrics` answers."""
        return generate_latest(self.registry)
