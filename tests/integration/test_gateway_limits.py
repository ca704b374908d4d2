"""A real gateway process: quotas, turns, deadlines, cold models, and counts that no kill loses."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from llm_os.server import keys
from llm_os.spec.quotas import Priority, Quota
from llm_os.spec.routing import GatewayUsage, KeyEntry, RouteAdapter
from llm_os.testing.gateway_bed import MONITOR, USER, GatewayBed, ScriptedReplica, a_route

CHAT: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
MakeBed = Callable[..., Awaitable[GatewayBed]]


def a_key(name: str, tenant: str = "default", **quota: Any) -> KeyEntry:
    return KeyEntry(
        id=f"key-{name}",
        name=name,
        sha256=keys.digest(f"sk-{name}"),
        role="user",
        tenant=tenant,
        quota=Quota(**quota),
    )


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[ScriptedReplica]:
    replica = ScriptedReplica(tmp_path / "one.sock")
    await replica.start()
    yield replica
    await replica.close()


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[MakeBed]:
    beds: list[GatewayBed] = []

    async def make(*routes: Any, keys: tuple[KeyEntry, ...] = (), arguments: tuple[str, ...] = ()) -> GatewayBed:
        bed = GatewayBed(tmp_path / "home", *arguments)
        beds.append(bed)
        bed.route(*routes, keys=keys)
        await bed.start()
        return bed

    yield make
    for bed in beds:
        await bed.close()


async def ask(
    bed: GatewayBed, key: str = USER, body: Any = None, path: str = "/v1/chat/completions", **headers: str
) -> tuple[int, str, Any]:
    headers["authorization"] = f"Bearer {key}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(bed.url + path, json=body or CHAT, headers=headers) as answer,
    ):
        return answer.status, await answer.text(), answer.headers


async def test_the_official_client_sees_its_quota_and_when_to_come_back(started: MakeBed, one: ScriptedReplica) -> None:
    bed = await started(a_route("chat", one), keys=(a_key("anna", requests_per_minute=2),))
    async with openai.AsyncOpenAI(base_url=bed.url + "/v1", api_key="sk-anna", max_retries=0) as ai:
        for _ in range(2):
            await ai.chat.completions.create(**CHAT)
        with pytest.raises(openai.RateLimitError, match="2 requests a minute") as caught:
            await ai.chat.completions.create(**CHAT)
    assert caught.value.code == "quota_exceeded"
    assert 25 <= int(caught.value.response.headers["retry-after"]) <= 30
    assert (await ask(bed))[0] == 200  # others are not held back
    assert len(one.seen) == 3


async def test_tokens_are_what_the_engine_counted(started: MakeBed, one: ScriptedReplica) -> None:
    # The replica counts 10 tokens for each answer; a guess would be about 160.
    bed = await started(a_route("chat", one), keys=(a_key("anna", tokens_per_minute=200),))
    for stream in (False, True, False):
        status, text, _ = await ask(bed, "sk-anna", {**CHAT, "stream": stream})
        assert status == 200, text
    await ask(bed, "sk-anna", {**CHAT, "max_tokens": 5000, "messages": [{"role": "user", "content": "long " * 100}]})
    status, text, headers = await ask(bed, "sk-anna", {**CHAT, "messages": [{"role": "user", "content": "x" * 3000}]})
    assert (status, json.loads(text)["error"]["code"]) == (429, "quota_exceeded")
    assert 5 <= int(headers["retry-after"]) <= 60


async def test_work_whose_caller_leaves_is_paid_by_the_estimate(started: MakeBed, one: ScriptedReplica) -> None:
    one.delay = 30.0
    bed = await started(a_route("chat", one), keys=(a_key("anna", tokens_per_minute=300),))
    found = [(await ask(bed, "sk-anna", **{"x-llm-os-timeout": "0.5"}))[0] for _ in range(3)]
    assert found == [504, 504, 429]  # about 150 tokens each, though none was counted
    one.delay, one.refuse_with = 0.0, (400, {"error": {"message": "no", "code": "invalid_option"}})
    bed.route(a_route("chat", one), keys=(a_key("bob", tokens_per_minute=300),))
    found = [(await ask(bed, "sk-bob"))[0] for _ in range(4)]
    assert found == [400] * 4  # what an engine refuses costs nothing


async def test_requests_at_once_are_bounded_for_a_key(started: MakeBed, one: ScriptedReplica) -> None:
    one.delay = 30.0
    bed = await started(a_route("chat", one), keys=(a_key("anna", concurrent=1),))
    busy = asyncio.create_task(ask(bed, "sk-anna"))
    await one.until(lambda: one.in_flight == 1)
    assert (await ask(bed, "sk-anna"))[0] == 429
    busy.cancel()
    await one.until(lambda: one.in_flight == 0)
    one.delay = 0.0
    await bed.until(lambda: bed.counted("chat").in_flight == 0)
    assert (await ask(bed, "sk-anna"))[0] == 200


async def test_a_busy_tenant_does_not_keep_another_waiting(started: MakeBed, one: ScriptedReplica) -> None:
    one.delay = 0.5
    tenants = (a_key("loud", "loud"), a_key("quiet", "quiet"))
    bed = await started(a_route("chat", one), keys=tenants, arguments=("--per-replica", "2"))
    loud = [asyncio.create_task(ask(bed, "sk-loud")) for _ in range(8)]
    await bed.until(lambda: bed.counted("chat").in_flight == 8)
    quiet = [asyncio.create_task(ask(bed, "sk-quiet")) for _ in range(2)]
    await asyncio.gather(*quiet)
    assert sum(task.done() for task in loud) <= 5
    assert {status for status, _, _ in await asyncio.gather(*loud)} == {200}


async def test_what_is_urgent_goes_first_and_a_key_is_held_to_its_class(started: MakeBed, one: ScriptedReplica) -> None:
    one.delay = 0.5
    night = a_key("night", priority=Priority.BATCH)
    bed = await started(a_route("chat", one), keys=(night,), arguments=("--per-replica", "1"))
    batch = [asyncio.create_task(ask(bed, "sk-night")) for _ in range(3)]
    await bed.until(lambda: bed.counted("chat").in_flight == 3)
    assert (await ask(bed, **{"x-llm-os-priority": "interactive"}))[0] == 200
    assert sum(task.done() for task in batch) <= 2
    status, text, _ = await ask(bed, "sk-night", **{"x-llm-os-priority": "interactive"})
    assert (status, "'batch'" in text) == (403, True)
    assert {status for status, _, _ in await asyncio.gather(*batch)} == {200}


async def test_a_deadline_ends_the_work_wherever_it_is(started: MakeBed, one: ScriptedReplica) -> None:
    bed = await started(a_route("chat", one), arguments=("--per-replica", "1"))
    soon = {"x-llm-os-timeout": "0.3"}
    one.delay = 30.0
    status, text, _ = await ask(bed, **soon)
    assert (status, json.loads(text)["error"]["code"]) == (504, "deadline_exceeded")
    await one.until(lambda: one.in_flight == 0, seconds=5)
    assert one.hung_up == 1
    busy = asyncio.create_task(ask(bed))
    await one.until(lambda: one.in_flight == 1)
    status, text, _ = await ask(bed, **soon)
    assert (status, "while the request waited" in text) == (504, True)
    busy.cancel()
    await one.until(lambda: one.in_flight == 0, seconds=5)
    one.delay = 0.6
    status, text, _ = await ask(bed, body={**CHAT, "stream": True}, **{"x-llm-os-timeout": "1.5"})
    assert status == 200  # the first words came in time
    assert "deadline_exceeded" in text.split("\n\n")[-2]
    assert (await ask(bed, **{"x-llm-os-timeout": "soon"}))[0] == 400


async def test_a_cold_model_is_waited_for(started: MakeBed, one: ScriptedReplica) -> None:
    bed = await started(a_route("chat"))
    asking = [asyncio.create_task(ask(bed)) for _ in range(3)]
    await bed.until(lambda: bed.counted("chat").in_flight == 3)
    assert not any(task.done() for task in asking)
    bed.route(a_route("chat", one))
    assert {status for status, _, _ in await asyncio.gather(*asking)} == {200}
    bed.route(a_route("chat"))
    begun = time.monotonic()
    assert (await ask(bed, **{"x-llm-os-timeout": "0.3"}))[0] == 503
    assert time.monotonic() - begun < 5


async def test_a_dead_replica_fails_no_request_that_had_no_byte(
    started: MakeBed, one: ScriptedReplica, tmp_path: Path
) -> None:
    bed = await started(a_route("chat", one))
    assert (await ask(bed))[0] == 200
    await one.close()  # as `kill -9` leaves it, and the table does not know yet
    one.path.unlink(missing_ok=True)
    asking = [asyncio.create_task(ask(bed)) for _ in range(5)]
    await bed.until(lambda: bed.counted("chat").in_flight == 5)
    other = ScriptedReplica(tmp_path / "other.sock")
    await other.start()
    bed.route(a_route("chat", other))
    assert {status for status, _, _ in await asyncio.gather(*asking)} == {200}
    await other.close()


def served(bed: GatewayBed) -> dict[str, tuple[int, int, int]]:
    """Requests, tokens in and out by key: the sums of the file and the lines after it."""
    usage = GatewayUsage.model_validate_json(bed.settings.usage.read_bytes())
    found = {one.key: [one.requests, one.prompt_tokens, one.completion_tokens] for one in usage.served}
    spool = bed.settings.usage.with_name(f"usage.{usage.spool}.jsonl")
    for line in spool.read_text().splitlines() if spool.exists() else ():
        _, key, _, _, prompt, answer = json.loads(line)
        sums = found.setdefault(key, [0, 0, 0])
        for place, count in enumerate((1, prompt, answer)):
            sums[place] += count
    return {key: (a, b, c) for key, (a, b, c) in found.items()}


async def test_no_kill_of_the_gateway_loses_a_count(started: MakeBed, one: ScriptedReplica) -> None:
    bed = await started(a_route("chat", one), keys=(a_key("anna", "lab"),))
    expected = 0
    for _ in range(3):
        for stream in (True, False, True):
            assert (await ask(bed, "sk-anna", {**CHAT, "stream": stream}))[0] == 200
            expected += 1
        assert bed.process is not None
        os.kill(bed.process.pid, signal.SIGKILL)  # between two writes of the file
        await bed.process.wait()
        assert served(bed) == {"key-anna": (expected, 7 * expected, 3 * expected)}
        await bed.restart()
    await bed.until(lambda: bed.usage().served[0].requests == expected)
    assert bed.usage().served[0].tenant == "lab"


async def test_what_a_caller_got_before_leaving_is_counted(started: MakeBed, one: ScriptedReplica) -> None:
    one.words = ("word ",) * 50
    one.delay = 0.05
    bed = await started(a_route("chat", one), keys=(a_key("anna"),))
    async with aiohttp.ClientSession(headers={"authorization": "Bearer sk-anna"}) as session:
        answer = await session.post(bed.url + "/v1/chat/completions", json={**CHAT, "stream": True})
        got = b""
        while got.count(b"word") < 5:
            got += await answer.content.readany()
        answer.close()
    await one.until(lambda: one.in_flight == 0)
    await bed.until(lambda: bool(bed.usage().served))
    (counted,) = bed.usage().served
    assert counted.prompt_tokens > 10
    assert 5 <= counted.completion_tokens <= 30


async def test_a_stream_shows_its_counts_to_those_who_ask(started: MakeBed, one: ScriptedReplica) -> None:
    bed = await started(a_route("chat", one))
    async with openai.AsyncOpenAI(base_url=bed.url + "/v1", api_key=USER, max_retries=0) as ai:
        plain = await ai.chat.completions.create(**CHAT, stream=True)
        assert [bool(event.usage) for event in [event async for event in plain]] == [False] * 4
        asked = await ai.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})
        assert [bool(event.usage) for event in [event async for event in asked]] == [False] * 4 + [True]
    assert [body["stream_options"] for body in one.seen] == [{"include_usage": True}] * 2
    _, page, _ = await ask_metrics(bed)
    assert 'direction="out",model="chat",tenant="default",version="chat-model@1"} 6.0' in page


async def ask_metrics(bed: GatewayBed) -> tuple[int, str, Any]:
    headers = {"authorization": f"Bearer {MONITOR}"}
    async with aiohttp.ClientSession() as session, session.get(bed.url + "/metrics", headers=headers) as answer:
        return answer.status, await answer.text(), answer.headers


async def test_a_conversation_goes_on_where_it_was_read(started: MakeBed, tmp_path: Path) -> None:
    replicas = [ScriptedReplica(tmp_path / f"{name}.sock") for name in "abc"]
    for replica in replicas:
        await replica.start()
    bed = await started(a_route("chat", *replicas))
    said = {name: [{"role": "user", "content": f"{name} asks about something long. " * 30}] for name in "stuvwx"}
    for turn in range(4):
        for name, messages in said.items():
            messages.append({"role": "user", "content": f"and then, {name}, {turn}? " * 10})
            assert (await ask(bed, body={"model": "chat", "messages": messages}))[0] == 200
    places: dict[str, set[int]] = {name: set() for name in said}
    for number, replica in enumerate(replicas):
        for body in replica.seen:
            places[body["messages"][0]["content"][0]].add(number)
        await replica.close()
    assert all(len(where) == 1 for where in places.values()), places
    assert {number for where in places.values() for number in where} == {0, 1, 2}


async def test_a_request_that_only_some_replicas_can_answer_takes_no_slot_of_the_others(
    one: ScriptedReplica, started: MakeBed, tmp_path: Path
) -> None:
    other = ScriptedReplica(tmp_path / "other.sock")
    await other.start()
    route = a_route("chat", one, other)
    holding = other.endpoint().model_copy(update={"adapters": {"mood": "mood@1"}})
    more = {"endpoints": (one.endpoint(), holding), "adapters": (RouteAdapter(name="mood", version="mood@1"),)}
    bed = await started(route.model_copy(update=more), arguments=("--per-replica", "1"))
    one.delay = other.delay = 30.0
    running = asyncio.create_task(ask(bed))
    await one.until(lambda: one.in_flight + other.in_flight == 1)
    one.delay = other.delay = 0.0
    try:
        async with asyncio.timeout(10):
            assert (await ask(bed, body={**CHAT, "model": "chat:mood"}))[0] == 200
    finally:
        running.cancel()
        await other.close()
