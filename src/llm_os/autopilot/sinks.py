"""Where alerts go besides the events: webhooks and mail programs; each in a task of its own, so that nothing waits."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiohttp

from llm_os.autopilot.rules import Mail, Rules, Webhook, secret
from llm_os.errors import LLMOSError
from llm_os.spec.alerts import AlertState, Told

log = logging.getLogger("llm_os.alerts")

MOST_WAITING = 100
"""Alerts that a slow sink keeps; then the oldest goes."""
Sleep = Callable[[float], Awaitable[None]]


class UndeliveredError(Exception):
    """A sink did not take an alert.

    Attributes:
        final: trying again would not help.
    """

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


class Sink:
    """One of them, with what it was not told yet.

    Args:
        deliver: tells it one alert, once. Raises UndeliveredError.
    """

    def __init__(self, name: str, deliver: Callable[[Told], Awaitable[None]], attempts: int, sleep: Sleep) -> None:
        self.problem = ""
        self._name = name
        self._deliver = deliver
        self._attempts = attempts
        self._sleep = sleep
        self._waiting: deque[Told] = deque(maxlen=MOST_WAITING)
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task = asyncio.create_task(self._run(), name=f"alerts-{name}")

    def tell(self, told: Told) -> None:
        """Returns at once."""
        self._waiting.append(told)
        self._idle.clear()
        self._news.set()

    async def close(self, patience: float) -> None:
        """Give it so many seconds for what waits, then end it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._idle.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                told = self._waiting[0]
                await self._try(told)
                if self._waiting and self._waiting[0] is told:  # a newer one may have pushed it out
                    self._waiting.popleft()
            self._idle.set()

    async def _try(self, told: Told) -> None:
        for number in range(1, self._attempts + 1):
            try:
                await self._deliver(told)
                self.problem = ""
                return
            except UndeliveredError as error:
                self.problem = f"The sink '{self._name}' did not take an alert: {error}."
                if error.final or number == self._attempts:
                    break
            except Exception as error:  # noqa: BLE001 - the border to foreign programs: a sink never ends the watch
                self.problem = f"The sink '{self._name}' failed with {type(error).__name__}."
                break
            await self._sleep(2.0 ** (number - 1))
        log.error("%s It was: %s", self.problem, told.message)


class Sinks:
    """All sinks of the rules in force.

    Args:
        home: where relative paths of secrets lie.
        sleep: lets seconds pass between tries.
    """

    def __init__(self, home: Path, sleep: Sleep = asyncio.sleep) -> None:
        self._home = home
        self._sleep = sleep
        self._sinks: dict[str, Sink] = {}
        self._session: aiohttp.ClientSession | None = None
        self._of: tuple[Mapping[str, Webhook], Mapping[str, Mail]] = ({}, {})

    async def use(self, rules: Rules) -> None:
        """Make the sinks those of these rules. What others had not delivered yet is dropped."""
        if self._of == (rules.webhooks, rules.mails):
            return
        await self._end(0.0)
        self._of = (rules.webhooks, rules.mails)
        for name, webhook in rules.webhooks.items():
            self._sinks[name] = Sink(name, self._webhook(name, webhook), webhook.attempts, self._sleep)
        for name, mail in rules.mails.items():
            self._sinks[name] = Sink(name, lambda told, mail=mail: send(mail, told), mail.attempts, self._sleep)  # type: ignore[misc]

    def tell(self, told: Told, names: tuple[str, ...] | None) -> None:
        """Pass an alert on to the sinks of these names; None: to all. Returns at once."""
        for name, sink in self._sinks.items():
            if names is None or name in names:
                sink.tell(told)

    def problems(self) -> tuple[str, ...]:
        """What the last alerts met, of the sinks that did not take them."""
        return tuple(sink.problem for sink in self._sinks.values() if sink.problem)

    async def close(self, patience: float = 2.0) -> None:
        await self._end(patience)
        if self._session is not None:
            await self._session.close()

    async def _end(self, patience: float) -> None:
        await asyncio.gather(*(sink.close(patience) for sink in self._sinks.values()))
        self._sinks.clear()

    def _webhook(self, name: str, webhook: Webhook) -> Callable[[Told], Awaitable[None]]:
        async def deliver(told: Told) -> None:
            headers = {"content-type": "application/json"}
            try:
                url = webhook.url or secret(str(webhook.url_file), self._home)
                if webhook.secret_file is not None:
                    headers["authorization"] = f"Bearer {secret(webhook.secret_file, self._home)}"
            except LLMOSError as error:
                raise UndeliveredError(f"{error.message} {error.hint}".removesuffix("."), final=True) from error
            if self._session is None:
                self._session = aiohttp.ClientSession()
            timeout = aiohttp.ClientTimeout(total=webhook.timeout)
            data = json.dumps(payload(told, name), ensure_ascii=False).encode()
            try:
                # The address may be a secret: errors tell their kind only, and no redirect carries the key elsewhere.
                async with self._session.post(
                    url, data=data, headers=headers, timeout=timeout, allow_redirects=False
                ) as answer:
                    status = answer.status
            except aiohttp.InvalidURL as error:
                raise UndeliveredError("its URL is none", final=True) from error
            except TimeoutError as error:
                raise UndeliveredError(f"no answer within {webhook.timeout:g} s") from error
            except aiohttp.ClientError as error:
                raise UndeliveredError(f"it cannot be reached ({type(error).__name__})") from error
            if not 200 <= status < 300:
                raise UndeliveredError(f"it answered {status}", final=status < 500 and status not in {408, 429})

        return deliver


def payload(told: Told, receiver: str) -> dict[str, Any]:
    """What a webhook is sent: the shape that Alertmanager's receivers know (version 4)."""
    alert, firing = told.alert, told.alert.state is AlertState.FIRING
    labels = {"alertname": alert.rule, "severity": told.severity, **alert.labels}
    notes = {"summary": told.message, **({"next": told.next} if told.next else {})}
    status = "firing" if firing else "resolved"
    one = {
        "status": status,
        "labels": labels,
        "annotations": notes,
        "startsAt": _moment(told.began),
        "endsAt": "0001-01-01T00:00:00Z" if firing else _moment(told.at),
        "generatorURL": "",
        "fingerprint": hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest()[:16],
    }
    return {
        "version": "4",
        "groupKey": alert.rule,
        "truncatedAlerts": 0,
        "status": status,
        "receiver": receiver,
        "groupLabels": {"alertname": alert.rule},
        "commonLabels": labels,
        "commonAnnotations": notes,
        "externalURL": "",
        "alerts": [one],
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def mail_of(mail: Mail, told: Told) -> EmailMessage:
    """The mail, with its headers."""
    text = EmailMessage()
    text["From"], text["To"] = mail.sender, mail.to
    what = "resolved" if told.alert.state is AlertState.RESOLVED else told.severity
    labels = ", ".join(told.alert.labels.values())
    subject = f"[llm-os] {what}: {told.alert.rule}{f' ({labels})' if labels else ''}"
    text["Subject"] = "".join(letter if letter.isprintable() else " " for letter in subject)
    body = f"{told.message}\n\nAt {_moment(told.at)}, since {_moment(told.began)}.\n"
    text.set_content(body + (f"What to do: {told.next}\n" if told.next else ""))
    return text


async def send(mail: Mail, told: Told) -> None:
    """Run the mail program once, with the mail on its standard input. Raises UndeliveredError."""
    try:
        process = await asyncio.create_subprocess_exec(
            *mail.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise UndeliveredError(f"{mail.command[0]} cannot be started: {error.strerror or error}", final=True) from error
    try:
        async with asyncio.timeout(mail.timeout):
            _, said = await process.communicate(mail_of(mail, told).as_bytes())
    except TimeoutError as error:
        raise UndeliveredError(f"{mail.command[0]} did not end within {mail.timeout:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-1:] or [""]
        raise UndeliveredError(f"{mail.command[0]} ended with {process.returncode}: {last[0][:200]}".removesuffix(": "))
