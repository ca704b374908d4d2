"""doctor: what this machine has, what is missing, and the cure."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import stat
from typing import Any

import click

from llm_os import plugins
from llm_os.cli.render import as_json_option, print_json, print_table
from llm_os.client.start import answers
from llm_os.settings import Settings
from llm_os.spec.units import format_bytes

LEAST_DISK = 5 * 2**30
"""Bytes: the packages, two models and a training's checkpoints."""


@click.command(epilog="Example: llm-os doctor")
@as_json_option
def doctor(as_json: bool) -> int:
    """Check this machine: devices, engines, launchers, disk, ports, keys. Exit code 1 if something must be mended."""
    found = [*_plugins("device"), *_plugins("engine"), *_launchers(), *_home()]
    bad = [check for check in found if check["must"] and not check["good"]]
    if as_json:
        print_json({"good": not bad, "checks": found})
    else:
        rows = [(c["what"], "yes" if c["good"] else "no", c["detail"], "" if c["good"] else c["cure"]) for c in found]
        print_table(("WHAT", "GOOD", "DETAIL", "CURE"), rows, "")
        print("\nAll that is needed is there." if not bad else f"\n{len(bad)} things must be mended.")
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
    free = shutil.disk_usage(there).free
    checks.append(_check("disk", free >= LEAST_DISK, f"{format_bytes(free)} free", "Free some space."))
    for name, port in (("management", settings.management_port), ("gateway", settings.gateway_port)):
        free_port = running or port == 0 or not _taken(port)
        cure = f"Set LLM_OS_{name.upper()}_PORT to another port, or to 0."
        checks.append(_check(f"port {name}", free_port, str(port) if port else "any free one", cure))
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


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


COMMANDS = {"doctor": doctor}
