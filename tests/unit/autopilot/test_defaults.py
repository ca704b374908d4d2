"""Every rule that is on by default fires for what it is there for, after its time, and not for a day that is well."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import pytest

from llm_os.autopilot.exposition import read
from llm_os.autopilot.history import Group, Measured, series_of
from llm_os.autopilot.policies.alert import decide
from llm_os.autopilot.rules import DEFAULTS
from llm_os.spec.alerts import Alert, AlertRule, AlertState

EVERY = 15.0
"""Seconds between two readings."""
Series = dict[str, float]


def slow(metric: str, bound: float) -> Callable[[float], Series]:
    """A histogram whose requests, two a second, all take between a thirtieth of this and this."""
    of = '{model="chat",version="v@1"'
    return lambda at: {
        f'{metric}_bucket{of},le="0.1"}}': 0,
        f'{metric}_bucket{of},le="{bound / 30:g}"}}': 0,
        f'{metric}_bucket{of},le="{bound:g}"}}': 2 * at,
        f'{metric}_bucket{of},le="+Inf"}}': 2 * at,
        f"{metric}_count{of}}}": 2 * at,
    }


def requests(at: float, failed: float) -> Series:
    name = 'llm_os_gateway_requests_total{model="chat",status='
    return {f'{name}"200"}}': (1 - failed) * 4 * at, f'{name}"503"}}': failed * 4 * at}


ILL: dict[str, Callable[[float], Series]] = {
    "gateway-down": lambda at: {"llm_os_kernel_gateway_up": 0},
    "error-rate": lambda at: requests(at, 0.1),
    "slow-first-token": lambda at: slow(metric_of("slow-first-token"), 30)(at),
    "long-queue": lambda at: slow("llm_os_gateway_queue_seconds", 30)(at),
    "requests-refused": lambda at: {'llm_os_gateway_rejected_total{code="overloaded"}': at},
    "replica-restarts": lambda at: {'llm_os_kernel_replicas_lost_total{model="chat"}': at // 60},
    "replicas-missing": lambda at: {
        'llm_os_kernel_replicas_ready{model="chat"}': 1,
        'llm_os_kernel_replicas_wanted{model="chat"}': 2,
    },
    "parity-fallen": lambda at: {'llm_os_deployment_parity{model="chat",where="sure"}': 0.97},
    "memory-pressure": lambda at: {"llm_os_host_memory_available_bytes": 4e8, "llm_os_host_memory_bytes": 1e10},
    "out-of-memory": lambda at: {"llm_os_host_oom_kills_total": at // 60},
    "disk-nearly-full": lambda at: {"llm_os_host_disk_free_bytes": 4e9, "llm_os_host_disk_bytes": 1e11},
    "throttled": lambda at: {"llm_os_host_throttled_seconds_total": at / 2},
}


def well(at: float) -> Series:
    """All series of a machine that serves quickly, with room, and with a failure now and then."""
    return {
        "llm_os_kernel_gateway_up": 1,
        **requests(at, 0.01),
        **slow(metric_of("slow-first-token"), 0.5)(at),
        **slow("llm_os_gateway_queue_seconds", 0.5)(at),
        'llm_os_gateway_rejected_total{code="overloaded"}': at // 60,
        'llm_os_gateway_rejected_total{code="not_found"}': at,
        'llm_os_kernel_replicas_lost_total{model="chat"}': at // 600,
        'llm_os_kernel_replicas_ready{model="chat"}': 2,
        'llm_os_kernel_replicas_wanted{model="chat"}': 2,
        'llm_os_deployment_parity{model="chat",where="sure"}': 0.99,
        'llm_os_deployment_parity{model="chat",where="everywhere"}': 0.93,
        "llm_os_host_memory_available_bytes": 5e9,
        "llm_os_host_memory_bytes": 1e10,
        "llm_os_host_oom_kills_total": 3,
        "llm_os_host_disk_free_bytes": 5e10,
        "llm_os_host_disk_bytes": 1e11,
        "llm_os_host_throttled_seconds_total": at / 10,
    }


def metric_of(name: str) -> str:
    return next(rule.metric for rule in DEFAULTS if rule.name == name)


def fires(rule: AlertRule, pages: Callable[[float], Series], seconds: float) -> float | None:
    """When it fires first, in seconds from the beginning; None: it does not."""
    measured, alerts = Measured(rule), dict[Group, Alert]()
    for step in range(int(seconds / EVERY) + 1):
        now = step * EVERY
        text = "\n".join(f"{series} {value}" for series, value in pages(now).items())
        found = sorted(read(text, series_of(rule)).samples, key=lambda sample: sample.name)
        samples = {name: tuple(some) for name, some in groupby(found, lambda sample: sample.name)}
        decision = decide(rule, measured.take(now, samples), alerts, now)
        alerts = dict(decision.alerts)
        if any(told.alert.state is AlertState.FIRING for told in decision.told):
            return now
    return None


@pytest.mark.parametrize("rule", DEFAULTS, ids=lambda rule: rule.name)
def test_a_default_rule_fires_for_what_it_is_there_for_and_not_before_its_time(rule: AlertRule) -> None:
    at = fires(rule, ILL[rule.name], rule.lasting + rule.window + 120)
    assert at is not None
    assert rule.lasting <= at <= rule.lasting + rule.window + 60


@pytest.mark.parametrize("rule", DEFAULTS, ids=lambda rule: rule.name)
def test_no_default_rule_fires_on_a_day_that_is_well(rule: AlertRule) -> None:
    assert fires(rule, well, 3600) is None
