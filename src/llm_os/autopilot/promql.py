"""Rules as Prometheus writes them: one expression each, and a file of alerting rules. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from llm_os.spec.alerts import AlertRule, Form, Term


def selector(term: Term, name: str | None = None) -> str:
    """`metric{status=~"5.*"}`."""
    parts = []
    for label, pattern in term.where.items():
        if "*" in pattern:
            text = ".*".join(re.escape(part) for part in pattern.split("*"))
            parts.append(f"{label}=~{json.dumps(text, ensure_ascii=False)}")
        else:
            parts.append(f"{label}={json.dumps(pattern, ensure_ascii=False)}")
    return f"{name or term.metric}{{{','.join(parts)}}}" if parts else (name or term.metric)


def number(rule: AlertRule, by: tuple[str, ...] | None = None) -> str:
    """The number that a rule compares.

    Args:
        by: other labels to make groups by than the rule's.
    """
    by = rule.by if by is None else by
    if rule.form is Form.QUANTILE:
        grown = _grown(Term(metric=f"{rule.metric}_bucket", where=rule.where), "rate", rule.window)
        buckets = _sum(_chosen(grown, rule), (*by, "le"))
        return f"histogram_quantile({rule.quantile:g}, {buckets})"
    part = _sum(_of_form(rule, rule), by)
    return part if rule.of is None else f"{part} / {_sum(_of_form(rule.of, rule), by)}"


def expression(rule: AlertRule) -> str:
    """What is true while a rule is broken."""
    compared = f"{number(rule)} {rule.sign} {rule.threshold:g}"
    if not rule.least_events:
        return compared
    counted = rule.of or Term(metric=f"{rule.metric}_count", where=rule.where)
    events = _sum(_chosen(_grown(counted, "increase", rule.window), rule), rule.by)
    return f"({compared}) and {events} >= {rule.least_events:g}"


def _of_form(term: Term, rule: AlertRule) -> str:
    return _chosen(selector(term) if rule.form is Form.VALUE else _grown(term, rule.form.value, rule.window), rule)


def _chosen(inner: str, rule: AlertRule) -> str:
    """Of the deployments that are meant: each of their series times 1."""
    return inner if rule.chosen is None else f"{inner} * on (model) group_left () {selector(rule.chosen)}"


def _grown(term: Term, how: str, window: float) -> str:
    return f"{how}({selector(term)}[{duration(window)}])"


def _sum(inner: str, by: tuple[str, ...]) -> str:
    return f"sum by ({', '.join(by)}) ({inner})" if by else f"sum({inner})"


def duration(seconds: float) -> str:
    """`5m`, `90s`, `1500ms`."""
    if seconds != int(seconds):
        return f"{round(seconds * 1000)}ms"
    whole = int(seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole and whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def rule_file(rules: Iterable[AlertRule]) -> str:
    """A file for `rule_files:` of Prometheus. JSON texts are YAML texts, so every text is written as one."""
    lines = ["groups:", "  - name: llm-os", "    rules:"]
    for rule in rules:
        fields: list[tuple[str, str]] = [("expr", _text(expression(rule)))]
        if rule.lasting:
            fields.append(("for", duration(rule.lasting)))
        if rule.keep:
            fields.append(("keep_firing_for", duration(rule.keep)))
        lines.append(f"      - alert: {_text(rule.name)}")
        lines += [f"        {name}: {value}" for name, value in fields]
        lines += ["        labels:", f"          severity: {rule.severity}"]
        lines.append("        annotations:")
        lines += [f"          {name}: {_text(_plain(text))}" for name, text in _annotations(rule).items()]
    return "\n".join(lines) + "\n"


def _annotations(rule: AlertRule) -> Mapping[str, str]:
    found = {"summary": rule.summary or f"{rule.name} is {rule.sign} {rule.threshold:g}."}
    return {**found, "next": rule.next} if rule.next else found


def _plain(text: str) -> str:
    """Annotations are templates: braces of a text are not to be taken for one."""
    return text.replace("{{", "{ {")


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
