"""The kernel's numbers as Prometheus reads them; must not know where they come from."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llm_os._version import __version__
from llm_os.spec.alerts import INFO, series_label
from llm_os.spec.measures import Measures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Numbers(Collector):
    def __init__(self, measures: Measures) -> None:
        self._measures = measures

    def collect(self) -> Iterator[Metric]:
        yield from _host(self._measures)
        yield from _kernel(self._measures)
        yield from _deployments(self._measures)


def page(measures: Measures) -> bytes:
    """What `/metrics` answers. Numbers that the system does not tell are left out; their names are there all the same.

    `model` is a deployment's name, as in the gateway's metrics.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(measures))
    return generate_latest(registry)


def _gauge(name: str, text: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(name, text)
    if value is not None:
        family.add_metric([], value)
    return family


def _counter(name: str, text: str, value: float | None) -> Metric:
    family = CounterMetricFamily(name, text)
    if value is not None:
        family.add_metric([], value)
    return family


def _host(measures: Measures) -> Iterator[Metric]:
    host = measures.host
    yield _gauge("llm_os_host_memory_bytes", "Memory that may be used here.", host.memory)
    yield _gauge(
        "llm_os_host_memory_available_bytes", "Memory that could be had without swapping.", host.memory_available
    )
    yield _gauge("llm_os_host_disk_bytes", "File system of the home.", measures.disk)
    yield _gauge("llm_os_host_disk_free_bytes", "Of it, what is free.", measures.disk_free)
    yield _counter("llm_os_host_oom_kills", "Processes that the system ended for lack of memory.", host.oom_kills)
    yield _counter(
        "llm_os_host_throttled_seconds", "Time in which the quota of cores was used up.", host.throttled_seconds
    )
    yield _counter("llm_os_host_thermal_throttles", "Times a core was slowed by heat.", host.thermal_throttles)
    yield _gauge("llm_os_host_frequency_ratio", "Clock of the cores, of the highest they know.", host.frequency)


def _kernel(measures: Measures) -> Iterator[Metric]:
    yield _gauge("llm_os_kernel_memory_granted_bytes", "Memory that this node grants.", measures.memory_granted)
    yield _gauge("llm_os_kernel_memory_free_bytes", "Of it, what nobody holds.", measures.memory_free)
    yield _gauge("llm_os_kernel_cpus_granted", "Cores that this node grants.", measures.cpus_granted)
    yield _gauge("llm_os_kernel_cpus_free", "Of them, those that nobody holds.", measures.cpus_free)
    yield _gauge("llm_os_kernel_gateway_up", "Whether the gateway answers.", float(measures.gateway_up))
    jobs = GaugeMetricFamily("llm_os_kernel_jobs", "Jobs, by state.", labels=("state",))
    for state, number in sorted(measures.jobs.items()):
        jobs.add_metric([state], number)
    yield jobs
    build = GaugeMetricFamily("llm_os_kernel_build_info", "Version of the kernel.", labels=("version",))
    build.add_metric([__version__], 1)
    yield build


def _deployments(measures: Measures) -> Iterator[Metric]:
    label = ("model",)
    wanted = GaugeMetricFamily("llm_os_kernel_replicas_wanted", "Replicas that were asked for.", labels=label)
    ready = GaugeMetricFamily("llm_os_kernel_replicas_ready", "Replicas that answer.", labels=label)
    memory = GaugeMetricFamily("llm_os_kernel_replica_memory_bytes", "Resident memory of replicas.", labels=label)
    lost = CounterMetricFamily("llm_os_kernel_replicas_lost", "Replicas that ended unasked.", labels=label)
    for name, found in sorted(measures.deployments.items()):
        wanted.add_metric([name], found.wanted)
        ready.add_metric([name], found.ready)
        memory.add_metric([name], found.memory)
    for name, number in sorted(measures.lost.items()):
        lost.add_metric([name], number)
    yield from (wanted, ready, memory, lost)
    yield from _served(measures)


def _served(measures: Measures) -> Iterator[Metric]:
    """What each deployment serves, how far it agrees with the reference, and its owner's labels."""
    parity = GaugeMetricFamily(
        "llm_os_deployment_parity",
        "Share of places at which it says what the model says in PyTorch, when it was compared last.",
        labels=("model", "version", "where"),
    )
    info = GaugeMetricFamily(INFO, "1, with what it serves and its labels (`label_NAME`).")
    for name, found in sorted(measures.deployments.items()):
        for where, share in sorted(found.parity.items()):
            parity.add_metric([name, found.version, where], share)
        own = {series_label(label): value for label, value in sorted(found.labels.items(), reverse=True)}
        info.add_sample(INFO, {"model": name, "version": found.version, "engine": found.engine, **own}, 1)
    yield from (parity, info)
