"""What `why` and `doctor` find through a real kernel: damaged weights, a crash loop, a taken port, a queue."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from llm_os.autopilot.exposition import read
from llm_os.autopilot.flows import SERIES, Flows
from llm_os.kernel.diagnosis import Evidence, diagnose
from llm_os.spec.diagnoses import Cause
from llm_os.testing.gateway_bed import MONITOR, USER, GatewayBed, ScriptedReplica, a_route
from llm_os.testing.home_bed import Home, running, write_toy_model

CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    async with running(tmp_path, LLM_OS_ALERTS_EVERY="0.4") as home:
        await home.load("writer", "ToyForCausalLM")
        yield home


async def causes(home: Home, name: str) -> list[str]:
    return [diagnosis["cause"] for diagnosis in (await home.get(f"/v1/why/{name}"))["diagnoses"]]


async def fetched(home: Home, source: Path) -> str:
    """A job that tries to bring in a model and fails: its id."""
    spec = {"task": "sources/fetch", "options": {"source": str(source)}, "name": source.name.split(".")[0]}
    job = await home.post("/v1/jobs", {"spec": spec, "background": True})

    async def failed() -> bool:
        return (await home.get(f"/v1/jobs/{job['id']}"))["state"] == "failed"

    await home.until(failed)
    return str(job["id"])


async def test_what_died_is_diagnosed_and_what_answers_says_where_its_time_goes(home: Home, tmp_path: Path) -> None:
    write_toy_model(tmp_path / "cut", "ToyForCausalLM")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00\x09")
    for source in (tmp_path / "cut", tmp_path / "cut.gguf"):
        job = await fetched(home, source)
        assert await causes(home, job) == ["bad_weights"]
    code, out, _ = await home.command("why", job)
    assert (code, "Next: Copy or download the model again" in out) == (0, True)

    spec = {"name": "fails", "model": "writer", "engine": "fake", "options": {"start_fails": True}}
    await home.post("/v1/deployments", {"spec": spec, "keep": True})

    async def dies_again() -> bool:
        return "crash_loop" in await causes(home, "fails")

    url, key = await home.deploy("chat", "writer")
    for _ in range(3):
        assert (await home.ask(url, key, "/v1/chat/completions", CHAT))[0] == 200
    await home.until(dies_again)
    found = await home.get("/v1/why/fails")
    assert "died 2 times" in found["sentence"] or "died 3 times" in found["sentence"], found["sentence"]
    assert any("The fake engine was told to fail" in line for line in found["diagnoses"][0]["evidence"])

    async def timed() -> bool:
        facts = (await home.get("/v1/why/chat"))["facts"]
        return bool(facts) and facts[0].startswith("3 requests in the last") and "0 of 64 slots" in facts[1]

    await home.until(timed)
    assert (await home.get("/v1/why/chat"))["sentence"] == "chat answers requests."
    code, out, _ = await home.command("doctor", "--json")
    checks = {check["what"]: check for check in json.loads(out)["checks"]}
    assert code == 1
    assert (checks["deployment fails"]["cause"], checks["deployment fails"]["must"]) == ("crash_loop", True)
    assert checks["deployment chat"]["good"]
    assert checks[f"job {job}"]["cause"] == "bad_weights"
    assert checks["packages"]["good"]
    assert checks["memory"]["good"]


async def test_a_gateway_whose_port_is_taken_says_by_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "r"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        bed = GatewayBed(tmp_path)
        await bed.start(port=port)
        assert await bed.close() == 10
        error = bed.reports()[-1].values
        (found,) = diagnose(Evidence("The gateway", kind="gateway", error=error, listener=lambda _: "me"))
    assert (found.cause, f"port {port} is taken by me" in found.sentence) == (Cause.PORT_TAKEN, True)


async def test_requests_that_queue_at_a_real_gateway_are_why_it_is_slow(tmp_path: Path) -> None:
    replica = ScriptedReplica(tmp_path / "replica.sock")
    replica.delay = 0.2
    await replica.start()
    bed = GatewayBed(tmp_path, "--per-replica", "1")
    bed.route(a_route("chat", replica))
    await bed.start()
    flows = Flows()
    async with aiohttp.ClientSession(bed.url) as session:

        async def page() -> str:
            async with session.get("/metrics", headers={"authorization": f"Bearer {MONITOR}"}) as answer:
                return await answer.text()

        async def ask() -> int:
            headers = {"authorization": f"Bearer {USER}"}
            async with session.post("/v1/chat/completions", json=CHAT, headers=headers) as answer:
                await answer.read()
                return answer.status

        assert flows.take(time.time(), [read(await page(), SERIES)]) == {}
        assert await asyncio.gather(*(ask() for _ in range(5))) == [200] * 5
        now = time.time()
        flow = flows.take(now, [read(await page(), SERIES)])["chat"]
    await bed.close()
    await replica.close()
    assert (flow.requests, flow.slots) == (5, 1)
    (found,) = diagnose(Evidence("chat", flow=flow, now=now))
    assert found.cause is Cause.QUEUED
