"""A Grafana dashboard of what LLM OS exports: what is watched in general, then one panel for each rule. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llm_os.autopilot import promql
from llm_os.spec.alerts import AlertRule, Form

SOURCE = {"type": "prometheus", "uid": "${source}"}
WIDTH, HEIGHT = 8, 8
"""Of a panel, in units of Grafana's grid, which is 24 wide."""

G, K, H = "llm_os_gateway", "llm_os_kernel", "llm_os_host"
_OF = '{model=~"$model"}'

PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Requests", "reqps", ((f"sum by (model) (rate({G}_requests_total{_OF}[5m]))", "{{model}}"),)),
    (
        "Errors",
        "reqps",
        (
            (f'sum by (model, status) (rate({G}_requests_total{{model=~"$model",status=~"[45].*"}}[5m]))',
             "{{model}} {{status}}"),
            (f"sum by (code) (rate({G}_rejected_total[5m]))", "{{code}}"),
        ),
    ),
    (
        "Time to the first token",
        "s",
        tuple(
            (f"histogram_quantile({share}, sum by (model, le) (rate({G}_first_token_seconds_bucket{_OF}[5m])))",
             f"{{{{model}}}} p{share * 100:g}")
            for share in (0.5, 0.95)
        ),
    ),
    (
        "Time between tokens",
        "s",
        tuple(
            (f"histogram_quantile({share}, sum by (model, le) (rate({G}_between_tokens_seconds_bucket{_OF}[5m])))",
             f"{{{{model}}}} p{share * 100:g}")
            for share in (0.5, 0.95)
        ),
    ),
    (
        "Tokens a second",
        "short",
        ((f"sum by (model, direction) (rate({G}_tokens_total{_OF}[5m]))", "{{model}} {{direction}}"),),
    ),
    (
        "Prompt tokens from the cache",
        "percentunit",
        (
            (f"sum by (model) (rate({G}_prompt_tokens_cached_total{_OF}[5m])) / "
             f'sum by (model) (rate({G}_tokens_total{{model=~"$model",direction="in"}}[5m]))', "{{model}}"),
        ),
    ),
    (
        "Wait in the queue",
        "s",
        ((f"histogram_quantile(0.95, sum by (model, le) (rate({G}_queue_seconds_bucket{_OF}[5m])))",
          "{{model}} p95"),),
    ),
    (
        "Under way and waiting",
        "short",
        (
            (f"sum by (model) ({G}_in_flight{_OF})", "{{model}} under way"),
            (f"sum by (model) ({G}_waiting{_OF})", "{{model}} waiting"),
            (f"sum by (model) ({G}_slots{_OF})", "{{model}} slots"),
        ),
    ),
    (
        "Replicas",
        "short",
        (
            (f"sum by (model) ({K}_replicas_ready{_OF})", "{{model}} ready"),
            (f"sum by (model) ({K}_replicas_wanted{_OF})", "{{model}} wanted"),
            (f"sum by (model) (increase({K}_replicas_lost_total{_OF}[10m]))", "{{model}} lost in 10 min"),
        ),
    ),
    (
        "Says what PyTorch says",
        "percentunit",
        ((f"min by (model, where) (llm_os_deployment_parity{_OF})", "{{model}} {{where}}"),),
    ),
    ("Jobs", "short", ((f"sum by (state) ({K}_jobs)", "{{state}}"),)),
    (
        "Memory",
        "bytes",
        (
            (f"sum({H}_memory_available_bytes)", "available on the machine"),
            (f"sum({K}_memory_free_bytes)", "granted and not promised"),
            (f"sum by (model) ({K}_replica_memory_bytes{_OF})", "{{model}}"),
        ),
    ),
    ("Disk", "bytes", ((f"sum({H}_disk_free_bytes)", "free"), (f"sum({H}_disk_bytes)", "size"))),
    (
        "Cores held back",
        "s",
        ((f"sum(rate({H}_throttled_seconds_total[5m]))", "seconds a second"),),
    ),
)  # fmt: skip
"""Title, unit, and expressions with their legends."""


def dashboard(rules: Iterable[AlertRule]) -> dict[str, Any]:
    """The dashboard's JSON, to be imported as it is."""
    panels: list[dict[str, Any]] = []
    for title, unit, targets in PANELS:
        panels.append(_panel(len(panels), title, unit, targets))
    for rule in rules:
        legend = " ".join(f"{{{{{label}}}}}" for label in rule.by) or rule.name
        panel = _panel(len(panels), f"Alert: {rule.name}", _unit(rule), ((promql.number(rule), legend),))
        panel["description"] = f"{rule.summary} {rule.next}".strip()
        panel["fieldConfig"]["defaults"]["thresholds"] = _thresholds(rule)
        panel["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"] = {"mode": "line+area"}
        panels.append(panel)
    model = {
        "name": "model", "label": "Deployment", "type": "query", "datasource": SOURCE, "refresh": 2,
        "query": f"label_values({G}_requests_total, model)", "includeAll": True, "allValue": ".*", "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "title": "LLM OS",
        "uid": "llm-os",
        "tags": ["llm-os"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source, model]},
        "panels": panels,
    }


def _panel(number: int, title: str, unit: str, targets: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    row, column = divmod(number, 24 // WIDTH)
    return {
        "id": number + 1,
        "title": title,
        "type": "timeseries",
        "datasource": SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "custom": {}, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for at, (expression, legend) in enumerate(targets)
        ],
    }


def _unit(rule: AlertRule) -> str:
    if rule.of is not None:
        return "percentunit"
    if rule.form in {Form.VALUE, Form.QUANTILE}:
        return "bytes" if rule.metric.endswith("_bytes") else "s" if rule.metric.endswith("_seconds") else "short"
    return "short"


def _thresholds(rule: AlertRule) -> dict[str, Any]:
    good, bad = ("green", "red") if rule.above is not None else ("red", "green")
    steps = [{"color": good, "value": None}, {"color": bad, "value": rule.threshold}]
    return {"mode": "absolute", "steps": steps}
