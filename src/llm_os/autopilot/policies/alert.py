"""Alerts: when a rule's number has been beyond its threshold for long enough, and when that is over. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llm_os.autopilot.history import Group
from llm_os.spec.alerts import Alert, AlertRule, AlertState, Form, Told
from llm_os.spec.units import format_bytes, format_duration


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a look.

    Attributes:
        alerts: those that are pending or firing now, by group.
        told: those that began or ended.
    """

    alerts: Mapping[Group, Alert]
    told: tuple[Told, ...]


def decide(rule: AlertRule, values: Mapping[Group, float], before: Mapping[Group, Alert], now: float) -> Decision:
    """The next state of each alert of a rule.

    A number that is not there any more (no requests, the deployment is gone) is no longer beyond the threshold.

    Args:
        before: alerts of this rule after the last look.
        now: seconds since the epoch.
    """
    alerts: dict[Group, Alert] = {}
    told: list[Told] = []
    for group in sorted(set(values) | set(before)):
        value, known = values.get(group), before.get(group)
        if value is not None and rule.broken_by(value):
            alert = _broken(rule, group, value, known, now)
            if alert.state is AlertState.FIRING and (known is None or known.state is not AlertState.FIRING):
                told.append(_tell(rule, alert, began=now, now=now))
            alerts[group] = alert
        elif known is not None and known.state is AlertState.FIRING:
            if now - known.seen < rule.keep:
                alerts[group] = known.model_copy(update={"value": value})
                continue
            told.append(ended(rule, known.model_copy(update={"value": value}), now))
    return Decision(alerts, tuple(told))


def ended(rule: AlertRule, alert: Alert, now: float) -> Told:
    """What is told when an alert that fired is over, or its rule is gone."""
    over = alert.model_copy(update={"state": AlertState.RESOLVED, "since": now})
    return _tell(rule, over, began=alert.since, now=now)


def _broken(rule: AlertRule, group: Group, value: float, known: Alert | None, now: float) -> Alert:
    if known is None:
        labels = dict(zip(rule.by, group, strict=True))
        known = Alert(rule=rule.name, labels=labels, state=AlertState.PENDING, value=value, since=now, seen=now)
    changes: dict[str, object] = {"value": value, "seen": now}
    if known.state is AlertState.PENDING and now - known.since >= rule.lasting:
        changes |= {"state": AlertState.FIRING, "since": now}
    return known.model_copy(update=changes)


def shown(rule: AlertRule, value: float | None) -> str:
    """A rule's number with its unit, which its metric's name tells."""
    if value is None:
        return "no number"
    if rule.of is not None:
        return f"{value:.1%}"
    if rule.metric.endswith("_bytes") and rule.form is Form.VALUE:
        return format_bytes(int(value))
    if rule.metric.endswith("_seconds") and rule.form in {Form.VALUE, Form.QUANTILE}:
        return format_duration(value)
    return f"{value:g}" if float(value).is_integer() else f"{value:.3g}"


def title(alert: Alert) -> str:
    """`slow-first-token (model chat)`."""
    labels = ", ".join(f"{name} {value}" for name, value in alert.labels.items())
    return f"{alert.rule} ({labels})" if labels else alert.rule


def step(rule: AlertRule, alert: Alert) -> str:
    """What to do, with the deployment's name where the rule says NAME."""
    return rule.next.replace("NAME", alert.labels.get("model") or "NAME")


def _tell(rule: AlertRule, alert: Alert, *, began: float, now: float) -> Told:
    bound = f"{'above' if rule.above is not None else 'below'} {shown(rule, rule.threshold)}"
    if alert.state is AlertState.RESOLVED:
        last = "it is not reported any more" if alert.value is None else f"it is {shown(rule, alert.value)}"
        message = f"{title(alert)} is over after {format_duration(now - began)}: {last}."
    else:
        lasted = f" for {format_duration(rule.lasting)}" if rule.lasting else ""
        message = f"{title(alert)}: {shown(rule, alert.value)}, {bound}{lasted}. {rule.summary}".strip()
    return Told(alert=alert, severity=rule.severity, message=message, next=step(rule, alert), at=now, began=began)
