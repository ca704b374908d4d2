"""Keys and chats on the command line, through a real kernel, gateway and worker."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm_os.testing.home_bed import Home, running

CHAT = "/v1/chat/completions"
ASK = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    async with running(tmp_path) as home:
        await home.load("writer", "ToyForCausalLM")
        yield home


async def test_a_key_works_at_once_and_ends_at_once_even_without_the_kernel(home: Home) -> None:
    url, _ = await home.deploy("chat", "writer", options={"reply": "three words here"})
    limits = ("--tenant", "lab", "--requests-per-minute", "3", "--only", "chat")
    code, out, _ = await home.command("keys", "create", "anna", *limits, "--json")
    key = json.loads(out)["key"]
    assert code == 0
    assert [(await home.ask(url, key, CHAT, ASK))[0] for _ in range(2)] == [200, 200]
    await home.kill_kernel()
    assert (await home.ask(url, key, CHAT, ASK))[0] == 200
    status, answer = await home.ask(url, key, CHAT, ASK)
    assert (status, answer["error"]["code"]) == (429, "quota_exceeded")
    await home.start()
    code, out, _ = await home.command("keys")
    assert "anna" in out
    assert "3 requests/min" in out
    assert key not in out

    async def counted() -> bool:
        usage = json.loads((await home.command("keys", "usage", "--json"))[1])
        return [(one["tenant"], one["requests"], one["completion_tokens"]) for one in usage] == [("lab", 3, 9)]

    await home.until(counted)
    assert "anna" in (await home.command("keys", "usage"))[1]
    assert (await home.command("keys", "revoke", "anna"))[0] == 0
    assert (await home.ask(url, key, CHAT, ASK))[0] == 401


async def test_what_is_wrong_with_a_key_is_said(home: Home) -> None:
    assert (await home.command("keys", "create", "anna"))[0] == 0
    for words, code, says in (
        (("create", "anna"), 4, "llm-os keys revoke anna"),
        (("create", "Anna X"), 2, "'name'"),
        (("create", "bob", "--concurrent", "0"), 2, "'quota.concurrent'"),
        (("create", "bob", "--share", "nan"), 2, "'quota.share'"),
        (("create", "bob", "--role", "admin"), 2, "'user', 'monitor'"),
        (("revoke", "ana"), 3, "Did you mean 'anna'?"),
    ):
        found, _, errors = await home.command("keys", *words)
        assert (found, says in errors) == (code, True), (words, errors)
        assert "Traceback" not in errors


async def test_chats_with_a_deployment(home: Home) -> None:
    await home.deploy("chat", "writer", options={"reply": "Paris is the capital."})
    assert await home.command("chat", "chat", "Where?") == (0, "Paris is the capital.\n", "")
    assert (await home.command("chat", "chat", given="Where?\n"))[1] == "Paris is the capital.\n"
    _, out, _ = await home.command("chat", "chat", "Where?", "--json", "--system", "Be brief.")
    assert json.loads(out)["answer"] == "Paris is the capital."
    code, _, errors = await home.command("chat", "chta", "Where?")
    assert (code, "chat" in errors) == (3, True)
    code, _, errors = await home.command("chat", "chat", given="")
    assert (code, "nothing to ask" in errors) == (2, True)


async def test_what_does_not_chat_is_said(home: Home) -> None:
    await home.load("toy", "ToyForSequenceClassification")
    await home.deploy("mood", "toy")
    code, _, errors = await home.command("chat", "mood", "hello")
    assert (code, "it does not chat" in errors) == (2, True)
    await home.command("stop", "mood")
    await home.until_state("mood", "stopped")
    code, _, errors = await home.command("chat", "mood", "hello")
    assert (code, "is stopped" in errors) == (4, True)
