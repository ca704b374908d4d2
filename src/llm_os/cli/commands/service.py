"""service: a systemd unit of this user that keeps the kernel of this home up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

from llm_os.cli.render import as_json_option, print_json
from llm_os.client.start import answers
from llm_os.errors import ConflictError, NotFoundError
from llm_os.settings import Settings

UNIT = "llm-os.service"
TEMPLATE = """# Written by `llm-os service install`; `llm-os service uninstall` removes it.
[Unit]
Description=LLM OS: the kernel of {home}
StartLimitIntervalSec=0

[Service]
Type=exec
EnvironmentFile={environment}
ExecStart={python} -m llm_os.app
ExecStop={python} -m llm_os.cli.main down
Restart=always
RestartSec=1
# Jobs and replicas outlive a kernel that dies; the next one adopts them. `down` ends them.
KillMode=process
OOMPolicy=continue
Delegate=yes
TimeoutStopSec=90

[Install]
WantedBy=default.target
"""
_WAIT = 30.0
"""Seconds that systemctl gets."""


def quoted(text: str) -> str:
    """As a word of a unit's line: systemd expands percent signs, dollars and backslashes. Raises ConflictError."""
    if any(ord(letter) < 32 for letter in text):
        raise ConflictError(f"'{text!r}' holds control characters, which no unit can.", hint="Choose another folder.")
    doubled = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{doubled}"'


def unit(settings: Settings, python: str) -> str:
    """The unit's text."""
    path = settings.home / "service.env"
    return TEMPLATE.format(
        home=str(settings.home).replace("%", "%%"), environment=str(path).replace("%", "%%"), python=quoted(python)
    )


def keeps_up(pid: int) -> bool:
    """Whether systemd starts this kernel again when it ends: it is the service's, and the service is not ending."""
    return _of_service(pid) and not _of_service(os.getpid())  # at its end the service itself says `llm-os down`


def _of_service(pid: int, processes: Path = Path("/proc")) -> bool:
    try:
        groups = (processes / str(pid) / "cgroup").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(group.endswith(f"/{UNIT}") for group in groups.splitlines())


def environment(settings: Settings) -> str:
    """What this shell says of LLM OS, for the service; the home is always named."""
    told = {name: value for name, value in os.environ.items() if name.startswith("LLM_OS_") and value}
    told["LLM_OS_HOME"] = str(settings.home.absolute())
    return "".join(f"{name}={_for_a_file(value)}\n" for name, value in sorted(told.items()))


def _for_a_file(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`")
    return f'"{escaped}"'


def _place() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "systemd" / "user" / UNIT


def _systemctl(*words: str) -> str | None:
    """Why it did not work; None if it did."""
    command = shutil.which("systemctl")
    if command is None:
        return "there is no systemctl here"
    try:
        done = subprocess.run([command, "--user", *words], capture_output=True, text=True, timeout=_WAIT)
    except subprocess.TimeoutExpired:
        return f"systemctl said nothing for {_WAIT:.0f} s"
    said = (done.stderr or done.stdout).strip().splitlines()
    return None if done.returncode == 0 else (said[-1] if said else f"systemctl ended with {done.returncode}")


@click.group(epilog="Example: llm-os service install")
@click.option("--json", is_flag=True, expose_value=False, hidden=True)
def service() -> None:
    """Keep the kernel up across crashes and reboots, by systemd. Each of its commands knows --json."""


@service.command(epilog="Example: llm-os service install --show")
@click.option("--show", is_flag=True, help="Print the unit, write nothing.")
@as_json_option
def install(show: bool, as_json: bool) -> int:
    """Write the unit of this user, and start it. What runs already is adopted."""
    settings, place = Settings(), _place()
    text = unit(settings, sys.executable)
    if show:
        print_json({"path": str(place), "unit": text}) if as_json else print(text, end="")
        return 0
    if answers(settings.socket):
        raise ConflictError(
            f"A kernel runs in {settings.home} that is not the service's.",
            hint="End it and leave its work running, `llm-os down --keep`, then install again.",
        )
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(settings.home / "service.env", environment(settings), 0o600)
    place.parent.mkdir(parents=True, exist_ok=True)
    _write(place, text, 0o644)
    failed = _systemctl("daemon-reload") or _systemctl("enable", "--now", UNIT)
    if as_json:
        print_json({"path": str(place), "started": failed is None, "reason": failed})
        return 0
    print(f"The unit is in {place}, its settings in {settings.home / 'service.env'}.")
    if failed is None:
        print("It runs. To keep it up while you are not logged in: loginctl enable-linger")
    else:
        print(f"It was not started: {failed}. Start it with:\n  systemctl --user daemon-reload")
        print(f"  systemctl --user enable --now {UNIT}")
    return 0


@service.command(epilog="Example: llm-os service uninstall")
@as_json_option
def uninstall(as_json: bool) -> int:
    """End the service and remove its unit. Models, data and state stay."""
    place = _place()
    if not place.exists():
        raise NotFoundError(f"There is no {place}.", hint="`llm-os service install` writes it.")
    failed = _systemctl("disable", "--now", UNIT)
    place.unlink()
    _systemctl("daemon-reload")
    (Settings().home / "service.env").unlink(missing_ok=True)
    if as_json:
        print_json({"path": str(place), "removed": True, "reason": failed})
    else:
        print(f"{place} is removed.{f' systemctl: {failed}.' if failed else ''}")
    return 0


def _write(path: Path, text: str, mode: int) -> None:
    """Beside, then renamed, so that nothing half-written is started."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)


COMMANDS = {"service": service}
