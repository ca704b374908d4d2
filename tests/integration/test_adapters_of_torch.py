"""Adapters of a real model, served by PyTorch: one comes while it streams, and each says what it says merged."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "models"))
from tiny_chat import tiny_chat

from llm_os.testing.adapters import write_adapter
from llm_os.testing.home_bed import Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.xdist_group("heavy")]
PATH = "/v1/deployments/chat"


@pytest_asyncio.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    home = Home(tmp_path)
    try:
        await home.start()
        yield home
    finally:
        await home.down()


async def test_an_adapter_comes_while_the_base_streams_and_says_what_it_says_merged(home: Home, tmp_path: Path) -> None:
    model = tiny_chat(tmp_path / "tiny")
    await home.fetch(str(model), "tiny")
    base = (await home.get("/v1/models/tiny@1"))["manifest"]
    for seed, name in enumerate(("sunny", "rainy"), start=1):
        await home.fetch(str(write_adapter(tmp_path / name, model=model, base=base, seed=seed, strength=0.3)), name)
    spec = {"name": "chat", "model": "tiny@1", "engine": "torch", "options": {"dtype": "fp32"}}
    created = await home.post("/v1/deployments", {"spec": {**spec, "adapters": {"sunny": "sunny"}}, "keep": True})

    async def ready() -> bool:
        return bool((await home.get(PATH))["state"] == "ready")

    await home.until(ready, seconds=120)
    url, key = (await home.get("/v1/status"))["gateway"].removesuffix("/v1"), created["key"]

    async def said(model: str) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": "Say yes"}], "max_tokens": 10}
        status, answer = await home.ask(url, key, "/v1/chat/completions", {**body, "temperature": 0})
        assert status == 200, answer
        return str(answer["choices"][0]["message"]["content"])

    alone = {"chat": await said("chat"), "chat:sunny": await said("chat:sunny")}
    told: dict[str, Any] = {"messages": [{"role": "user", "content": "A story"}], "max_tokens": 200, "stream": True}
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session,
        session.post(f"{url}/v1/chat/completions", json={"model": "chat", **told}) as stream,
    ):
        first = await stream.content.readline()
        assert first.startswith(b"data: {"), first
        await home.post(f"{PATH}/adapters", {"version": "rainy@1"})
        alone["chat:rainy"] = await said("chat:rainy")
        rest = await stream.content.read()
    assert rest.rstrip().endswith(b"data: [DONE]")
    assert b'"error"' not in rest
    assert len(set(alone.values())) == 3, alone
    together = await asyncio.gather(*(said(name) for name in [*alone, *alone]))
    assert together == [*alone.values(), *alone.values()]

    code, _, errors = await home.command("update", "chat", "sunny@1")
    assert code != 0
    assert "chat carries the adapter" in errors, errors
    for name in ("sunny", "rainy"):
        await home.call("DELETE", f"{PATH}/adapters/{name}")
    code, out, errors = await home.command("update", "chat", "sunny@1", "--bake", "0s", "--json")
    assert code == 0, errors
    assert json.loads(out)["version"] == "sunny-merged@1"
    assert await said("chat") == alone["chat:sunny"], "merged it says what it said beside the base"
