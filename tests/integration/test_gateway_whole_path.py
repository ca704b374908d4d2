"""Kernel, launcher, engine worker and gateway as real processes: requests go on whatever else dies."""

import asyncio
import json
import os
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import pytest

from llm_os.settings import Settings


def write_toy_model(folder: Path, architecture: str) -> None:
    """The smallest folder that passes for a model; the fake engine does not read its weights."""
    folder.mkdir()
    config: dict[str, Any] = {"architectures": [architecture], "model_type": "toy", "hidden_size": 1}
    if architecture.endswith("ForSequenceClassification"):
        config["id2label"] = {"0": "negative", "1": "positive"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")


class Home:
    """One home: its kernel process and a client on its socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(home=folder / "home")
        self.kernel: asyncio.subprocess.Process | None = None
        self._client = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=str(self.settings.socket)), base_url="http://llm-os", timeout=40
        )

    async def start(self) -> None:
        """Start a kernel and wait until it and its gateway answer."""
        environment = {
            **os.environ,
            "LLM_OS_HOME": str(self.settings.home),
            "LLM_OS_MANAGEMENT_PORT": "0",
            "LLM_OS_GATEWAY_PORT": "0",
            "LLM_OS_TESTING": "1",
        }
        self.kernel = await asyncio.create_subprocess_exec(sys.executable, "-m", "llm_os.app", env=environment)
        await self.until(self._answers)

    async def _answers(self) -> bool:
        assert self.kernel is not None
        assert self.kernel.returncode is None, "the kernel ended by itself"
        try:
            return (await self.get("/v1/status"))["gateway"] is not None
        except httpx2.TransportError:
            return False

    async def kill_kernel(self) -> None:
        assert self.kernel is not None
        self.kernel.kill()
        await self.kernel.wait()

    async def down(self) -> None:
        """End everything."""
        if self.kernel is not None:
            if self.kernel.returncode is not None:
                await self.start()
            await self.post("/v1/shutdown", {})
            async with asyncio.timeout(30):
                await self.kernel.wait()
        await self._client.aclose()

    async def get(self, path: str, **parameters: Any) -> Any:
        return self._checked(await self._client.get(path, params=parameters))

    async def post(self, path: str, body: Any = None) -> Any:
        return self._checked(await self._client.post(path, json=body))

    @staticmethod
    def _checked(answer: httpx2.Response) -> Any:
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def until(self, fact: Any, seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not await fact():  # noqa: ASYNC110 - what another process does rings no bell here
                await asyncio.sleep(0.05)

    async def load(self, card: str, architecture: str) -> None:
        """Register a toy model under `card`, by the job that users' models come in by."""
        write_toy_model(self.folder / card, architecture)
        spec = {"task": "sources/fetch", "options": {"source": str(self.folder / card)}, "name": card}
        job = await self.post("/v1/jobs", {"spec": spec, "background": True})

        async def ended() -> bool:
            nonlocal job
            job = await self.get(f"/v1/jobs/{job['id']}", wait=5)
            return job["state"] in {"succeeded", "failed", "cancelled"}

        await self.until(ended)
        assert job["state"] == "succeeded", job["error"]

    async def deploy(self, name: str, model: str, **spec: Any) -> tuple[str, str]:
        """A kept deployment on the fake engine, ready: (gateway's base URL, its key)."""
        body = {"spec": {"name": name, "model": model, "engine": "fake", **spec}, "keep": True}
        created = await self.post("/v1/deployments", body)
        await self.until_state(name, "ready")
        return (await self.get("/v1/status"))["gateway"].removesuffix("/v1"), created["key"]

    async def until_state(self, name: str, state: str) -> None:
        async def reached() -> bool:
            return (await self.get(f"/v1/deployments/{name}"))["state"] == state

        await self.until(reached)


@pytest.fixture
async def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Home]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "r"))
    home = Home(tmp_path)
    await home.start()
    try:
        yield home
    finally:
        await home.down()


class Callers:
    """Some callers that ask a deployment again and again, each after its last answer."""

    def __init__(self, url: str, key: str, model: str, number: int = 4) -> None:
        self.statuses: Counter[Any] = Counter()
        self.slowest = 0.0
        self._stop = asyncio.Event()
        self._answered = asyncio.Event()
        self._body = {"model": model, "input": "a fine day"}
        self._url = url + "/classify"
        self._headers = {"authorization": f"Bearer {key}"}
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(number)]

    async def _ask(self) -> None:
        async with aiohttp.ClientSession(headers=self._headers) as session:
            while not self._stop.is_set():
                begun = time.monotonic()
                try:
                    async with session.post(self._url, json=self._body) as answer:
                        await answer.read()
                        self.statuses[answer.status] += 1
                        self._answered.set()
                except aiohttp.ClientError as error:
                    self.statuses[type(error).__name__] += 1
                self.slowest = max(self.slowest, time.monotonic() - begun)
                await asyncio.sleep(0.01)

    async def until_more(self, answers: int) -> None:
        """Wait until this many more requests were answered with 200."""
        wanted = self.statuses[200] + answers
        async with asyncio.timeout(30):
            while self.statuses[200] < wanted:
                self._answered.clear()
                await self._answered.wait()

    async def close(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)


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


async def test_a_replica_that_dies_is_replaced_and_callers_are_told_to_wait(home: Home) -> None:
    await home.load("toy", "ToyForSequenceClassification")
    url, key = await home.deploy("mood", "toy", options={"dies_after": 20})
    callers = Callers(url, key, "mood", number=2)
    try:
        await callers.until_more(60)  # three processes at least
    finally:
        await callers.close()
    assert set(callers.statuses) <= {200, 503}, callers.statuses
    assert callers.statuses[503] >= 2


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
