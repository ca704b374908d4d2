"""Kernel, launcher, engine worker and gateway as real processes: requests go on whatever else dies."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from llm_os.drivers.identity import processes
from llm_os.testing.home_bed import Callers, Home, running


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    async with running(tmp_path) as home:
        yield home


async def test_requests_go_on_while_the_kernel_is_killed_and_comes_back(home: Home) -> None:
    await home.load("toy", "ToyForSequenceClassification")
    url, key = await home.deploy("mood", "toy")
    attempt = (await home.get("/v1/deployments/mood"))["replicas"][0]["attempt"]
    callers = Callers(url, key, "mood")
    try:
        for _ in range(3):
            await callers.until_more(50)
            await home.kill_kernel()
            await callers.until_more(100)
            await home.start()
            assert (await home.get("/v1/status"))["gateway"] == url + "/v1"
            await callers.until_more(50)
    finally:
        await callers.close()
    assert set(callers.statuses) == {200}, callers.statuses
    deployment = await home.get("/v1/deployments/mood")
    assert deployment["state"] == "ready"
    assert [replica["attempt"] for replica in deployment["replicas"]] == [attempt]


async def test_a_stream_lives_longer_than_the_kernel(home: Home) -> None:
    await home.load("writer", "ToyForCausalLM")
    url, key = await home.deploy("chat", "writer", options={"reply": "word " * 60 + "end", "tokens_per_second": 30})
    body = {"model": "chat", "messages": [{"role": "user", "content": "write"}], "stream": True}
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session,
        session.post(url + "/v1/chat/completions", json=body) as answer,
    ):
        first = await answer.content.readany()
        await home.kill_kernel()
        rest = await answer.content.read()
    assert (first + rest).count(b"word") == 60
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_stream_whose_worker_is_killed_tells_what_came_and_then_an_error(home: Home) -> None:
    await home.load("writer", "ToyForCausalLM")
    reply = "word " * 600 + "end"
    url, key = await home.deploy("chat", "writer", options={"reply": reply, "tokens_per_second": 20})
    attempt = (await home.get("/v1/deployments/chat"))["replicas"][0]["attempt"]
    stub = json.loads((home.settings.attempts / attempt / "process.json").read_bytes())["pid"]
    (worker,) = [process.pid for process in processes() if process.parent == stub]
    body = {"model": "chat", "messages": [{"role": "user", "content": "write"}]}
    told = b""
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session,
        session.post(url + "/v1/chat/completions", json=body | {"stream": True}) as answer,
    ):
        while told.count(b"word") < 5:
            told += await answer.content.readany()
        os.kill(worker, signal.SIGKILL)
        async with asyncio.timeout(5):
            told += await answer.content.read()
    *events, last, rest = [event.removeprefix(b"data: ") for event in told.split(b"\n\n")]
    text = "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events)
    assert (rest, reply.startswith(text), 5 <= text.count("word") < 100) == (b"", True, True), told
    error = json.loads(last)["error"]
    assert (error["code"], "broke off" in error["message"]) == ("unavailable", True), error
    assert (await home.ask(url, key, "/v1/chat/completions", body | {"max_tokens": 3}))[0] == 200


async def test_a_replica_that_dies_is_replaced_and_no_caller_notices(home: Home) -> None:
    await home.load("toy", "ToyForSequenceClassification")
    url, key = await home.deploy("mood", "toy", options={"dies_after": 20})
    callers = Callers(url, key, "mood", number=2)
    try:
        await callers.until_more(60)  # three processes at least
    finally:
        await callers.close()
    assert set(callers.statuses) == {200}, callers.statuses
    events = await home.get("/v1/events", limit=1000)
    assert sum(event["kind"] == "replica.lost" for event in events) >= 2


async def test_a_killed_gateway_comes_back_on_its_port_with_all_it_knew(home: Home) -> None:
    await home.load("toy", "ToyForSequenceClassification")
    url, key = await home.deploy("mood", "toy")
    callers = Callers(url, key, "mood", number=1)
    try:
        await callers.until_more(20)
        attempt = next(
            holding["attempt"] for holding in (await home.get("/v1/resources"))["in_use"] if holding["kind"] == "system"
        )
        worker = json.loads((home.settings.attempts / attempt / "process.json").read_bytes())["pid"]
        os.killpg(worker, signal.SIGKILL)

        async def started_again() -> bool:
            events = await home.get("/v1/events", limit=1000)
            return sum(event["kind"] == "gateway.started" for event in events) == 2

        await home.until(started_again)
        await callers.until_more(50)
    finally:
        await callers.close()
    assert (await home.get("/v1/status"))["gateway"] == url + "/v1"
    assert len(callers.statuses) > 1, "nobody noticed that the gateway was gone"
    assert set(callers.statuses) <= {200, "ClientConnectorError", "ServerDisconnectedError", "ClientOSError"}


async def test_an_idle_deployment_ends_but_not_while_it_is_asked(home: Home) -> None:
    await home.load("toy", "ToyForSequenceClassification")
    url, key = await home.deploy("mood", "toy", idle_after=2)
    callers = Callers(url, key, "mood", number=1)
    begun = time.monotonic()
    try:
        while time.monotonic() - begun < 5:
            await callers.until_more(5)
            assert (await home.get("/v1/deployments/mood"))["state"] == "ready"
    finally:
        await callers.close()
    await home.until_state("mood", "stopped")
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:

        async def refused() -> bool:
            async with session.post(url + "/classify", json={"model": "mood", "input": "x"}) as answer:
                return answer.status in {401, 404}

        await home.until(refused)


async def test_after_a_kill_of_everything_the_same_deployments_come_back(home: Home) -> None:
    await home.load("toy", "ToyForSequenceClassification")
    for name in ("mood", "tone"):
        url, key = await home.deploy(name, "toy")
    await home.kill_kernel()
    killed = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("LLM_OS_HOME") == str(home.settings.home):
                process.kill()  # stubs, workers, gateway: as a reboot leaves them, without a last word
                killed += 1
    assert killed >= 3, "two workers and the gateway; a stub whose worker is dead may have ended by itself"
    await home.up()
    for name in ("mood", "tone"):
        await home.until_state(name, "ready")
    url = (await home.get("/v1/status"))["gateway"].removesuffix("/v1")
    callers = Callers(url, key, "tone")
    try:
        await callers.until_more(20)  # by the key that was given out before
    finally:
        await callers.close()
    assert set(callers.statuses) == {200}
