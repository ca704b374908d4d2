"""Which rules are in force: the defaults, and what `alerts.toml` of the home adds, replaces or switches off."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from llm_os.errors import InvalidInputError, did_you_mean
from llm_os.spec.alerts import AlertRule, Form, Term
from llm_os.spec.base import Name, Spec
from llm_os.spec.units import Duration

REQUESTS = "llm_os_gateway_requests_total"

DEFAULTS: tuple[AlertRule, ...] = (
    AlertRule(
        name="gateway-down", metric="llm_os_kernel_gateway_up", below=1, lasting=60, severity="critical",
        summary="No request can be answered.", next="llm-os why gateway",
    ),
    AlertRule(
        name="error-rate", metric=REQUESTS, where={"status": "5*"}, form=Form.RATE, of=Term(metric=REQUESTS),
        by=("model",), above=0.05, least_events=10, lasting=120, severity="critical",
        summary="More than one request in twenty fails by the server's fault.",
        next="llm-os why NAME, then llm-os logs NAME",
    ),
    AlertRule(
        name="slow-first-token", metric="llm_os_gateway_first_token_seconds", form=Form.QUANTILE, quantile=0.95,
        by=("model",), above=5, least_events=10, lasting=300,
        summary="One stream in twenty waits longer than that for its first token.",
        next="llm-os why NAME tells whether they queue or the engine is slow",
    ),
    AlertRule(
        name="long-queue", metric="llm_os_gateway_queue_seconds", form=Form.QUANTILE, quantile=0.95,
        by=("model",), above=2, least_events=10, lasting=300,
        summary="Requests wait for a slot at the replicas.", next="Deploy more replicas, or limit keys",
    ),
    AlertRule(
        name="requests-refused", metric="llm_os_gateway_rejected_total", where={"code": "overloaded"},
        form=Form.INCREASE, above=10, summary="Queues are full; callers are sent away.",
        next="Deploy more replicas, or limit keys",
    ),
    AlertRule(
        name="replica-restarts", metric="llm_os_kernel_replicas_lost_total", form=Form.INCREASE, window=600,
        by=("model",), above=2, severity="critical", summary="Replicas die again and again.",
        next="llm-os why NAME",
    ),
    AlertRule(
        name="replicas-missing", metric="llm_os_kernel_replicas_ready",
        of=Term(metric="llm_os_kernel_replicas_wanted"), by=("model",), below=1, lasting=600,
        summary="Fewer replicas answer than were asked for.", next="llm-os why NAME",
    ),
    AlertRule(
        name="parity-fallen", metric="llm_os_deployment_parity", where={"where": "sure"}, by=("model",), below=0.98,
        severity="critical", summary="What is served does not say what the model says in PyTorch any more.",
        next="llm-os verify NAME shows where; update it to another engine, or roll it back",
    ),
    AlertRule(
        name="memory-pressure", metric="llm_os_host_memory_available_bytes",
        of=Term(metric="llm_os_host_memory_bytes"), below=0.05, lasting=120, severity="critical",
        summary="The system will soon end processes for lack of memory.",
        next="llm-os ps shows who holds what; end something, or serve a smaller model",
    ),
    AlertRule(
        name="out-of-memory", metric="llm_os_host_oom_kills_total", form=Form.INCREASE, window=600, above=0,
        severity="critical", summary="The system has ended a process for lack of memory.",
        next="llm-os doctor says whether it was one of ours",
    ),
    AlertRule(
        name="disk-nearly-full", metric="llm_os_host_disk_free_bytes", of=Term(metric="llm_os_host_disk_bytes"),
        below=0.05, lasting=300, severity="critical", summary="The disk of the home is nearly full.",
        next="Free some space; without any, nothing can be started",
    ),
    AlertRule(
        name="throttled", metric="llm_os_host_throttled_seconds_total", form=Form.RATE, above=0.25, lasting=600,
        summary="The system holds our processes back: their control group has used up its share of the cores.",
        next="Raise the group's quota of cores, or set LLM_OS_CPUS to what it grants",
    ),
)  # fmt: skip
"""On from the first minute. Those of requests stay silent where there are few."""


class Webhook(Spec):
    """Is sent each alert as JSON by POST, in the shape of Alertmanager's webhooks."""

    url: str | None = Field(default=None, pattern=r"^https?://[^\s]+$", max_length=2000)
    url_file: str | None = None
    """File (mode 0600) that holds the URL, where that is a secret by itself."""
    secret_file: str | None = None
    """File (mode 0600) whose text is sent as a bearer key."""
    timeout: Duration = Field(default=10.0, gt=0, le=60)
    attempts: int = Field(default=4, ge=1, le=10)

    @model_validator(mode="after")
    def _one(self) -> Webhook:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("give either 'url' or 'url_file'")
        return self


class Mail(Spec):
    """A program that is given the mail on standard input: `["sendmail", "-t"]`. No shell takes part."""

    command: tuple[str, ...] = Field(min_length=1)
    to: str = Field(pattern=r"^[^\r\n]+@[^\r\n]+$", max_length=500)
    sender: str = Field(default="llm-os@localhost", pattern=r"^[^\r\n]+$", max_length=200)
    timeout: Duration = Field(default=30.0, gt=0, le=300)
    attempts: int = Field(default=2, ge=1, le=10)


class _File(Spec):
    disable: tuple[Name, ...] = ()
    rule: tuple[AlertRule, ...] = ()
    webhook: Mapping[Name, Webhook] = Field(default_factory=dict)
    mail: Mapping[Name, Mail] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is in force.

    Attributes:
        own: names of rules that come from the file.
        problem: why the file does not count; then the defaults alone are in force.
    """

    rules: tuple[AlertRule, ...] = DEFAULTS
    own: frozenset[str] = frozenset()
    webhooks: Mapping[str, Webhook] = field(default_factory=dict)
    mails: Mapping[str, Mail] = field(default_factory=dict)
    problem: str = ""


def load(path: Path) -> Rules:
    """Rules and sinks of this file, and the defaults; a file that is not there adds nothing.

    Raises:
        InvalidInputError: what is wrong with it, and where.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Rules()
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, f"it cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise _wrong(path, f"it is not TOML: {error}") from error
    try:
        file = _File.model_validate(given)
    except ValidationError as error:
        raise _wrong(path, "; ".join(_place(problem, given) for problem in error.errors()[:5])) from error
    _check(path, file)
    own = {rule.name: rule for rule in file.rule}
    kept = [own.pop(rule.name, rule) for rule in DEFAULTS if rule.name not in file.disable]
    named = frozenset(rule.name for rule in file.rule)
    return Rules((*kept, *own.values()), named, dict(file.webhook), dict(file.mail))


def load_or_defaults(path: Path) -> Rules:
    """As `load`; a file that is wrong is named as the problem, and the defaults stay in force."""
    try:
        return load(path)
    except InvalidInputError as error:
        return Rules(problem=str(error))


def secret(path: str, home: Path) -> str:
    """The text of a file that only its owner may read; a relative path lies in the home.

    Raises:
        InvalidInputError: it is not there, empty, or others may read it.
    """
    place = home / os.path.expanduser(path)
    try:
        mode = stat.S_IMODE(place.stat().st_mode)
        text = place.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"The secret {place} cannot be read: {error}.", hint="Check its path.") from error
    if mode & 0o077:
        raise InvalidInputError(f"Others may read the secret {place} (mode {mode:o}).", hint=f"chmod 600 {place}")
    if not text:
        raise InvalidInputError(f"The secret {place} is empty.", hint="Write the secret into it.")
    return text


def _check(path: Path, file: _File) -> None:
    names = [rule.name for rule in file.rule]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise _wrong(path, f"two rules are named '{doubled[0]}'")
    known = {rule.name for rule in DEFAULTS}
    for name in file.disable:
        if name not in known:
            raise _wrong(path, f"disable: there is no default rule '{name}'. {did_you_mean(name, known)}")
        if name in names:
            raise _wrong(path, f"'{name}' is switched off under 'disable' and given as a rule")
    sinks = [*file.webhook, *file.mail]
    if len(sinks) != len(set(sinks)):
        raise _wrong(path, "a webhook and a mail have the same name")
    for rule in file.rule:
        for sink in rule.notify or ():
            if sink not in sinks:
                raise _wrong(path, f"rule '{rule.name}': there is no sink '{sink}'. {did_you_mean(sink, sinks)}")


def _place(problem: Any, given: Mapping[str, Any]) -> str:
    """`rule 2 ('my-rule'), above: Input should be a valid number`."""
    where = [str(part) for part in problem["loc"]]
    if len(where) > 1 and where[0] == "rule" and where[1].isdigit():
        listed = given.get("rule")
        rule = listed[int(where[1])] if isinstance(listed, list) else None
        name = rule.get("name") if isinstance(rule, dict) else None
        where[:2] = [f"rule {int(where[1]) + 1}" + (f" ('{name}')" if name else "")]
    return f"{', '.join(where) or 'the file'}: {str(problem['msg']).removeprefix('Value error, ')}"


def _wrong(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"The rules in {path} do not count: {what}.",
        hint="Mend the file; it is read again by itself. Until then the default rules alone are in force.",
    )
