"""When alerts begin and end: after their time, once, and not for one good moment."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.autopilot.history import Group
from llm_os.autopilot.policies.alert import decide
from llm_os.spec.alerts import Alert, AlertRule, AlertState, Told


def a_rule(**fields: Any) -> AlertRule:
    given_ = {
        "name": "slow",
        "metric": "x_seconds",
        "by": ["model"],
        "above": 5,
        "for": "60s",
        "keep_firing_for": "30s",
    }
    return AlertRule.model_validate(given_ | fields)


class Play:
    """Looks at a rule, one after the other."""

    def __init__(self, rule: AlertRule) -> None:
        self.rule = rule
        self.alerts: dict[Group, Alert] = {}

    def look(self, now: float, **values: float) -> tuple[Told, ...]:
        decision = decide(self.rule, {(name,): value for name, value in values.items()}, self.alerts, now)
        self.alerts = dict(decision.alerts)
        return decision.told

    def state(self, name: str = "a") -> AlertState | None:
        found = self.alerts.get((name,))
        return found.state if found else None


def test_it_fires_once_after_its_time_and_is_resolved_once() -> None:
    play = Play(a_rule())
    assert play.look(0, a=9) == ()
    assert play.state() is AlertState.PENDING
    assert play.look(59, a=9) == ()
    (told,) = play.look(60, a=9)
    assert (told.alert.state, told.alert.labels, told.at) == (AlertState.FIRING, {"model": "a"}, 60)
    assert play.look(75, a=8) == ()
    assert play.look(90, a=1) == ()
    assert play.state() is AlertState.FIRING
    (over,) = play.look(105, a=1)
    assert (over.alert.state, over.began, over.at) == (AlertState.RESOLVED, 60, 105)
    assert play.alerts == {}


def test_a_good_moment_before_its_time_begins_it_anew() -> None:
    play = Play(a_rule())
    play.look(0, a=9)
    play.look(50, a=5)  # the threshold itself is not beyond it
    assert play.alerts == {}
    play.look(55, a=9)
    assert play.look(70, a=9) == ()


def test_one_good_moment_is_no_cure() -> None:
    play = Play(a_rule())
    play.look(0, a=9)
    play.look(60, a=9)
    play.look(80, a=1)
    assert play.look(89, a=9) == ()
    assert play.look(118, a=1) == ()
    assert play.state() is AlertState.FIRING


def test_groups_are_told_by_themselves() -> None:
    play = Play(a_rule(**{"for": 0}))
    assert [told.alert.labels["model"] for told in play.look(0, a=9, b=1)] == ["a"]
    assert [told.alert.labels["model"] for told in play.look(10, a=9, b=6)] == ["b"]


def test_what_is_not_reported_any_more_is_over() -> None:
    play = Play(a_rule(**{"for": 0}))
    play.look(0, a=9)
    assert play.look(10) == ()
    (over,) = play.look(30)
    assert "not reported any more" in over.message


@pytest.mark.parametrize(
    ("fields", "value", "says"),
    [
        ({}, 7.5, "slow (model a): 7.5 s, above 5.0 s."),
        ({"metric": "free", "of": {"metric": "size"}, "above": None, "below": 0.05}, 0.031, "3.1%, below 5.0%"),
        ({"metric": "free_bytes", "above": None, "below": "5"}, 3, "3 B, below 5 B"),
        ({"metric": "lost_total", "form": "increase", "summary": "Replicas die."}, 6, "6, above 5. Replicas die."),
    ],
)
def test_it_is_said_with_number_unit_and_threshold(fields: dict[str, Any], value: float, says: str) -> None:
    (told,) = Play(a_rule(**{"for": 0, **fields})).look(0, a=value)
    assert says in told.message


@given(st.lists(st.tuples(st.floats(1, 40), st.sampled_from([1.0, 9.0, None])), max_size=40))
def test_firing_and_resolved_take_turns_and_never_come_early(looks: list[tuple[float, float | None]]) -> None:
    rule, now = a_rule(), 0.0
    play = Play(rule)
    states, bad_since, last_bad = [], None, None
    for step, value in looks:
        now += step
        bad = value is not None and value > 5
        bad_since = (bad_since if bad_since is not None else now) if bad else None
        last_bad = now if bad else last_bad
        for told in play.look(now, **({} if value is None else {"a": value})):
            states.append(told.alert.state)
            if told.alert.state is AlertState.FIRING:
                assert bad_since is not None
                assert now - bad_since >= rule.lasting
            else:
                assert last_bad is not None
                assert now - last_bad >= rule.keep
    assert states == [AlertState.FIRING, AlertState.RESOLVED] * (len(states) // 2) + [AlertState.FIRING] * (
        len(states) % 2
    )
