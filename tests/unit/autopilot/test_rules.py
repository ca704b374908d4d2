"""Rules in force: defaults and the home's file, with what is wrong in it named; the same rules as PromQL."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_os.autopilot import promql
from llm_os.autopilot.grafana import dashboard
from llm_os.autopilot.history import series_of
from llm_os.autopilot.rules import DEFAULTS, load, load_or_defaults, secret
from llm_os.errors import InvalidInputError
from llm_os.server.gateway.metrics import Metrics
from llm_os.server.management import metrics
from llm_os.spec.alerts import AlertRule
from llm_os.spec.measures import DeploymentMeasures, HostReading, Measures

NAMES = [rule.name for rule in DEFAULTS]


def written(folder: Path, text: str) -> Path:
    path = folder / "alerts.toml"
    path.write_text(text)
    return path


def test_without_a_file_the_defaults_are_in_force(tmp_path: Path) -> None:
    assert load(tmp_path / "alerts.toml").rules == DEFAULTS


def test_own_rules_add_replace_and_switch_off(tmp_path: Path) -> None:
    text = """
    disable = ["throttled"]

    [[rule]]
    name = "error-rate"
    metric = "llm_os_gateway_requests_total"
    where = { model = "chat", status = "5*" }
    of = { metric = "llm_os_gateway_requests_total", where = { model = "chat" } }
    form = "rate"
    above = 0.01
    for = "1m"

    [[rule]]
    name = "chat-is-slow"
    metric = "llm_os_gateway_first_byte_seconds"
    form = "quantile"
    quantile = 0.9
    where = { model = "chat" }
    above = 1.5
    window = "10m"
    notify = ["oncall"]

    [webhook.oncall]
    url_file = "oncall.url"

    [mail.ops]
    command = ["sendmail", "-t"]
    to = "ops@example.org"
    """
    rules = load(written(tmp_path, text))
    assert [rule.name for rule in rules.rules] == [n for n in NAMES if n != "throttled"] + ["chat-is-slow"]
    found = {rule.name: rule for rule in rules.rules}
    assert (found["error-rate"].above, found["error-rate"].lasting) == (0.01, 60)
    assert found["chat-is-slow"].window == 600
    assert rules.own == {"error-rate", "chat-is-slow"}
    assert (set(rules.webhooks), set(rules.mails)) == ({"oncall"}, {"ops"})


RULE = '[[rule]]\nname = "a"\nmetric = "x"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[rule]\n", "it is not TOML: .*line 1"),
        (RULE, r"rule 1 \('a'\): give a threshold: either 'above' or 'below'"),
        (RULE + "above = 1\nbelow = 1", "either 'above' or 'below'"),
        (RULE + "above = 1\n" + RULE + "above = 'high'", r"rule 2 \('a'\), above: "),
        (RULE + "above = 1\nabov = 2", r"rule 1 \('a'\), abov: Extra inputs"),
        (RULE + "above = 1\nform = 'median'", r"rule 1 \('a'\), form: "),
        (RULE + "above = 1\nform = 'quantile'", "'quantile' \\(such as 0.95\\) belongs"),
        (RULE + "above = 1\nfor = 'a while'", r"rule 1 \('a'\), for: .*30s"),
        (RULE + "above = nan", r"rule 1 \('a'\), above: "),
        (RULE + "above = 1\nleast_events = 3", "'least_events' belongs to quantiles and to shares of counters"),
        (RULE + "above = 1\nwindow = 0", r"rule 1 \('a'\), window: "),
        ("rule = 3", "rule: "),
        ("rule = [3]", "rule 1: "),
        (RULE + "above = 1\n" + RULE + "above = 2", "two rules are named 'a'"),
        ("disable = ['throtled']", "no default rule 'throtled'. Did you mean 'throttled'"),
        (RULE + "above = 1\nnotify = ['oncal']\n[webhook.oncall]\nurl = 'http://x'", "Did you mean 'oncall'"),
        ("[webhook.a]\n", "webhook, a: give either 'url' or 'url_file'"),
        ("[webhook.a]\nurl = 'ftp://x'", "webhook, a, url: "),
        ("[mail.a]\ncommand = 'sendmail -t'\nto = 'a@b'", "mail, a, command: "),
        ("[mail.a]\ncommand = []\nto = 'a@b'", "mail, a, command: "),
        ('[mail.a]\ncommand = ["x"]\nto = "a@b\\nBcc: c@d"', "mail, a, to: "),
        ("\xff", "."),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_the_defaults_stay(tmp_path: Path, text: str, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InvalidInputError, match=says) as caught:
        load(path)
    assert str(path) in caught.value.message
    rules = load_or_defaults(path)
    assert rules.rules == DEFAULTS
    assert re.search(says, rules.problem)


def test_a_secret_is_taken_from_a_private_file_only(tmp_path: Path) -> None:
    file = tmp_path / "hook"
    with pytest.raises(InvalidInputError, match="cannot be read"):
        secret("hook", tmp_path)
    file.write_text("https://hooks.example/T0\n")
    file.chmod(0o644)
    with pytest.raises(InvalidInputError, match="Others may read"):
        secret("hook", tmp_path)
    file.chmod(0o600)
    assert secret("hook", tmp_path) == "https://hooks.example/T0"
    file.write_text("")
    with pytest.raises(InvalidInputError, match="is empty"):
        secret("hook", tmp_path)


def a_rule(**fields: Any) -> AlertRule:
    return AlertRule.model_validate({"name": "r", "metric": "x", "above": 1, **fields})


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (a_rule(), "sum(x) > 1"),
        (a_rule(above=None, below=0.5, by=["model"]), "sum by (model) (x) < 0.5"),
        (a_rule(form="rate", window="5m", where={"status": "5*"}), 'sum(rate(x{status=~"5.*"}[5m])) > 1'),
        (a_rule(form="increase", window="90s", where={"a": 'q"'}), 'sum(increase(x{a="q\\""}[90s])) > 1'),
        (
            a_rule(form="rate", of={"metric": "y"}, least_events=10),
            "(sum(rate(x[5m])) / sum(rate(y[5m])) > 1) and sum(increase(y[5m])) >= 10",
        ),
        (
            a_rule(form="quantile", quantile=0.95, by=["model"], window="1h", least_events=5),
            "(histogram_quantile(0.95, sum by (model, le) (rate(x_bucket[1h]))) > 1) "
            "and sum by (model) (increase(x_count[1h])) >= 5",
        ),
        (
            a_rule(form="rate", by=["model"], labelled={"on-call": "me"}),
            'sum by (model) (rate(x[5m]) * on (model) group_left () llm_os_deployment_info{label_on_call="me"}) > 1',
        ),
        (a_rule(where={"a": "1.5*"}), r'sum(x{a=~"1\\.5.*"}) > 1'),
    ],
)
def test_rules_are_written_as_promql(rule: AlertRule, expected: str) -> None:
    assert promql.expression(rule) == expected


def test_the_rule_file_is_yaml_that_prometheus_takes() -> None:
    (group,) = yaml.safe_load(promql.rule_file(DEFAULTS))["groups"]
    assert [rule["alert"] for rule in group["rules"]] == NAMES
    for rule, default in zip(group["rules"], DEFAULTS, strict=True):
        assert set(rule) <= {"alert", "expr", "for", "keep_firing_for", "labels", "annotations"}
        assert rule["expr"] == promql.expression(default)
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert rule["labels"] == {"severity": default.severity}
        assert rule["annotations"]["summary"]
        for field in ("for", "keep_firing_for"):
            assert re.fullmatch(r"[0-9]+(ms|[smhd])", rule.get(field, "0s"))


def exported() -> dict[str, tuple[str, set[str]]]:
    """Every series that the code exports, with its type and labels: read off the real registries."""
    gateway = Metrics()
    series = gateway.of("/v1/chat/completions", "chat", "writer@1", "default")
    series.answered(200)
    for used in (series.duration, series.first_byte, series.first_token, series.between, series.queued):
        used.observe(1)
    series.tokens_in.inc(1)
    series.tokens_cached.inc(1)
    for labelled in (gateway.in_flight, gateway.waiting, gateway.slots, gateway.retried, gateway.broken):
        labelled.labels("chat")
    gateway.rejected.labels("overloaded").inc()
    host = HostReading(memory=2, memory_available=1, oom_kills=0, throttled_seconds=0, thermal_throttles=0, frequency=1)
    one = DeploymentMeasures(wanted=1, ready=1, memory=1, labels={"on-call": "me"}, parity={"sure": 1, "everywhere": 1})
    kernel = Measures(
        host=host, disk=2, disk_free=1, memory_granted=2, memory_free=1, cpus_granted=1, cpus_free=1, gateway_up=True,
        deployments={"chat": one}, lost={"chat": 0}, jobs={"running": 1},
    )  # fmt: skip
    found: dict[str, tuple[str, set[str]]] = {}
    for text in (gateway.page().decode(), metrics.page(kernel).decode()):
        types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
        for line in text.splitlines():
            if not line.startswith("#"):
                name = re.split(r"[{ ]", line)[0]
                kind = types.get(name) or types.get(re.sub(r"_(bucket|count|sum)$", "", name), "?")
                labels = set(re.findall(r'(\w+)="', line))
                found.setdefault(name, (kind, set()))[1].update(labels)
    return found


def named(expression: str) -> list[tuple[str, set[str]]]:
    """Metrics of an expression with the labels that it filters by."""
    found = re.findall(r"(llm_os_\w+)(?:\{([^}]*)\})?", expression)
    return [(name, set(re.findall(r"(\w+)=", labels))) for name, labels in found]


def every_expression() -> list[str]:
    panels = [target["expr"] for panel in dashboard(DEFAULTS)["panels"] for target in panel["targets"]]
    return [*panels, *(promql.expression(rule) for rule in DEFAULTS)]


def test_every_expression_names_what_the_code_exports() -> None:
    known = exported()
    expressions = every_expression()
    assert len(expressions) > 30
    for expression in expressions:
        assert named(expression), expression
        for name, labels in named(expression):
            assert name in known, f"{expression} names {name}"
            assert labels <= known[name][1], f"{expression} filters {name} by {labels}"
            for group in re.findall(r"by \(([^)]*)\)", expression):
                assert set(group.split(", ")) <= known[name][1] | {"le"}, f"{expression} groups {name} by {group}"
    for rule in DEFAULTS:
        assert series_of(rule) <= set(known)


def test_counters_only_have_rates() -> None:
    known = exported()
    for expression in every_expression():
        for name in re.findall(r"(?:rate|increase)\((\w+)", expression):
            assert known[name][0] in {"counter", "histogram"}, expression
        if "rate(" not in expression and "increase(" not in expression:
            assert {known[name][0] for name, _ in named(expression)} == {"gauge"}, expression


def test_the_dashboard_has_a_panel_for_each_rule_with_its_threshold_and_none_lies_on_another() -> None:
    board = dashboard(DEFAULTS)
    json.dumps(board)
    panels = {panel["title"]: panel for panel in board["panels"]}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) == len(panels)
    for rule in DEFAULTS:
        panel = panels[f"Alert: {rule.name}"]
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert steps[1] == {"color": "red" if rule.above is not None else "green", "value": rule.threshold}
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
    assert len(set(places)) == len(places)
    assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in board["panels"])


def test_an_own_rule_has_a_panel_too() -> None:
    titles = [panel["title"] for panel in dashboard([*DEFAULTS, a_rule(name="mine")])["panels"]]
    assert titles[-1] == "Alert: mine"


def test_the_kernel_tells_parity_and_labels_of_each_deployment() -> None:
    known = exported()
    assert known["llm_os_deployment_parity"] == ("gauge", {"model", "version", "where"})
    assert known["llm_os_deployment_info"] == ("gauge", {"model", "version", "engine", "label_on_call"})
