"""Alerts through a real kernel, gateway and workers: a replica that dies again and again is told, once."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from llm_os.testing.home_bed import Home, running

CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    async with running(tmp_path, LLM_OS_ALERTS_EVERY="0.4") as home:
        await home.load("writer", "ToyForCausalLM")
        yield home


@pytest.fixture
async def hook() -> AsyncIterator[tuple[list[Any], str]]:
    """A webhook's other end: what it received, and its address."""
    received: list[Any] = []

    async def take(request: web.Request) -> web.Response:
        received.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield received, f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    await runner.cleanup()


async def metrics(url: str, key: str, path: str = "/metrics") -> tuple[int, str]:
    headers = {"authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession() as session, session.get(url + path, headers=headers) as answer:
        return answer.status, await answer.text()


async def watchers_alone_read_the_kernels_metrics(home: Home) -> None:
    watcher = (await home.post("/v1/keys", {"name": "prometheus", "role": "monitor"}))["key"]
    user = (await home.post("/v1/keys", {"name": "anna"}))["key"]
    url = (await home.get("/v1/status"))["management"]
    admin = home.settings.admin_key.read_text().strip()
    status, text = await metrics(url, watcher)
    assert status == 200
    assert 'llm_os_kernel_replicas_ready{model="chat"} 1.0' in text
    assert 'llm_os_kernel_replicas_wanted{model="chat"} 1.0' in text
    disk = re.search(r"^llm_os_host_disk_free_bytes ([0-9.e+]+)$", text, re.MULTILINE)
    assert disk is not None
    assert float(disk[1]) > 0
    assert (await metrics(url, admin))[0] == 200
    assert (await metrics(url, user))[0] == 401
    assert (await metrics(url, watcher, "/v1/status"))[0] == 401


async def a_wrong_file_of_rules_is_named_with_its_place(home: Home) -> None:
    rules = home.settings.home / "alerts.toml"
    rules.write_text('[[rule]]\nname = "a"\nmetric = "x"\n')
    code, _, errors = await home.command("alerts", "--format", "prometheus")
    assert (code, "rule 1 ('a'): give a threshold" in errors) == (2, True)

    async def named() -> bool:
        return any("rule 1 ('a')" in problem for problem in (await home.get("/v1/alerts"))["problems"])

    await home.until(named)
    code, out, errors = await home.command("alerts")
    assert (code, "rule 1 ('a')" in errors, "disk-nearly-full" in out) == (0, True, True)


async def test_a_replica_that_dies_is_told_once_across_a_restart(home: Home, hook: tuple[list[Any], str]) -> None:
    received, url_of_hook = hook
    rules = home.settings.home / "alerts.toml"
    rules.write_text(
        '[[rule]]\nname = "dies"\nmetric = "llm_os_kernel_replicas_lost_total"\nform = "increase"\nby = ["model"]\n'
        f'above = 0\nwindow = "1h"\nkeep_firing_for = "10m"\n[webhook.oncall]\nurl = "{url_of_hook}"\n'
    )
    url, key = await home.deploy("chat", "writer", options={"dies_after": 0})

    async def fires() -> bool:
        page = await home.get("/v1/alerts")
        return any(alert["rule"] == "dies" and alert["state"] == "firing" for alert in page["alerts"])

    assert (await home.ask(url, key, "/v1/chat/completions", CHAT))[0] >= 500
    await home.until(fires)

    async def heard() -> bool:
        return any(body["groupKey"] == "dies" for body in received)

    await home.until(heard)
    alert = next(body["alerts"][0] for body in received if body["groupKey"] == "dies")
    assert alert["labels"] == {"alertname": "dies", "severity": "warning", "model": "chat"}
    assert ", above 0." in alert["annotations"]["summary"]
    await home.kill_kernel()
    await home.start()
    seen = (await home.get("/v1/alerts"))["evaluated_at"]

    async def looked() -> bool:
        at = (await home.get("/v1/alerts"))["evaluated_at"]
        return at is not None and at != seen

    await home.until(looked)
    assert await fires()
    events = [event for event in await home.get("/v1/events", limit=1000) if event["data"].get("rule") == "dies"]
    assert [(event["kind"], event["subject"]) for event in events] == [("alert.firing", "chat")]
    assert [body["groupKey"] for body in received].count("dies") == 1
    code, out, _ = await home.command("alerts")
    assert code == 0
    assert re.search(r"dies \(own\)\s+firing\s+chat", out), out
    await home.until_state("chat", "ready")
    await watchers_alone_read_the_kernels_metrics(home)
    await a_wrong_file_of_rules_is_named_with_its_place(home)
