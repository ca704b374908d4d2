"""Webhooks and mail programs: what they are sent, when it is tried again, and that nobody waits for them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from llm_os.autopilot.rules import Mail, Rules, Webhook
from llm_os.autopilot.sinks import MOST_WAITING, Sinks, mail_of, payload
from llm_os.spec.alerts import Alert, AlertState, Told


def told(state: AlertState = AlertState.FIRING, message: str = "Too slow.") -> Told:
    alert = Alert(
        rule="slow", labels={"model": "chat"}, state=state, value=7.0, since=1_700_000_060, seen=1_700_000_060
    )
    return Told(alert=alert, severity="critical", message=message, next="Look.", at=1_700_000_060, began=1_700_000_000)


class Receiver:
    """A webhook's other end on a Unix socket's stand-in, loopback; `statuses` are its next answers."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.seen: list[tuple[dict[str, str], Any]] = []
        self.news = asyncio.Event()
        self.url = ""
        self.hangs = False

    async def start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/hook", self._take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        return runner

    async def _take(self, request: web.Request) -> web.Response:
        self.seen.append((dict(request.headers), await request.json()))
        self.news.set()
        if self.hangs:
            await asyncio.Event().wait()
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(status=status, headers={"location": self.url} if status == 307 else {})

    async def until(self, number: int) -> None:
        async with asyncio.timeout(10):
            while len(self.seen) < number:
                self.news.clear()
                await self.news.wait()


class Pauses:
    def __init__(self) -> None:
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    runner = await receiver.start()
    yield receiver
    await runner.cleanup()


@pytest.fixture
async def sinks(tmp_path: Path) -> AsyncIterator[Sinks]:
    sinks = Sinks(tmp_path, Pauses())
    yield sinks
    await sinks.close(patience=0)


async def settled(sinks: Sinks) -> None:
    """Wait until nothing is left to tell."""
    await asyncio.gather(*(sink.close(patience=10) for sink in sinks._sinks.values()))


async def test_a_webhook_is_sent_the_alert_with_its_key(receiver: Receiver, sinks: Sinks, tmp_path: Path) -> None:
    secret = tmp_path / "hook.key"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    await sinks.use(Rules(webhooks={"oncall": Webhook(url=receiver.url, secret_file="hook.key")}))
    sinks.tell(told(), None)
    await receiver.until(1)
    headers, body = receiver.seen[0]
    assert headers["Authorization"] == "Bearer s3cret"
    assert body == payload(told(), "oncall")
    assert (body["status"], body["alerts"][0]["labels"]["alertname"]) == ("firing", "slow")
    assert body["alerts"][0]["startsAt"] == "2023-11-14T22:13:20Z"


async def test_it_is_tried_again_with_growing_pauses_but_not_for_ever(receiver: Receiver, tmp_path: Path) -> None:
    pauses = Pauses()
    sinks = Sinks(tmp_path, pauses)
    await sinks.use(Rules(webhooks={"oncall": Webhook(url=receiver.url, attempts=3)}))
    receiver.statuses = [503, 429, 200]
    sinks.tell(told(), None)
    await settled(sinks)
    assert (len(receiver.seen), pauses.slept, sinks.problems()) == (3, [1, 2], ())
    await sinks.close()


@pytest.mark.parametrize(("status", "tries"), [(500, 2), (404, 1), (307, 1)])
async def test_what_is_not_taken_is_a_problem(receiver: Receiver, sinks: Sinks, status: int, tries: int) -> None:
    await sinks.use(Rules(webhooks={"oncall": Webhook(url=receiver.url, attempts=2)}))
    receiver.statuses = [status] * 5
    sinks.tell(told(), ("oncall",))
    await settled(sinks)
    assert len(receiver.seen) == tries
    assert sinks.problems() == (f"The sink 'oncall' did not take an alert: it answered {status}.",)


async def test_a_webhook_that_hangs_keeps_nobody_waiting(receiver: Receiver, sinks: Sinks) -> None:
    receiver.hangs = True
    await sinks.use(Rules(webhooks={"oncall": Webhook(url=receiver.url, timeout=60)}))
    for number in range(3 * MOST_WAITING):
        sinks.tell(told(message=f"{number}"), None)
    await receiver.until(1)
    assert len(sinks._sinks["oncall"]._waiting) == MOST_WAITING
    await sinks.close(patience=0.01)


async def test_a_rule_tells_its_sinks_only(receiver: Receiver, sinks: Sinks) -> None:
    await sinks.use(Rules(webhooks={name: Webhook(url=receiver.url) for name in ("a", "b")}))
    sinks.tell(told(), ("b",))
    sinks.tell(told(), ())
    await settled(sinks)
    assert [body["receiver"] for _, body in receiver.seen] == ["b"]


async def test_an_address_that_is_a_secret_is_said_nowhere(sinks: Sinks, tmp_path: Path) -> None:
    address = tmp_path / "hook.url"
    address.write_text("http://127.0.0.1:1/T0P/S3CRET")
    address.chmod(0o600)
    await sinks.use(Rules(webhooks={"oncall": Webhook(url_file="hook.url", attempts=1)}))
    sinks.tell(told(), None)
    await settled(sinks)
    (problem,) = sinks.problems()
    assert "cannot be reached" in problem
    assert "S3CRET" not in problem


async def test_a_secret_that_others_may_read_is_not_used(receiver: Receiver, sinks: Sinks, tmp_path: Path) -> None:
    secret = tmp_path / "hook.key"
    secret.write_text("s3cret")
    secret.chmod(0o644)
    await sinks.use(Rules(webhooks={"oncall": Webhook(url=receiver.url, secret_file="hook.key")}))
    sinks.tell(told(), None)
    await settled(sinks)
    assert receiver.seen == []
    assert "chmod 600" in sinks.problems()[0]


PROGRAM = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"


async def test_a_mail_program_gets_the_mail_on_its_standard_input(sinks: Sinks, tmp_path: Path) -> None:
    out = tmp_path / "mail; $(touch hacked)"  # a shell would trip over it
    mail = Mail(command=(sys.executable, "-c", PROGRAM, str(out)), to="ops@example.org")
    await sinks.use(Rules(mails={"ops": mail}))
    sinks.tell(told(message="Zu langsam: 七秒."), None)
    await settled(sinks)
    assert sinks.problems() == ()
    text = message_from_bytes(out.read_bytes(), policy=policy.default)
    assert (text["To"], text["Subject"]) == ("ops@example.org", "[llm-os] critical: slow (chat)")
    body = text.get_content()
    assert "Zu langsam: 七秒." in body
    assert "What to do: Look." in body


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("/no/such/program",), "cannot be started: No such file"),
        ((sys.executable, "-c", "import sys; sys.exit('no route')"), "ended with 1: no route"),
        ((sys.executable, "-c", "import time; time.sleep(60)"), "did not end within 0.5 s"),
    ],
)
async def test_a_mail_program_that_fails_is_named(sinks: Sinks, command: tuple[str, ...], says: str) -> None:
    await sinks.use(Rules(mails={"ops": Mail(command=command, to="a@b", timeout=0.5, attempts=1)}))
    sinks.tell(told(), None)
    await settled(sinks)
    assert says in sinks.problems()[0]


def test_names_cannot_add_headers_to_a_mail() -> None:
    alert = told().alert.model_copy(update={"labels": {"model": "a\r\nBcc: x@y"}})
    text = mail_of(Mail(command=("x",), to="a@b"), told().model_copy(update={"alert": alert}))
    assert text["Bcc"] is None


def test_what_is_over_says_when(tmp_path: Path) -> None:
    body = payload(told(AlertState.RESOLVED), "x")
    assert (body["status"], body["alerts"][0]["endsAt"]) == ("resolved", "2023-11-14T22:14:20Z")
    assert body["alerts"][0]["fingerprint"] == payload(told(), "x")["alerts"][0]["fingerprint"]
    assert json.dumps(body)
