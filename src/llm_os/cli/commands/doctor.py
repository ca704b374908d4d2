"""doctor: what this machine has, what is missing, and the cure."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import stat
import time
from typing import Any

import click

from llm_os import plugins
from llm_os.autopilot.policies.alert import step, title
from llm_os.cli.link import looking
from llm_os.cli.render import as_json_option, print_json, print_table
from llm_os.client.start import answers
from llm_os.drivers import host, versions
from llm_os.settings import Settings
from llm_os.spec import api
from llm_os.spec.alerts import AlertPage, AlertState
from llm_os.spec.deployments import Deployment, DeploymentState
from llm_os.spec.diagnoses import Cause
from llm_os.spec.jobs import Job
from llm_os.spec.units import format_bytes

LEAST_DISK = 5 * 2**30
"""Bytes: the packages, two models and a training's checkpoints."""
LEAST_MEMORY = 0.05
"""Share of the memory below which the system soon ends processes."""
RECENTLY = 86400.0
"""Seconds for which something that failed is still looked at."""
MOST_LOOKED_AT = 20


@click.command(epilog="Example: llm-os doctor")
@as_json_option
def doctor(as_json: bool) -> int:
    """Check this machine, and say what is wrong with what runs here. Exit code 1 if something must be mended."""
    found = [*_plugins("device"), *_plugins("engine"), *_launchers(), *_packages(), *_home(), *_work()]
    bad = [check for check in found if check["must"] and not check["good"]]
    if as_json:
        print_json({"good": not bad, "checks": found})
    else:
        rows = [(c["what"], "yes" if c["good"] else "no", c["detail"], "" if c["good"] else c["cure"]) for c in found]
        print_table(("WHAT", "GOOD", "DETAIL", "CURE"), rows, "")
        print("\nAll that is needed is there." if not bad else f"\n{len(bad)} of these must be mended.")
    return 1 if bad else 0


def _check(what: str, good: bool, detail: str, cure: str = "", *, must: bool = True) -> dict[str, Any]:
    return {"what": what, "good": good, "detail": detail, "cure": cure, "must": must}


def _probe(what: str, probe: Any, *, must: bool = False) -> dict[str, Any]:
    if hasattr(probe, "reason"):
        return _check(what, False, probe.reason, probe.hint, must=must)
    return _check(what, True, " ".join(part for part in (probe.version, probe.detail) if part), must=must)


def _plugins(family: str) -> list[dict[str, Any]]:
    names = [name for name in plugins.names(family) if name != "fake"]
    return [_probe(f"{family} {name}", plugins.load(family, name).probe(), must=name == "cpu") for name in names]


def _launchers() -> list[dict[str, Any]]:
    local = plugins.load("launcher", "local")(Settings())
    return [_probe("launcher local", local.probe(), must=True)]


def _home() -> list[dict[str, Any]]:
    settings = Settings()
    there = settings.home if settings.home.exists() else settings.home.parent
    running = answers(settings.socket)
    checks = [_check("kernel", running, "answers" if running else "none runs", "llm-os up", must=False)]
    if not there.exists() or not os.access(there, os.W_OK):
        return [*checks, _check("home", False, str(settings.home), "Set LLM_OS_HOME to a folder you may write to.")]
    memory = host.reading()
    share = memory.memory_available / memory.memory
    detail = f"{format_bytes(memory.memory_available)} of {format_bytes(memory.memory)} available"
    checks.append(_check("memory", share >= LEAST_MEMORY, detail, "llm-os ps shows who holds what.", must=False))
    free = shutil.disk_usage(there).free
    checks.append(_check("disk", free >= LEAST_DISK, f"{format_bytes(free)} free", "Free some space."))
    for name, port in (("management", settings.management_port), ("gateway", settings.gateway_port)):
        free_port = running or port == 0 or not _taken(port)
        cure = f"End that program, or set LLM_OS_{name.upper()}_PORT to another port, or to 0."
        who = "" if free_port else f", taken by {host.listener(port) or 'another program'}"
        checks.append(_check(f"port {name}", free_port, f"{port}{who}" if port else "any free one", cure))
    if settings.admin_key.exists():
        mode = stat.S_IMODE(settings.admin_key.stat().st_mode)
        checks.append(_check("admin key", mode == 0o600, oct(mode), f"chmod 600 {settings.admin_key}"))
    return [*checks, *_traces(settings.traces)]


def _traces(collector: str | None) -> list[dict[str, Any]]:
    if collector is None:
        return []
    package = "opentelemetry-exporter-otlp-proto-http"
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return [_check("traces", False, f"{package} is not installed", "pip install 'llm-os[traces]'", must=False)]
    return [_check("traces", True, f"{version}, to {collector}", must=False)]


def _packages() -> list[dict[str, Any]]:
    """Packages of a version that does not fit; nothing when all do."""
    wrong = versions.misfits()
    if not wrong:
        return [_check("packages", True, "every version fits", must=False)]
    return [_check(f"package {one.name}", False, str(one), one.command, must=not one.extra) for one in wrong]


def _work() -> list[dict[str, Any]]:
    """What is wrong with deployments, jobs and the gateway of the kernel that runs, and which alerts fire."""
    if not answers(Settings().socket):
        return []
    transport, now = looking(), time.time()
    deployments = transport.call("GET", "/v1/deployments", list[Deployment], params={"all": "true"})
    newest = {deployment.spec.name: deployment for deployment in deployments}  # they come oldest first
    subjects = [("gateway", "gateway", True)]
    for name, one in newest.items():
        if not one.state.ended or (one.state is DeploymentState.FAILED and now - (one.ended_at or now) < RECENTLY):
            subjects.append(("deployment", name, not one.state.ended))
    failed = transport.call("GET", "/v1/jobs", list[Job], params={"state": "failed", "limit": MOST_LOOKED_AT})
    subjects += [("job", job.id, False) for job in failed if now - (job.ended_at or now) < RECENTLY]
    checks = []
    for kind, name, lives in subjects[:MOST_LOOKED_AT]:
        found = transport.call("GET", f"/v1/why/{name}", api.Why)
        what = kind if kind == name else f"{kind} {name}"
        for number, diagnosis in enumerate(found.diagnoses):
            if number and diagnosis.cause is Cause.CRASH_LOOP:  # it follows from what was named before
                continue
            check = _check(what, False, diagnosis.sentence, diagnosis.next, must=lives)
            checks.append({**check, "cause": diagnosis.cause.value, "evidence": diagnosis.evidence})
        if not found.diagnoses and kind == "deployment":
            good = found.state == DeploymentState.READY.value
            checks.append(_check(what, good, found.sentence, f"llm-os logs {name}", must=False))
    page = transport.call("GET", "/v1/alerts", AlertPage)
    rules = {status.rule.name: status.rule for status in page.rules}
    for alert in page.alerts:
        if alert.state is AlertState.FIRING and (rule := rules.get(alert.rule)) is not None:
            checks.append(_check(f"alert {title(alert)}", False, rule.summary, step(rule, alert), must=False))
    return checks


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


COMMANDS = {"doctor": doctor}
