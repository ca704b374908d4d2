"""up, down, status: the kernel itself."""

from __future__ import annotations

import contextlib
import os
import time

import click

from llm_os.cli.commands.service import keeps_up
from llm_os.cli.link import looking
from llm_os.cli.render import ago, as_json_option, print_json
from llm_os.client.start import answers, ensure_kernel
from llm_os.client.transport import Transport
from llm_os.errors import KernelUnavailableError, LLMOSError
from llm_os.settings import Settings
from llm_os.spec import api

DOWN_SECONDS = 60.0


@click.command(epilog="Example: llm-os up")
@click.option("--foreground", is_flag=True, help="Stay in this terminal; Ctrl-C ends it.")
@click.option("--ephemeral", is_flag=True, help="End when the last session and the last work have ended.")
@as_json_option
def up(foreground: bool, ephemeral: bool, as_json: bool) -> int:
    """Start the kernel of this home, to stay. Returns when it answers."""
    settings = Settings()
    if foreground:
        import sys

        flags = ["--ephemeral"] if ephemeral else []
        os.execv(sys.executable, [sys.executable, "-m", "llm_os.app", *flags])  # noqa: S606 - our own module, no shell
    started = ensure_kernel(settings.home, settings.socket, ephemeral=ephemeral)
    status = looking().call("GET", "/v1/status", api.KernelStatus)
    if as_json:
        print_json({"started": started, **status.model_dump(mode="json")})
    else:
        print(f"The kernel {'was started' if started else 'runs already'} (process {status.pid}) in {status.home}.")
        print(f"Its API answers at {status.management}; `llm-os down` ends it.")
    return 0


@click.command(epilog="Example: llm-os down --keep")
@click.option("--keep", is_flag=True, help="Leave jobs and replicas running; the next kernel adopts them.")
@as_json_option
def down(keep: bool, as_json: bool) -> int:
    """End the kernel and everything it runs."""
    settings = Settings()
    if not answers(settings.socket):
        none = {"ended": [], "kept": [], "started_again": False}
        print_json(none) if as_json else print("No kernel runs in this home.")
        return 0
    transport = looking()
    again = False
    with contextlib.suppress(LLMOSError, ValueError):  # a kernel of another release is ended as well
        again = keeps_up(_status(transport).pid)
    report = transport.call("POST", "/v1/shutdown", api.ShutdownReport, body=api.ShutdownRequest(keep=keep))
    until = time.monotonic() + DOWN_SECONDS
    while answers(settings.socket) and time.monotonic() < until:
        time.sleep(0.1)
    if answers(settings.socket):
        raise KernelUnavailableError("The kernel is still ending things.", hint="Look again with `llm-os status`.")
    if as_json:
        print_json({**report.model_dump(mode="json"), "started_again": again})
    else:
        print(f"The kernel has ended. Ended with it: {', '.join(report.ended) or 'nothing'}.")
        if report.kept:
            print(f"Goes on: {', '.join(report.kept)}.")
        if again:
            print("The service starts it again in a second. To end it for good: systemctl --user stop llm-os")
    return 0


@click.command(epilog="Example: llm-os status --json")
@as_json_option
def status(as_json: bool) -> int:
    """What runs where: kernel, gateway, counts."""
    settings = Settings()
    found: api.KernelStatus | None = None
    with contextlib.suppress(KernelUnavailableError):
        found = _status(looking())
    if found is None:
        if as_json:
            print_json({"running": False, "home": str(settings.home)})
        else:
            print(f"No kernel runs in {settings.home}. `llm-os up` starts one.")
        return 0
    if as_json:
        print_json({"running": True, **found.model_dump(mode="json")})
        return 0
    kind = ", ends with its last work" if found.ephemeral else ""
    print(f"Kernel       process {found.pid}, started {ago(found.started_at)}{kind}, version {found.version}")
    print(f"Home         {found.home}")
    print(f"API          {found.management}")
    print(f"Gateway      {found.gateway or 'not ready; see `llm-os why gateway`'}")
    print(f"Jobs         {_counts(found.jobs)}")
    print(f"Deployments  {_counts(found.deployments)}")
    print(f"Sessions     {found.sessions}")
    return 0


def _status(transport: Transport) -> api.KernelStatus:
    try:
        return transport.call("GET", "/v1/status", api.KernelStatus)
    except LLMOSError as error:
        raise KernelUnavailableError(str(error)) from error


def _counts(counts: object) -> str:
    return ", ".join(f"{number} {name}" for name, number in dict(counts).items()) or "none"  # type: ignore[call-overload]


COMMANDS = {"up": up, "down": down, "status": status}
