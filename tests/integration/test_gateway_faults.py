"""A real gateway process when things break: replicas, callers, files, ports, and the process itself."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from llm_os.server.gateway.admission import WAITING
from llm_os.spec.attempts import EXIT_OK, EXIT_USER_ERROR
from llm_os.testing.gateway_bed import USER, GatewayBed, ScriptedReplica, a_route

CHAT: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
STREAM = {**CHAT, "stream": True}
HEADERS = {"authorization": f"Bearer {USER}"}

MakeReplica = Callable[[str], Awaitable[ScriptedReplica]]
MakeBed = Callable[..., Awaitable[GatewayBed]]


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[MakeReplica]:
    made: list[ScriptedReplica] = []

    async def make(name: str) -> ScriptedReplica:
        one = ScriptedReplica(tmp_path / f"{name}.sock")
        await one.start()
        made.append(one)
        return one

    yield make
    for one in made:
        await one.close()


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[MakeBed]:
    beds: list[GatewayBed] = []

    async def make(*routes: Any, arguments: tuple[str, ...] = ()) -> GatewayBed:
        bed = GatewayBed(tmp_path / "home", *arguments)
        beds.append(bed)
        bed.route(*routes)
        await bed.start()
        return bed

    yield make
    for bed in beds:
        await bed.close()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def chat(session: aiohttp.ClientSession, bed: GatewayBed, body: Any = None) -> tuple[int, Any]:
    async with session.post(bed.url + "/v1/chat/completions", json=body or CHAT) as answer:
        return answer.status, await answer.json()


async def events(session: aiohttp.ClientSession, bed: GatewayBed) -> list[str]:
    async with session.post(bed.url + "/v1/chat/completions", json=STREAM) as answer:
        assert answer.status == 200
        return [event.removeprefix("data: ") for event in (await answer.text()).split("\n\n") if event]


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_connection_that_breaks_before_the_first_byte_is_tried_elsewhere(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession, body: dict[str, Any]
) -> None:
    bad, good = await replica("a"), await replica("b")
    bad.break_before = 100
    bed = await started(a_route("chat", bad, good))
    for _ in range(4):
        async with session.post(bed.url + "/v1/chat/completions", json=body) as answer:
            assert answer.status == 200
            assert "three" in await answer.text()
    assert len(good.seen) == 4
    assert 1 <= len(bad.seen) <= 4


async def test_a_stream_that_breaks_before_its_first_event_is_tried_elsewhere(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession
) -> None:
    bad, good = await replica("a"), await replica("b")
    bad.break_after = 0
    bed = await started(a_route("chat", bad, good))
    for _ in range(3):
        assert (await events(session, bed))[-1] == "[DONE]"
    assert bad.seen


async def test_it_is_tried_once_elsewhere_and_not_more(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession
) -> None:
    replicas = [await replica(name) for name in "abc"]
    for one in replicas:
        one.break_before = 100
    bed = await started(a_route("chat", *replicas))
    status, answer = await chat(session, bed)
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    assert sum(len(one.seen) for one in replicas) == 2


async def test_a_replica_that_is_gone_is_waited_for_while_the_caller_waits(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession
) -> None:
    one = await replica("a")
    bed = await started(a_route("chat", one))
    assert (await chat(session, bed))[0] == 200
    await one.close()
    soon = {"x-llm-os-timeout": "0.5"}
    async with session.post(bed.url + "/v1/chat/completions", json=CHAT, headers=soon) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (504, "deadline_exceeded")
    asking = asyncio.create_task(chat(session, bed))
    await asyncio.sleep(0.2)
    await one.start()
    assert (await asking)[0] == 200


async def test_a_stream_that_breaks_after_the_first_byte_ends_with_an_error_event_and_is_not_tried_again(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession
) -> None:
    bad, good = await replica("a"), await replica("b")
    bad.break_after = good.break_after = 2
    bed = await started(a_route("chat", bad, good))
    got = await events(session, bed)
    assert [json.loads(event)["choices"][0]["delta"]["content"] for event in got[:-1]] == ["one ", "two "]
    assert json.loads(got[-1])["error"]["code"] == "unavailable"
    assert len(bad.seen) + len(good.seen) == 1


async def test_a_stream_that_breaks_costs_none_of_the_callers_next_requests(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession
) -> None:
    """A connection that was said to be kept, and is closed, breaks the request that is sent on it meanwhile."""
    one = await replica("a")
    one.break_after = 1
    bed = await started(a_route("chat", one))

    async def caller() -> None:
        for _ in range(10):
            assert '"unavailable"' in (await events(session, bed))[-1]

    await asyncio.gather(*(caller() for _ in range(8)))


async def test_the_official_client_raises_when_a_stream_breaks(replica: MakeReplica, started: MakeBed) -> None:
    one = await replica("a")
    one.break_after = 1
    bed = await started(a_route("chat", one))
    words = []
    async with openai.AsyncOpenAI(base_url=bed.url + "/v1", api_key=USER, max_retries=0) as ai:
        stream = await ai.chat.completions.create(**STREAM)
        words.append((await anext(stream)).choices[0].delta.content)
        with pytest.raises(openai.APIError, match="broke off"):
            await anext(stream)
    assert words == ["one "]


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_caller_who_hangs_up_ends_the_engines_work(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession, body: dict[str, Any]
) -> None:
    one = await replica("a")
    one.delay = 30.0
    bed = await started(a_route("chat", one))
    asking = asyncio.create_task(chat(session, bed, body))
    await one.until(lambda: one.in_flight == 1)
    asking.cancel()
    await one.until(lambda: one.in_flight == 0, seconds=5)
    assert one.hung_up == 1
    await bed.until(lambda: bed.counted("chat").requests == 1 and bed.counted("chat").in_flight == 0)
    await bed.until(lambda: "status=499" in (bed.settings.logs / "gateway-access.log").read_text())


async def test_a_caller_who_leaves_in_the_middle_of_a_stream_ends_the_engines_work(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession
) -> None:
    one = ScriptedReplica((await replica("a")).path.with_name("long.sock"), words=["word "] * 10_000)
    one.delay = 0.01
    await one.start()
    try:
        bed = await started(a_route("chat", one))
        async with session.post(bed.url + "/v1/chat/completions", json=STREAM) as answer:
            await answer.content.readany()
            answer.close()
        await one.until(lambda: one.in_flight == 0, seconds=5)
        assert one.hung_up == 1
    finally:
        await one.close()


async def test_more_than_the_bound_is_told_to_come_back(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession
) -> None:
    one = await replica("a")
    one.delay = 30.0
    bed = await started(a_route("chat", one), arguments=("--per-replica", "2"))
    busy = [asyncio.create_task(chat(session, bed)) for _ in range(2 + 2 * WAITING)]
    await one.until(lambda: one.in_flight == 2)
    await bed.until(lambda: bed.counted("chat").in_flight == 2 + 2 * WAITING)
    async with openai.AsyncOpenAI(base_url=bed.url + "/v1", api_key=USER, max_retries=0) as ai:
        with pytest.raises(openai.RateLimitError) as caught:
            await ai.chat.completions.create(**CHAT)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.code == "overloaded"
    for task in busy:
        task.cancel()
    await one.until(lambda: one.in_flight == 0)
    one.delay = 0.0
    await bed.until(lambda: bed.counted("chat").requests == 3 + 2 * WAITING and bed.counted("chat").in_flight == 0)
    assert (await chat(session, bed))[0] == 200


async def test_two_hundred_streams_at_once_are_whole_and_shared_evenly(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession
) -> None:
    first, second = await replica("a"), await replica("b")
    first.delay = second.delay = 0.2
    bed = await started(a_route("chat", first, second))
    answers = await asyncio.gather(*(events(session, bed) for _ in range(200)))
    assert all(answer[-1] == "[DONE]" and len(answer) == 5 for answer in answers)
    assert len(first.seen) + len(second.seen) == 200
    assert abs(len(first.seen) - len(second.seen)) <= 60


async def test_routes_are_swapped_without_a_dropped_request(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession
) -> None:
    old, new = await replica("old"), await replica("new")
    old.delay = new.delay = 0.02
    bed = await started(a_route("chat", old))
    stop = asyncio.Event()
    answers: list[int] = []

    async def keep_asking() -> None:
        while not stop.is_set():
            answers.append((await chat(session, bed))[0])

    asking = [asyncio.create_task(keep_asking()) for _ in range(8)]
    await old.until(lambda: len(old.seen) >= 20)
    for _ in range(5):
        bed.route(a_route("chat", new), a_route("other", old))
        seen = len(new.seen)
        await new.until(lambda seen=seen: len(new.seen) > seen)
        bed.route(a_route("chat", old))
        seen = len(old.seen)
        await old.until(lambda seen=seen: len(old.seen) > seen)
    stop.set()
    await asyncio.gather(*asking)
    assert set(answers) == {200}


async def test_what_was_published_counts_for_the_very_next_request(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession
) -> None:
    one = await replica("a")
    bed = await started()
    for _ in range(20):
        bed.route(a_route("chat", one))
        assert (await chat(session, bed))[0] == 200
        bed.route()
        assert (await chat(session, bed))[0] == 404


@pytest.mark.parametrize("damage", [b"", b"{", b'{"version": 2}x', b'{"version": 2, "routes": 5}', b"\xff"])
async def test_a_damaged_table_leaves_the_last_good_one_in_force(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession, damage: bytes
) -> None:
    one = await replica("a")
    bed = await started(a_route("chat", one))
    bed.settings.routes.write_bytes(damage)
    await bed.until(lambda: "damaged" in (bed.settings.logs / "gateway.log").read_text())
    assert (await chat(session, bed))[0] == 200
    bed.settings.routes.unlink()
    await bed.until(lambda: "cannot be read" in (bed.settings.logs / "gateway.log").read_text())
    assert (await chat(session, bed))[0] == 200
    bed.route(a_route("other", one))
    await bed.until(lambda: "routing table 2" in (bed.settings.logs / "gateway.log").read_text())
    assert (await chat(session, bed))[0] == 404


async def test_the_kernel_reads_who_was_asked_when(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession
) -> None:
    one = await replica("a")
    bed = await started(a_route("chat", one))
    await chat(session, bed)
    await bed.until(lambda: bed.counted("chat").requests == 1)
    first = bed.counted("chat")
    assert first.in_flight == 0
    one.delay = 30.0
    asking = asyncio.create_task(chat(session, bed))
    await bed.until(lambda: bed.counted("chat").in_flight == 1)
    assert bed.counted("chat").last_request_at > first.last_request_at
    asking.cancel()
    await bed.until(lambda: bed.counted("chat").in_flight == 0)
    assert bed.counted("chat").requests == 2


async def test_a_new_gateway_goes_on_where_a_killed_one_left_off(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession
) -> None:
    one = await replica("a")
    bed = await started(a_route("chat", one))
    await chat(session, bed)
    one.delay = 30.0
    asking = asyncio.create_task(chat(session, bed))
    await bed.until(lambda: bed.counted("chat").in_flight == 1)
    assert bed.process is not None
    bed.process.kill()
    await bed.process.wait()
    with pytest.raises(aiohttp.ClientError):
        await asking
    port = int(bed.url.rsplit(":", 1)[1])
    bed.url = ""
    (bed.folder / "reports.jsonl").unlink()
    await bed.start(port=port)
    assert bed.url.endswith(f":{port}")
    await bed.until(lambda: bed.counted("chat").in_flight == 0)
    assert bed.counted("chat").requests == 2


async def test_a_port_in_use_is_reported_as_the_users_to_mend(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        bed = GatewayBed(tmp_path / "home")
        await bed.start(port=port)
        assert bed.process is not None
        assert bed.process.returncode == EXIT_USER_ERROR
    (report,) = bed.reports()
    assert (report.kind, report.values["code"]) == ("error", "port_in_use")
    assert str(port) in str(report.values["message"])
    assert "LLM_OS_GATEWAY_PORT" in str(report.values["hint"])


async def test_sigterm_lets_a_running_answer_end(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession
) -> None:
    one = await replica("a")
    one.delay = 0.4
    bed = await started(a_route("chat", one))
    asking = asyncio.create_task(events(session, bed))
    await one.until(lambda: one.in_flight == 1)
    assert bed.process is not None
    os.kill(bed.process.pid, signal.SIGTERM)
    assert (await asking)[-1] == "[DONE]"
    assert await bed.close() == EXIT_OK


async def test_sigterm_waits_for_five_seconds_and_no_longer(
    replica: MakeReplica, started: MakeBed, session: aiohttp.ClientSession
) -> None:
    one = await replica("a")
    one.delay = 60.0
    bed = await started(a_route("chat", one))
    asking = asyncio.create_task(chat(session, bed))
    await one.until(lambda: one.in_flight == 1)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await bed.close() == EXIT_OK
    assert 4.0 < loop.time() - begun < 9.0
    with pytest.raises(aiohttp.ClientError):
        await asking


async def test_the_gateway_listens_on_loopback_only_and_shares_its_port_with_nobody(started: MakeBed) -> None:
    bed = await started()
    port = int(bed.url.rsplit(":", 1)[1])
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port]
    assert listening == [f"0100007F:{port:04X}"]
