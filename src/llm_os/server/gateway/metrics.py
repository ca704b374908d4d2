"""Counters of the gateway for Prometheus, in a registry of their own; must not know prompts, keys or the network.

Looking a labelled counter up costs more than counting, so those of one kind of request are looked up once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llm_os._version import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TIMES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
_WHO = ("route", "model", "version", "tenant")


class Series:
    """The counters of requests of one endpoint, model, version and tenant, each made at its first use."""

    def __init__(self, metrics: Metrics, labels: tuple[str, str, str, str]) -> None:
        self._metrics, self._labels = metrics, labels
        self._requests: dict[int, Any] = {}

    def answered(self, status: int) -> None:
        """One request was answered with this status."""
        if (counter := self._requests.get(status)) is None:
            counter = self._requests[status] = self._metrics.requests.labels(*self._labels, str(status))
        counter.inc()

    def cached(self, outcome: str) -> None:
        """An answer that may be told again was there (`hit`), or not (`miss`)."""
        self._metrics.cached.labels(*self._labels[1:], outcome).inc()

    def remove(self) -> None:
        """Forget them all."""
        metrics, labels = self._metrics, self._labels
        mine: list[tuple[Any, tuple[str, ...]]] = [
            (metrics.requests, (*labels, str(status))) for status in self._requests
        ]
        times = (metrics.duration, metrics.first_byte, metrics.first_token, metrics.between, metrics.queued)
        mine += [(one, labels) for one in times]
        mine += [(metrics.cached, (*labels[1:], outcome)) for outcome in ("hit", "miss")]
        mine += [(metrics.tokens, (*labels[1:], direction)) for direction in ("in", "out")]
        mine.append((metrics.tokens_cached, labels[1:]))
        for metric, values in mine:
            with suppress(KeyError):  # never counted, or removed with another endpoint's
                metric.remove(*values)

    @cached_property
    def duration(self) -> Any:
        return self._metrics.duration.labels(*self._labels)

    @cached_property
    def first_byte(self) -> Any:
        return self._metrics.first_byte.labels(*self._labels)

    @cached_property
    def first_token(self) -> Any:
        return self._metrics.first_token.labels(*self._labels)

    @cached_property
    def between(self) -> Any:
        return self._metrics.between.labels(*self._labels)

    @cached_property
    def queued(self) -> Any:
        return self._metrics.queued.labels(*self._labels)

    @cached_property
    def tokens_in(self) -> Any:
        return self._metrics.tokens.labels(*self._labels[1:], "in")

    @cached_property
    def tokens_cached(self) -> Any:
        return self._metrics.tokens_cached.labels(*self._labels[1:])

    @cached_property
    def tokens_out(self) -> Any:
        return self._metrics.tokens.labels(*self._labels[1:], "out")


class Metrics:
    """All counters. `model` is a deployment's name, empty when a request named none that is served."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._series: dict[tuple[str, str, str, str], Series] = {}
        self._old: set[tuple[str, str]] = set()
        """Deployments and versions of which there were counters, but no replicas, when this was looked at last."""
        kept = {"registry": self.registry}
        self.requests = Counter("llm_os_gateway_requests", "Requests that were answered.", (*_WHO, "status"), **kept)
        self.in_flight = Gauge("llm_os_gateway_in_flight", "Requests under way.", ("model",), **kept)
        self.waiting = Gauge("llm_os_gateway_waiting", "Requests in the queue.", ("model",), **kept)
        self.slots = Gauge("llm_os_gateway_slots", "Requests that the ready replicas take at once.", ("model",), **kept)
        self._add_times()
        self.tokens = Counter(
            "llm_os_gateway_tokens", "Tokens, as engines reported them.", (*_WHO[1:], "direction"), **kept
        )
        self.tokens_cached = Counter(
            "llm_os_gateway_prompt_tokens_cached",
            "Of the tokens in, those that engines had in their cache; engines that cannot tell have no such series.",
            _WHO[1:],
            **kept,
        )
        self.cached = Counter(
            "llm_os_gateway_cache",
            "Requests whose answer may be told again, by whether it was there.",
            (*_WHO[1:], "outcome"),
            **kept,
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
        self.coalesced = Counter(
            "llm_os_gateway_coalesced",
            "Requests that waited until another had read the beginning of the prompt that both share.",
            ("model",),
            **kept,
        )
        _tell_version(self.registry)

    def _add_times(self) -> None:
        """How long requests take, part by part."""
        timed: dict[str, Any] = {"registry": self.registry, "labelnames": _WHO}
        self.first_byte = Histogram(
            "llm_os_gateway_first_byte_seconds",
            "From the request's arrival to the first byte of the answer; of one that is no stream, that is its last.",
            buckets=_TIMES,
            **timed,
        )
        self.first_token = Histogram(
            "llm_os_gateway_first_token_seconds",
            "Of a stream: from the request's arrival to its first token. Other answers do not count.",
            buckets=_TIMES,
            **timed,
        )
        self.between = Histogram(
            "llm_os_gateway_between_tokens_seconds",
            "Of a stream: mean time from one token to the next.",
            buckets=_SHORT,
            **timed,
        )
        waits = "Wait for a slot at the replicas."
        self.queued = Histogram("llm_os_gateway_queue_seconds", waits, buckets=_TIMES, **timed)
        whole = "From the request's arrival to the end of the answer."
        self.duration = Histogram("llm_os_gateway_request_seconds", whole, buckets=_TIMES, **timed)

    def of(self, route: str, model: str, version: str, tenant: str) -> Series:
        """The counters of such requests."""
        labels = (route, model, version, tenant)
        if (found := self._series.get(labels)) is None:
            found = self._series[labels] = Series(self, labels)
        return found

    def forget(self, served: Mapping[str, Collection[str]]) -> None:
        """Drop the counters of deployments that are gone, and of versions that were gone the last time, too.

        Names and versions come and go; whoever reads the page twice a minute has seen the last of each.

        Args:
            served: versions by deployment.
        """
        gone = {labels[1] for labels in self._series} - served.keys() - {""}
        old = {labels[1:3] for labels in self._series if labels[2] not in served.get(labels[1], ("",))}
        for labels in [one for one in self._series if one[1] in gone or (one[1] and one[1:3] in old & self._old)]:
            self._series.pop(labels).remove()
        self._old = old
        for metric in (self.retried, self.broken, self.coalesced):
            for model in gone:
                with suppress(KeyError):
                    metric.remove(model)

    def forget_now(self) -> None:
        """Drop what holds for this moment: it is set anew for each page, for the deployments that there are."""
        for gauge in (self.in_flight, self.waiting, self.slots):
            gauge.clear()

    def page(self) -> bytes:
        """What `/metrics` answers."""
        return generate_latest(self.registry)


def _tell_version(registry: CollectorRegistry) -> None:
    build = Gauge("llm_os_gateway_build_info", "Version of the gateway.", ("version",), registry=registry)
    build.labels(__version__).set(1)
