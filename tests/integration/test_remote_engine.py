"""A deployment whose model another server has: here our own gateway, with a deployment of the fake engine behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llm_os.testing.home_bed import Home, running

ASK = {"messages": [{"role": "user", "content": "Who are you?"}]}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    async with running(tmp_path) as home:
        yield home


async def verb(home: Home, *words: str) -> tuple[int, Any]:
    """(exit code, JSON) of a command line in this home."""
    code, out, err = await home.command(*words, "--json")
    return code, json.loads(out or err.splitlines()[-1])  # progress goes before an error


async def asked(url: str, key: str, body: dict[str, Any]) -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(url + "/v1/chat/completions", json=ASK | body) as answer,
    ):
        if answer.content_type == "text/event-stream":
            return answer.status, (await answer.read()).decode()
        return answer.status, await answer.json()


async def test_it_answers_through_both_gateways_and_its_key_is_written_nowhere(home: Home) -> None:
    await home.load("writer", "ToyForCausalLM")
    url, secret = await home.deploy("behind", "writer", options={"reply": "I am the one behind."})
    key_file = home.folder / "key"
    key_file.write_text(secret + "\n")
    key_file.chmod(0o600)
    far = ["deploy", f"remote:{url}/v1#behind", "--option", f"key_file={key_file}"]
    code, front = await verb(home, *far, "--name", "front")
    assert (code, front["version"]) == (0, "behind@1"), front
    assert (await home.get("/v1/deployments/front"))["engine"] == "remote"
    key = front["key"]

    status, body = await asked(url, key, {"model": "front"})
    assert status == 200, body
    assert body["choices"][0]["message"]["content"] == "I am the one behind."
    assert body["model"] == "front"
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    status, text = await asked(url, key, {"model": "front", "stream": True})
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "I am the one behind."
    assert text.rstrip().endswith("data: [DONE]")
    status, body = await asked(url, key, {"model": "front", "top_p": 7})
    assert (status, body["error"]["param"]) == (400, "top_p")

    written = [
        path for path in home.settings.home.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()
    ]
    assert written == []
    assert secret not in json.dumps(await home.get("/v1/events"))

    key_file.chmod(0o644)
    code, told = await verb(home, *far, "--name", "open")
    assert code != 0
    assert "can be read by others (mode 0644)" in json.dumps(told)
    assert secret not in json.dumps(told)
