"""Numbers from pages of metrics: what counters grew by, shares, quantiles, and the text format."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from llm_os.autopilot.exposition import Sample, read
from llm_os.autopilot.history import Growth, Measured, matches, quantile_of, series_of
from llm_os.spec.alerts import INFO, AlertRule, Form, Term


def counter(value: float, **labels: str) -> Sample:
    return Sample("x_total", labels, value)


def a_growth(window: float = 60.0, by: tuple[str, ...] = ("model",), **where: str) -> Growth:
    return Growth(Term(metric="x_total", where=where), by, window)


def test_one_reading_tells_no_growth() -> None:
    growth = a_growth()
    growth.add(0, [counter(1000, model="a")])
    assert growth.increase() == {}


def test_series_of_a_group_are_added_up() -> None:
    growth = a_growth()
    growth.add(0, [counter(10, model="a", status="200"), counter(5, model="a", status="500")])
    growth.add(10, [counter(14, model="a", status="200"), counter(6, model="a", status="500")])
    assert growth.increase() == {("a",): 5}
    assert growth.rate() == {("a",): 0.5}


def test_a_counter_that_begins_anew_did_not_fall() -> None:
    growth = a_growth()
    growth.add(0, [counter(100, model="a")])
    growth.add(10, [counter(3, model="a")])
    assert growth.increase() == {("a",): 3}


def test_a_series_that_appears_is_counted_from_zero() -> None:
    growth = a_growth()
    growth.add(0, [])
    growth.add(10, [counter(7, model="a", status="500")])
    assert growth.increase() == {("a",): 7}


def test_growth_is_that_of_the_window_only() -> None:
    growth = a_growth(window=60)
    for at, value in ((0, 0), (30, 100), (60, 100), (90, 100), (120, 103)):
        growth.add(at, [counter(value, model="a")])
    assert growth.increase() == {("a",): 3}


def test_a_group_that_is_gone_for_a_window_is_forgotten() -> None:
    growth = a_growth(window=60)
    growth.add(0, [counter(1, model="a")])
    growth.add(30, [counter(9, model="a")])
    growth.add(60, [])
    assert growth.increase() == {("a",): 8}
    growth.add(95, [])
    assert growth.increase() == {}


@given(st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=2), min_size=2, max_size=8), st.data())
def test_restarts_and_orders_do_not_change_what_was_counted(steps: list[list[int]], data: st.DataObject) -> None:
    """Two series grow by known steps, and each may begin anew before any of them, when it grows past what it was."""
    growth = a_growth(window=1e9, by=())
    values, grown = [1000.0, 2000.0], 0.0
    growth.add(0, [counter(values[n], n=str(n)) for n in (0, 1)])
    for at, step in enumerate(steps, start=1):
        for n in (0, 1):
            values[n] = step[n] if step[n] and data.draw(st.booleans()) and values[n] > 9 else values[n] + step[n]
            grown += step[n]
        samples = [counter(values[n], n=str(n)) for n in (0, 1)]
        growth.add(at, samples[::-1] if data.draw(st.booleans()) else samples)
    assert growth.increase() == {(): grown}


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("500", "500", True),
        ("500", "5001", False),
        ("5*", "503", True),
        ("5*", "250", False),
        ("*chat", "my-chat", True),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "a-c-b", False),
        ("ab*b", "ab", False),
        ("*", "", True),
        ("5.", "50", False),
    ],
)
def test_a_star_stands_for_any_text(pattern: str, text: str, fits: bool) -> None:
    assert matches({"status": pattern}, {"status": text}) is fits


def test_a_label_that_is_missing_is_empty() -> None:
    assert matches({"status": ""}, {})
    assert not matches({"status": "5*"}, {})


def test_quantiles_lie_on_straight_lines_between_bounds() -> None:
    buckets = {1.0: 10.0, 2.0: 20.0, 5.0: 20.0, math.inf: 20.0}
    assert quantile_of(buckets, 0.5) == 1.0
    assert quantile_of(buckets, 0.75) == 1.5
    assert quantile_of({1.0: 0.0, math.inf: 4.0}, 0.9) == 1.0  # beyond the last bound nothing is known
    assert quantile_of({1.0: 0.0, math.inf: 0.0}, 0.9) is None
    assert quantile_of({}, 0.9) is None


def test_a_page_of_a_real_registry_is_read() -> None:
    registry = CollectorRegistry()
    requests = Counter("requests", "Requests.", ("model",), registry=registry)
    times = Histogram("times_seconds", "Times.", buckets=(0.1, 1), registry=registry)
    Counter("idle", "Never counted.", ("model",), registry=registry)
    odd = 'a "quoted" \\ name, {with} all=of\nit'
    requests.labels(odd).inc(3)
    times.observe(0.5)
    page = read(generate_latest(registry).decode(), {"requests_total", "times_seconds_bucket", "times_seconds_count"})
    assert Sample("requests_total", {"model": odd}, 3) in page.samples
    assert Sample("times_seconds_bucket", {"le": "1.0"}, 1) in page.samples
    assert Sample("times_seconds_bucket", {"le": "+Inf"}, 1) in page.samples
    assert Sample("times_seconds_count", {}, 1) in page.samples
    assert not any(sample.name.endswith("_created") for sample in page.samples)
    assert page.type_of("idle_total") == "counter"
    assert page.type_of("times_seconds") == "histogram"
    assert page.type_of("times_seconds_sum") == "counter"
    assert page.type_of("nothing") is None


def test_lines_that_are_no_samples_are_passed_over() -> None:
    assert read("x_total\nx_total{ 1\nx_total abc\nx_total NaN\n\n{\nx_total 4\n", {"x_total"}).samples == (
        Sample("x_total", {}, 4),
    )


def rule(**fields: object) -> AlertRule:
    return AlertRule.model_validate({"name": "r", "metric": "x_total", "above": 0, **fields})


def test_shares_need_enough_events_and_a_whole() -> None:
    share = rule(
        form="rate", where={"status": "5*"}, of={"metric": "x_total"}, by=["model"], least_events=10, window="1m"
    )
    measured = Measured(share)

    def look(at: float, good: float, bad: float) -> dict[tuple[str, ...], float]:
        samples = (counter(good, model="a", status="200"), counter(bad, model="a", status="503"))
        return measured.take(at, {"x_total": samples})

    assert look(0, 0, 0) == {}
    assert look(10, 4, 5) == {}
    assert look(20, 6, 6) == {("a",): 0.5}


def test_a_rule_of_a_quantile_is_measured_by_group() -> None:
    measured = Measured(
        rule(metric="t_seconds", form="quantile", quantile=0.5, by=["model"], least_events=2, window="1m")
    )

    def look(at: float, fast: float, slow: float) -> dict[tuple[str, ...], float]:
        buckets = ((("0.1", fast), ("1.0", fast + slow), ("+Inf", fast + slow)), "a")
        samples = tuple(Sample("t_seconds_bucket", {"le": le, "model": "a"}, n) for le, n in buckets[0])
        return measured.take(
            at,
            {"t_seconds_bucket": samples, "t_seconds_count": (Sample("t_seconds_count", {"model": "a"}, fast + slow),)},
        )

    look(0, 0, 0)
    assert look(10, 1, 0) == {}
    assert look(20, 1, 3) == {("a",): pytest.approx(0.1 + 0.9 / 3)}


def test_a_share_of_values_is_that_of_now() -> None:
    measured = Measured(rule(metric="free", of={"metric": "size"}, above=None, below=0.1))
    assert measured.take(0, {"free": (Sample("free", {}, 1),), "size": (Sample("size", {}, 4),)}) == {(): 0.25}
    assert measured.take(1, {"free": (Sample("free", {}, 1),), "size": (Sample("size", {}, 0),)}) == {}


def labelled(**labels: str) -> AlertRule:
    return AlertRule(name="mine", metric="x", labelled=labels, by=("model",), above=1)


INFOS = (
    Sample(INFO, {"model": "a", "label_team": "search", "label_on_call": "yes"}, 1),
    Sample(INFO, {"model": "b", "label_team": "sales"}, 1),
)


def test_a_rule_may_mean_the_deployments_with_a_label_only() -> None:
    gauges = tuple(Sample("x", {"model": name}, value) for name, value in (("a", 2), ("b", 3), ("c", 4)))

    def taken(rule: AlertRule) -> dict[tuple[str, ...], float]:
        return Measured(rule).take(0.0, {"x": gauges, INFO: INFOS})

    assert taken(labelled(team="search")) == {("a",): 2}
    assert taken(labelled(team="s*")) == {("a",): 2, ("b",): 3}
    assert taken(labelled(**{"team": "search", "on-call": "no"})) == {}
    assert taken(labelled()) == {("a",): 2, ("b",): 3, ("c",): 4}
    assert INFO in series_of(labelled(team="search"))


def test_a_counter_of_other_deployments_does_not_grow_such_a_rule() -> None:
    rule = AlertRule(name="mine", metric="x_total", form=Form.INCREASE, labelled={"team": "search"}, above=1)
    measured = Measured(rule)
    for now, (a, b) in ((0.0, (1, 1)), (10.0, (4, 100))):
        found = measured.take(now, {"x_total": (counter(a, model="a"), counter(b, model="b")), INFO: INFOS})
    assert found == {(): 3}
