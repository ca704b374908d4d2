"""Answers that are told again: to whom, which, at what cost. A real gateway, and once a real kernel and worker."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llm_os.server import keys
from llm_os.spec.quotas import Quota
from llm_os.spec.routing import KeyEntry, RoutingTable
from llm_os.testing.gateway_bed import ADMIN, USER, GatewayBed, ScriptedReplica, a_route
from llm_os.testing.home_bed import Home

CHAT: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}
PATH = "/v1/chat/completions"


def a_key(name: str, tenant: str, **quota: Any) -> KeyEntry:
    quota = {"cache": True, **quota}
    return KeyEntry(
        id=f"key-{name}", sha256=keys.digest(f"sk-{name}"), role="user", tenant=tenant, quota=Quota(**quota)
    )


KEYS = (a_key("anna", "lab", tokens_per_minute=400), a_key("bob", "lab"), a_key("eve", "other"))


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[ScriptedReplica]:
    replica = ScriptedReplica(tmp_path / "one.sock")
    await replica.start()
    yield replica
    await replica.close()


@pytest.fixture
async def bed(tmp_path: Path, replica: ScriptedReplica) -> AsyncIterator[GatewayBed]:
    bed = GatewayBed(tmp_path / "home")
    bed.route(a_route("chat", replica), a_route("mood", replica, task="text-classification"), keys=KEYS)
    await bed.start()
    yield bed
    await bed.close()


async def ask(
    url: str, key: str = "sk-anna", body: Any = None, path: str = PATH, **headers: str
) -> tuple[int, str | None, bytes]:
    """Status, what the cache said, body."""
    headers["authorization"] = f"Bearer {key}"
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(url + path, json=CHAT if body is None else body) as answer,
    ):
        return answer.status, answer.headers.get("x-llm-os-cache"), await answer.read()


async def test_an_answer_is_told_again_as_it_was_and_costs_no_tokens(bed: GatewayBed, replica: ScriptedReplica) -> None:
    first = await ask(bed.url)
    again = [await ask(bed.url, key) for key in ("sk-anna", "sk-bob", "sk-anna")]
    assert (first[0], first[1], json.loads(first[2])["usage"]["prompt_tokens"]) == (200, "miss", 7)
    assert again == [(200, "hit", first[2])] * 3
    assert len(replica.seen) == 1
    await bed.until(lambda: sum(one.requests for one in bed.usage().served) == 4)
    served = {one.key: (one.requests, one.prompt_tokens, one.completion_tokens) for one in bed.usage().served}
    assert served == {"key-anna": (3, 7, 3), "key-bob": (1, 0, 0)}
    assert bed.counted("chat").requests == 4
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {ADMIN}"}) as session,
        session.get(bed.url + "/metrics") as answer,
    ):
        page = await answer.text()
    for outcome, number in (("hit", 3.0), ("miss", 1.0)):
        labels = f'model="chat",outcome="{outcome}",tenant="lab",version="chat-model@1"'
        assert f"llm_os_gateway_cache_total{{{labels}}} {number}\n" in page


async def test_a_stream_is_told_again_as_a_stream_in_every_shape(bed: GatewayBed, replica: ScriptedReplica) -> None:
    streamed = {**CHAT, "stream": True}
    first, again = await ask(bed.url, body=streamed), await ask(bed.url, body=streamed)
    assert (first[1], again) == ("miss", (200, "hit", first[2]))
    assert first[2].endswith(b"data: [DONE]\n\n")
    assert b'"prompt_tokens"' not in again[2]  # who did not ask for counts gets none
    counted = {**streamed, "stream_options": {"include_usage": True}}
    assert [b'"prompt_tokens"' in (await ask(bed.url, body=counted))[2] for _ in range(2)] == [True, True]
    message = {**CHAT, "max_tokens": 9}
    for body in (message, {**message, "stream": True}):
        told = [await ask(bed.url, body=body, path="/v1/messages") for _ in range(2)]
        assert [cache for _, cache, _ in told] == ["miss", "hit"]
        assert all(b"three" in text for _, _, text in told)
    assert len(replica.seen) == 4
    moods = [await ask(bed.url, body={"model": "mood", "input": "fine"}, path="/classify") for _ in range(2)]
    assert [cache for _, cache, _ in moods] == ["miss", "hit"]


async def test_nothing_is_told_to_other_tenants_or_to_keys_that_did_not_ask(
    bed: GatewayBed, replica: ScriptedReplica
) -> None:
    found = [(await ask(bed.url, key))[1] for key in ("sk-anna", "sk-eve", "sk-eve", USER, USER)]
    assert found == ["miss", "miss", "hit", None, None]
    assert len(replica.seen) == 4
    drawn = {name: given for name, given in CHAT.items() if name != "temperature"}
    assert [(await ask(bed.url, body=drawn))[1] for _ in range(2)] == [None, None]
    assert len(replica.seen) == 6


async def test_only_what_is_whole_is_kept(bed: GatewayBed, replica: ScriptedReplica) -> None:
    streamed = {**CHAT, "stream": True}
    replica.break_after = 1
    assert b"error" in (await ask(bed.url, body=streamed))[2]
    replica.break_after = None
    replica.refuse_with = (400, {"error": {"message": "no", "code": "invalid_option"}})
    assert (await ask(bed.url))[:2] == (400, "miss")
    replica.refuse_with, replica.finish = None, "content_filter"
    assert (await ask(bed.url))[:2] == (200, "miss")
    replica.finish = "length"
    assert [(await ask(bed.url, body=body))[1] for body in (streamed, CHAT, CHAT)] == ["miss", "miss", "hit"]


async def test_another_version_has_answers_of_its_own_and_a_cold_one_those_that_are_there(
    bed: GatewayBed, replica: ScriptedReplica
) -> None:
    await ask(bed.url)
    bed.route(a_route("chat"), keys=KEYS)  # no replica
    assert (await ask(bed.url))[:2] == (200, "hit")
    bed.route(a_route("chat", replica, version="chat-model@2"), keys=KEYS)
    assert [(await ask(bed.url))[1] for _ in range(2)] == ["miss", "hit"]
    assert len(replica.seen) == 2


async def test_a_hit_is_a_request_of_its_key(bed: GatewayBed, replica: ScriptedReplica) -> None:
    bed.route(a_route("chat", replica), keys=(a_key("dan", "lab", requests_per_minute=2),))
    assert [(await ask(bed.url, "sk-dan"))[:2] for _ in range(3)] == [(200, "miss"), (200, "hit"), (429, "hit")]


async def test_the_kernel_says_which_keys_have_a_cache_and_which_engines_share_what_they_have_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "r"))
    home = Home(tmp_path)
    await home.start()
    try:
        await home.load("writer", "ToyForCausalLM")
        url, own = await home.deploy("chat", "writer", options={"reply": "two words"})
        table = RoutingTable.model_validate_json(home.settings.routes.read_bytes())
        assert [(route.engine, route.shares_prefixes) for route in table.routes] == [("fake", True)]
        command = [sys.executable, "-m", "llm_os.cli.main", "keys"]
        environment = {**os.environ, "LLM_OS_HOME": str(home.settings.home), "LLM_OS_TESTING": "1"}

        async def said(*words: str) -> str:
            run = partial(subprocess.run, env=environment, capture_output=True, check=True, text=True)
            return str((await asyncio.to_thread(run, [*command, *words])).stdout)

        key = json.loads(await said("create", "anna", "--cache", "--json"))["key"]
        assert [(await ask(url, one))[:2] for one in (key, key, own)] == [(200, "miss"), (200, "hit"), (200, None)]
        assert "cache" in next(line for line in (await said()).splitlines() if "anna" in line)
    finally:
        await home.down()
