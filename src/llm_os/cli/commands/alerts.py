"""alerts: which rules are in force, what each is now, and the same rules for Prometheus and Grafana."""

from __future__ import annotations

import json
import sys

import click

from llm_os.autopilot.grafana import dashboard
from llm_os.autopilot.policies.alert import shown, step, title
from llm_os.autopilot.promql import rule_file
from llm_os.autopilot.rules import load
from llm_os.cli.link import looking
from llm_os.cli.render import ago, as_json_option, print_json, print_table
from llm_os.settings import Settings
from llm_os.spec.alerts import Alert, AlertPage, AlertRule, RuleStatus
from llm_os.spec.units import format_duration


@click.command(epilog="Example: llm-os alerts")
@click.option(
    "--format",
    "as_format",
    type=click.Choice(["table", "prometheus", "grafana"]),
    default="table",
    show_default=True,
    help="The rules as a file for Prometheus or a dashboard for Grafana; needs no kernel.",
)
@as_json_option
def alerts(as_format: str, as_json: bool) -> int:
    """Show the alert rules in force and what each is now. Rules of your own: alerts.toml in the home."""
    if as_format != "table":
        rules = load(Settings().alerts).rules
        if as_format == "prometheus":
            print(rule_file(rules), end="")
        else:
            print(json.dumps(dashboard(rules), ensure_ascii=False, indent=1))
        return 0
    page = looking().call("GET", "/v1/alerts", AlertPage)
    if as_json:
        print_json(page)
        return 0
    for problem in page.problems:
        print(problem, file=sys.stderr)
    if page.evaluated_at is None:
        off = not Settings().alerts_every
        print("Nobody looks: LLM_OS_ALERTS_EVERY is 0." if off else "The kernel has not looked yet; ask again.")
        return 0
    columns = ("RULE", "STATE", "OF", "NOW", "THRESHOLD", "FOR", "SINCE")
    print_table(columns, [row for status in page.rules for row in _rows(status, page)], "There are no rules.")
    print(f"\nLooked {ago(page.evaluated_at)}. {_next(page)}")
    return 0


def _rows(status: RuleStatus, page: AlertPage) -> list[tuple[str, ...]]:
    rule = status.rule
    bound = f"{rule.sign} {shown(rule, rule.threshold)}"
    lasting = format_duration(rule.lasting) if rule.lasting else ""
    name = rule.name + (" (own)" if status.own else "")
    if status.problem:
        return [(name, "no number", status.problem, "", bound, lasting, "")]
    firing = {tuple(alert.labels.items()): alert for alert in page.alerts if alert.rule == rule.name}
    numbers = {tuple(labels.items()): value for labels, value in status.values}
    rows: list[tuple[str, ...]] = []
    for labels in sorted(set(firing) | set(numbers)):
        alert: Alert | None = firing.get(labels)
        state = alert.state.value if alert else "ok"
        of = ", ".join(value for _, value in labels)
        now = shown(rule, numbers.get(labels))
        rows.append((name, state, of, now, bound, lasting, ago(alert.since) if alert else ""))
    return rows or [(name, "ok", "", "-", bound, lasting, "")]


def _next(page: AlertPage) -> str:
    rules: dict[str, AlertRule] = {status.rule.name: status.rule for status in page.rules}
    fired = [alert for alert in page.alerts if alert.state.value == "firing" and alert.rule in rules]
    if not fired:
        return "Nothing fires."
    return "\n".join(f"{title(alert)}: {step(rules[alert.rule], alert) or 'fires'}." for alert in fired)


COMMANDS = {"alerts": alerts}
