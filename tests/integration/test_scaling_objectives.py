"""A deployment grows for what its streams wait and for tokens under way: real kernel, gateway and workers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from llm_os.testing.home_bed import Home


@pytest.fixture
async def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Home]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "r"))
    home = Home(tmp_path)
    await home.start()
    try:
        yield home
    finally:
        await home.down()


async def stream(url: str, key: str, until: asyncio.Event) -> None:
    """Ask for streams, one after the other."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "write"}], "stream": True}
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:
        while not until.is_set():
            async with session.post(url + "/v1/chat/completions", json=body) as answer:
                await answer.read()


async def replicas(home: Home, number: int) -> bool:
    return len((await home.get("/v1/deployments/chat"))["replicas"]) == number


async def test_late_first_tokens_and_tokens_under_way_bring_a_replica_each_and_why_says_which(home: Home) -> None:
    await home.load("writer", "ToyForCausalLM")
    url, key = await home.deploy("chat", "writer", options={"slow": 0.3})
    words = ("--least", "1", "--most", "2", "--first-token", "100ms")
    code, said, told = await home.command("scale", "chat", *words)
    assert code == 0, told
    assert "between 1 and 2 replicas" in said
    end = asyncio.Event()
    callers = [asyncio.create_task(stream(url, key, end)) for _ in range(3)]
    try:
        await home.until(lambda: replicas(home, 2), 90)
        facts = (await home.get("/v1/why/chat"))["facts"]
        assert any("from 1 to 2 replicas: first tokens take" in fact for fact in facts), facts
        scaling = {"least": 1, "most": 3, "tokens_in_flight": 1.0, "in_flight": 1000}
        await home.post("/v1/deployments/chat/scale", {"scaling": scaling})
        await home.until(lambda: replicas(home, 3), 90)
        facts = (await home.get("/v1/why/chat"))["facts"]
        assert any("tokens are still to be read and written" in fact for fact in facts), facts
    finally:
        end.set()
        await asyncio.gather(*callers)
    code, _, told = await home.command("scale", "chat", "--first-token", "1s")
    assert (code != 0, "--most" in told) == (True, True)
    code, _, told = await home.command("scale", "chat", "--most", "2", "--first-token", "soon")
    assert (code != 0, "first_token" in told) == (True, True)
