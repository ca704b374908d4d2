"""A home with a real kernel process, a client on its socket, toy models, and callers that never stop asking."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx2

from llm_os.drivers.identity import read_process
from llm_os.settings import Settings


def write_toy_model(folder: Path, architecture: str, number: int = 1) -> None:
    """The smallest folder that passes for a model; the fake engine does not read its weights.

    Args:
        number: another one makes another version.
    """
    folder.mkdir()
    config: dict[str, Any] = {"architectures": [architecture], "model_type": "toy", "hidden_size": 1}
    if architecture.endswith("ForSequenceClassification"):
        config["id2label"] = {"0": "negative", "1": "positive"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<f", number))


class Home:
    """One home: its kernel process and a client on its socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(home=folder / "home")
        self.kernel: asyncio.subprocess.Process | None = None
        self._detached: int | None = None
        self._client = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=str(self.settings.socket)), base_url="http://llm-os", timeout=40
        )

    async def start(self) -> None:
        """Start a kernel and wait until it and its gateway answer."""
        argv = (sys.executable, "-m", "llm_os.app")
        kernel = self.kernel = await asyncio.create_subprocess_exec(*argv, env=self._environment())

        async def started() -> bool:
            assert kernel.returncode is None, "the kernel ended by itself"
            return await self._answers()

        await self.until(started, 90)  # on a machine that does much else, Python takes its time

    async def up(self) -> None:
        """As `start`, by the command that people type: this kernel is no child of this process."""
        code, _, errors = await self.command("up")
        assert code == 0, errors
        self._detached = (await self.get("/v1/status"))["pid"]
        await self.until(self._answers)

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "LLM_OS_HOME": str(self.settings.home),
            "LLM_OS_MANAGEMENT_PORT": "0",
            "LLM_OS_GATEWAY_PORT": "0",
            "LLM_OS_TESTING": "1",
        }

    def _lives_on(self) -> bool:
        """Whether there is a kernel that `up` started."""
        process = None if self._detached is None else read_process(self._detached)
        return process is not None and process.alive

    async def _answers(self) -> bool:
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
            if self.kernel.returncode is not None and not self._lives_on():
                await self.start()
            await self.post("/v1/shutdown", {})
            async with asyncio.timeout(30):
                await self.kernel.wait()
                while self._lives_on():  # noqa: ASYNC110 - the end of another's child rings no bell here
                    await asyncio.sleep(0.05)
        await self._client.aclose()

    async def get(self, path: str, **parameters: Any) -> Any:
        return self._checked(await self._client.get(path, params=parameters))

    async def put(self, path: str, body: Any) -> Any:
        return self._checked(await self._client.put(path, json=body))

    async def call(self, method: str, path: str) -> Any:
        return self._checked(await self._client.request(method, path))

    async def refused(self, path: str, body: Any = None, method: str = "POST") -> Any:
        """The error that the kernel answers."""
        answer = await self._client.request(method, path, json=body)
        assert answer.status_code >= 400, answer.text
        return answer.json()["error"]

    async def post(self, path: str, body: Any = None) -> Any:
        return self._checked(await self._client.post(path, json=body))

    @staticmethod
    def _checked(answer: httpx2.Response) -> Any:
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def command(self, *words: str, given: str | None = None) -> tuple[int, str, str]:
        """Exit code, output and errors of `llm-os` in this home, with `given` on its standard input."""
        argv, pipe = (sys.executable, "-m", "llm_os.cli.main", *words), asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL if given is None else pipe,
            stdout=pipe,
            stderr=pipe,
        )
        out, errors = await process.communicate(None if given is None else given.encode())
        return process.returncode or 0, out.decode(), errors.decode()

    async def ask(self, url: str, key: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and answer of a request to the gateway."""
        async with httpx2.AsyncClient(timeout=40) as client:
            answer = await client.post(url + path, json=body, headers={"authorization": f"Bearer {key}"})
            return answer.status_code, answer.json()

    async def until(self, fact: Any, seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not await fact():  # noqa: ASYNC110 - what another process does rings no bell here
                await asyncio.sleep(0.05)

    async def load(self, card: str, architecture: str, number: int = 1) -> None:
        """Register a toy model under `card`, by the job that users' models come in by."""
        folder = self.folder / f"{card}-{number}"
        write_toy_model(folder, architecture, number)
        await self.fetch(str(folder), card)

    async def fetch(self, source: str, card: str) -> None:
        """Register what is there under `card`."""
        spec = {"task": "sources/fetch", "options": {"source": source}, "name": card}
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

    async def until_state(self, name: str, state: str, seconds: float = 30.0) -> None:
        async def reached() -> bool:
            found = await self.get(f"/v1/deployments/{name}")
            assert found["state"] != "failed" or state == "failed", found["error"]
            return bool(found["state"] == state)

        await self.until(reached, seconds)


@asynccontextmanager
async def running(folder: Path, **settings: str) -> AsyncIterator[Home]:
    """A home whose kernel runs until the end of the block.

    Args:
        folder: its home and its sockets lie there. settings: environment variables (`LLM_OS_...`) of all its programs.
    """
    wanted = {"XDG_RUNTIME_DIR": str(folder / "r"), **settings}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        home = Home(folder)
        await home.start()
        try:
            yield home
        finally:
            await home.down()
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})


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
