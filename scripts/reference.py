"""Writes docs/reference and deploy/ from the code, so that they cannot drift; `--check` fails when a file did."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import openapi_page
from pydantic import BaseModel

import llm_os
from llm_os import errors, plugins
from llm_os.autopilot.grafana import dashboard
from llm_os.autopilot.promql import duration, expression, rule_file
from llm_os.autopilot.rules import DEFAULTS
from llm_os.cli.main import VERBS, cli
from llm_os.server.gateway import openapi
from llm_os.server.gateway.metrics import Metrics
from llm_os.server.management import metrics
from llm_os.server.management.app import build
from llm_os.settings import Settings
from llm_os.spec.base import descriptions
from llm_os.spec.conditions import Reason
from llm_os.spec.diagnoses import Cause
from llm_os.spec.events import EventKind
from llm_os.spec.measures import DeploymentMeasures, HostReading, Measures

ROOT = Path(__file__).parent.parent
REFERENCE = "docs/reference"
NOTE = "<!-- Written by scripts/reference.py from the code. Change the code, then run `make reference`. -->\n"


def table(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |")
    return "\n".join(lines) + "\n"


def options(model: type[BaseModel]) -> str:
    def shown(field: Any) -> str:
        if field.is_required():
            return "required"
        return "computed" if field.default_factory else f"`{field.default!r}`"

    told = descriptions(model)
    rows = [(f"`{name}`", shown(field), told.get(name, "")) for name, field in model.model_fields.items()]
    return table(("Option", "Default", "Meaning"), rows) if rows else "No options.\n"


def settings_page() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        default = "computed" if field.default_factory else f"`{field.default}`"
        rows.append((f"`LLM_OS_{name.upper()}`", default, field.description or ""))
    return f"# Settings\n\n{NOTE}\nRead from the environment.\n\n" + table(("Variable", "Default", "Meaning"), rows)


def errors_page() -> str:
    rows = [
        (f"`{cls.__name__}`", f"`{code}`", cls.status, cls.exit_code, "yes" if cls.retryable else "no")
        for code, cls in sorted(errors.by_code().items())
    ]
    tree = (errors.__doc__ or "").split("```")[1]
    text = (
        f"# Errors\n\n{NOTE}\nAll are in `llm_os.errors`; each has `code`, `message`, `hint`, `retryable`, `details`.\n"
    )
    return text + f"\n```text{tree}```\n\n" + table(("Class", "Code", "HTTP", "Exit code", "Retryable"), rows)


def vocabulary_page() -> str:
    reasons = ", ".join(f"`{reason.value}`" for reason in Reason)
    kinds = ", ".join(f"`{kind.value}`" for kind in EventKind)
    causes = ", ".join(f"`{cause.value}`" for cause in Cause)
    return (
        f"# Reasons and events\n\n{NOTE}\nReasons of conditions and refusals: {reasons}.\n\nKinds of events: {kinds}.\n"
        f"\nCauses of diagnoses ([how they are found](../how-to/diagnose.md)): {causes}.\n"
    )


def plugins_page() -> str:
    parts = [f"# Plugins\n\n{NOTE}"]
    for family in plugins.FAMILIES:
        parts.append(f"\n## {family}\n")
        for name in plugins.names(family):
            plugin = plugins.load(family, name)
            doc = inspect.getdoc(inspect.getmodule(type(plugin) if not inspect.isclass(plugin) else plugin)) or ""
            parts.append(f"\n### `{name}`\n\n{doc.splitlines()[0] if doc else ''}\n")
            model = getattr(plugin, "Options", None)
            if model is not None:
                parts.append("\n" + options(model))
    return "\n".join(parts).replace("\n\n\n", "\n\n")


def command_line_page() -> str:
    parts = [f"# Command line\n\n{NOTE}\n`llm-os COMMAND --help` shows the same. Every command takes `--json`.\n"]
    with click.Context(cli, info_name="llm-os") as root:
        for verb in VERBS:
            command = cli.get_command(root, verb)
            assert command is not None
            parts += commands(root, verb, command)
    return "\n".join(parts)


def commands(parent: click.Context, name: str, command: click.Command) -> Iterable[str]:
    """A command, then the commands below it."""
    with click.Context(command, parent=parent, info_name=name) as context:
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        rows = [record for param in command.params if (record := param.get_help_record(context))]
        title = context.command_path.removeprefix("llm-os ")
        yield f"## {title}\n\n{inspect.cleandoc(command.help or '')}\n\n```text\n{usage}\n```\n"
        yield table(("Option", "Meaning"), [(f"`{names}`", text) for names, text in rows])
        if command.epilog:
            yield f"{command.epilog}`\n".replace("Example: ", "Example: `")
        if isinstance(command, click.Group):
            for below, found in command.commands.items():
                yield from commands(context, below, found)


def signature(name: str, function: Any) -> str:
    """`name(argument: type = default) -> type`, without the quotes that postponed annotations have."""
    text = re.sub(r"(: |-> )(?:'([^']*)'|\"([^\"]*)\")", r"\1\2\3", str(inspect.signature(function)))
    return f"{name}{text}".replace("(self, ", "(").replace("(self)", "()")


def documented(name: str, function: Any) -> str:
    first, _, rest = (inspect.getdoc(function) or "").partition("\n\n")
    shown = f"```python\n{signature(name, function)}\n```\n\n{first}\n"
    return shown + (f"\n```text\n{rest}\n```\n" if rest else "")


def python_page() -> str:
    parts = [f"# Python\n\n{NOTE}\nEverything below is a name of `llm_os`. Its errors: [errors](errors.md).\n"]
    for name in llm_os.__all__:
        value = getattr(llm_os, name)
        if inspect.isfunction(value):
            parts.append(f"## {name}\n\n{documented(name, value)}")
        elif inspect.isclass(value):
            first, _, rest = (inspect.getdoc(value) or "").partition("\n\n")
            parts.append(f"## {name}\n\n{first}\n" + (f"\n```text\n{rest}\n```\n" if rest else ""))
            parts += members(value)
    return "\n".join(parts)


def members(cls: type) -> Iterable[str]:
    for name, value in sorted(vars(cls).items()):
        if name.startswith("_"):
            continue
        if isinstance(value, property):
            yield f"### {cls.__name__}.{name}\n\n{inspect.getdoc(value) or ''}\n"
        elif inspect.isfunction(value) and inspect.getdoc(value):
            yield f"### {cls.__name__}.{name}\n\n{documented(name, value)}"


def gateway_page() -> str:
    text = (
        f"# Gateway\n\n{NOTE}\n`GET /openapi.json` of the gateway serves this as OpenAPI, without a key. How requests"
        " fare: [the life of a request](../explanation/life-of-a-request.md). Errors: [errors](errors.md).\n\n"
    )
    return text + openapi_page.page(openapi.document(), table)


def management_page() -> str:
    text = (
        f"# Management API\n\n{NOTE}\n`GET /openapi.json` of the kernel serves this as OpenAPI. Over TCP all but"
        " `/health` needs the key of the home. An error is"
        ' `{"error": {"code", "message", "hint", "retryable", "details"}}` with the status of its class:'
        " [errors](errors.md).\n\n"
    )
    nothing: Any = None  # routes ask the syscalls when they are called
    document = build(nothing, Settings()).openapi()
    for methods in document["paths"].values():
        for operation in methods.values():
            del operation["responses"]["default"]  # said once, above
    return text + openapi_page.page(document, table)


def exported(text: str) -> Iterable[tuple[str, str, str, str]]:
    """Name, type, labels and meaning of every metric of a page that has a series of each."""
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    for name, meaning in re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE):
        if name.endswith("_created"):
            continue
        series = re.search(rf"^{name}(?:_bucket)?\{{(.*)\}}", text, re.MULTILINE)
        labels = [label for label in re.findall(r'(\w+)="', series[1] if series else "") if label != "le"]
        yield f"`{name}`", types[name], ", ".join(f"`{label}`" for label in labels), meaning


def metrics_page() -> str:
    """Read off the real registries, with one made-up series of each."""
    gateway = Metrics()
    for one in vars(gateway).values():
        if labels := getattr(one, "_labelnames", ()):
            one.labels(*labels)
    host = HostReading(memory=1, memory_available=1, oom_kills=0, throttled_seconds=0, thermal_throttles=0, frequency=1)
    kernel = Measures(
        host=host, disk=1, disk_free=1, memory_granted=1, memory_free=1, cpus_granted=1, cpus_free=1, gateway_up=True,
        deployments={"chat": DeploymentMeasures(wanted=1, ready=1, memory=1)}, lost={"chat": 0}, jobs={"running": 1},
    )  # fmt: skip
    header = ("Metric", "Type", "Labels", "Meaning")
    rules = [
        (f"`{r.name}`", r.severity, f"`{expression(r)}`", duration(r.lasting) if r.lasting else "", r.summary, r.next)
        for r in DEFAULTS
    ]
    return (
        f"# Metrics and alerts\n\n{NOTE}\nBoth pages need a key with the role `monitor` or `admin`. `model` is a "
        "deployment's name.\n\n## Gateway: `GET /metrics` on port 7601\n\n"
        + table(header, exported(gateway.page().decode()))
        + "\n## Kernel and machine: `GET /metrics` on port 7600\n\n"
        + table(header, exported(metrics.page(kernel).decode()))
        + "\n## Alert rules that are on\n\n"
        + table(("Rule", "Severity", "Fires while", "For", "What it means", "What to do"), rules)
    )


def pages() -> dict[str, str]:
    return {
        f"{REFERENCE}/settings.md": settings_page(),
        f"{REFERENCE}/errors.md": errors_page(),
        f"{REFERENCE}/reasons-and-events.md": vocabulary_page(),
        f"{REFERENCE}/plugins.md": plugins_page(),
        f"{REFERENCE}/command-line.md": command_line_page(),
        f"{REFERENCE}/python.md": python_page(),
        f"{REFERENCE}/gateway.md": gateway_page(),
        f"{REFERENCE}/management.md": management_page(),
        f"{REFERENCE}/metrics.md": metrics_page(),
        "deploy/prometheus-alerts.yml": rule_file(DEFAULTS),
        "deploy/grafana-dashboard.json": json.dumps(dashboard(DEFAULTS), ensure_ascii=False, indent=1) + "\n",
    }


def main() -> int:
    stale = []
    for name, text in pages().items():
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"Out of date: {', '.join(stale)} of the generated files. Run `make reference` and commit the result.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
