"""Bursts of prompts that begin alike, through a real gateway: one is read, the others follow when it is."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from llm_os import plugins
from llm_os.server.gateway.prefixes import BLOCK
from llm_os.server.gateway.priming import LEAST
from llm_os.spec.attempts import TELL_READ
from llm_os.spec.routing import Endpoint, Route
from llm_os.testing.engine_bed import started
from llm_os.testing.gateway_bed import ADMIN, USER, GatewayBed, ScriptedReplica, a_route

COMMON = "You are the assistant of a library. " * (LEAST * BLOCK // 30)


def a_chat(number: int, *, model: str = "chat", common: str = COMMON, **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": common}, {"role": "user", "content": f"Question {number}?"}]
    return {"model": model, "messages": messages, "temperature": 0, **more}


class PacedReplica(ScriptedReplica):
    """Reads a prompt while `reading` is not set, and ends answers that are no stream when `ending` is set."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reading = asyncio.Event()
        self.ending = asyncio.Event()

    async def _answer(self, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        await self.reading.wait()
        if not body.get("stream") and TELL_READ in request.headers and request.transport is not None:
            request.transport.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        if not body.get("stream"):
            await self.ending.wait()
        return await super()._answer(request, body)


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[PacedReplica]:
    replica = PacedReplica(tmp_path / "paced.sock")
    await replica.start()
    yield replica
    await replica.close()


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[GatewayBed]:
    bed = GatewayBed(tmp_path / "home")
    yield bed
    await bed.close()


def sharing(route: Route) -> Route:
    return route.model_copy(update={"shares_prefixes": True})


async def ask(url: str, body: Any, path: str = "/v1/chat/completions", key: str = USER) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session,
        session.post(url + path, json=body) as answer,
    ):
        return answer.status, await answer.text()


async def counter(url: str, name: str) -> int:
    """What `/metrics` says of the deployment `chat`."""
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {ADMIN}"}) as session,
        session.get(url + "/metrics") as answer,
    ):
        lines = (await answer.text()).splitlines()
    start = f'llm_os_gateway_{name}{{model="chat"}} '
    return sum(int(float(line.removeprefix(start))) for line in lines if line.startswith(start))


async def coalesced(url: str) -> int:
    return await counter(url, "coalesced_total")


async def begun(bed: GatewayBed, number: int) -> None:
    """Wait until the gateway has so many requests under way."""
    await bed.until(lambda: bed.counted("chat").in_flight == number)


@pytest.mark.parametrize("stream", [True, False])
async def test_the_first_of_a_burst_is_sent_and_the_others_when_it_is_read(
    bed: GatewayBed, replica: PacedReplica, stream: bool
) -> None:
    bed.route(sharing(a_route("chat", replica)))
    await bed.start()
    burst = [asyncio.create_task(ask(bed.url, a_chat(n, stream=stream))) for n in range(6)]
    await begun(bed, 6)
    alone = asyncio.create_task(ask(bed.url, a_chat(7, common="x" * len(COMMON))))
    await replica.until(lambda: replica.in_flight == 2)  # who shares nothing goes at once
    assert len(replica.seen) == 2
    replica.reading.set()
    await replica.until(lambda: len(replica.seen) == 7)  # of the answers that are no streams, none has ended by now
    assert stream or not any(task.done() for task in burst)
    replica.ending.set()
    assert [status for status, _ in await asyncio.gather(*burst, alone)] == [200] * 7
    assert await coalesced(bed.url) == 5


async def test_a_burst_goes_to_one_replica_and_to_the_other_when_that_one_breaks(
    bed: GatewayBed, replica: PacedReplica, tmp_path: Path
) -> None:
    other = PacedReplica(tmp_path / "other.sock")
    await other.start()
    try:
        bed.route(sharing(a_route("chat", replica, other)))
        await bed.start()
        burst = [asyncio.create_task(ask(bed.url, a_chat(n))) for n in range(5)]
        await begun(bed, 5)
        first, second = (replica, other) if replica.in_flight else (other, replica)
        assert (first.in_flight, second.in_flight) == (1, 0)
        await first.close()
        await second.until(lambda: second.in_flight == 1)
        for one in (second.reading, second.ending):
            one.set()
        assert [status for status, _ in await asyncio.gather(*burst)] == [200] * 5
        assert len(second.seen) == 5
    finally:
        await other.close()


async def test_who_takes_the_place_of_one_that_leaves_and_tokens_are_only_counted_at_once(
    bed: GatewayBed, replica: PacedReplica
) -> None:
    bed.route(sharing(a_route("chat", replica)))
    await bed.start()
    first = asyncio.create_task(ask(bed.url, a_chat(0)))
    await replica.until(lambda: replica.in_flight == 1)
    others = [asyncio.create_task(ask(bed.url, a_chat(n))) for n in (1, 2)]
    await begun(bed, 3)
    late = {**a_chat(3), "model": "chat"}
    counting = asyncio.create_task(ask(bed.url, {"model": "chat", "messages": late["messages"]}, "/tokenize"))
    await replica.until(lambda: replica.in_flight == 2)  # no prompt is read for it
    first.cancel()
    await replica.until(lambda: len(replica.seen) == 3)
    assert replica.hung_up == 1
    replica.reading.set()
    replica.ending.set()
    assert [status for status, _ in await asyncio.gather(*others, counting)] == [200] * 3


async def test_a_deadline_holds_while_others_are_read(bed: GatewayBed, replica: PacedReplica) -> None:
    bed.route(sharing(a_route("chat", replica)))
    await bed.start()
    first = asyncio.create_task(ask(bed.url, a_chat(0)))
    await replica.until(lambda: replica.in_flight == 1)
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {USER}", "x-llm-os-timeout": "0.3"}) as session,
        session.post(bed.url + "/v1/chat/completions", json=a_chat(1)) as answer,
    ):
        assert (answer.status, (await answer.json())["error"]["code"]) == (504, "deadline_exceeded")
    assert len(replica.seen) == 1
    replica.reading.set()
    replica.ending.set()
    assert (await first)[0] == 200


async def test_an_interim_answer_comes_only_where_it_is_asked_for(sample_model: Callable[[str], Path]) -> None:
    async with started(plugins.load("engine", "fake"), sample_model("smollm2"), reply="a b") as served:
        for asked in (False, True):
            reader, writer = await asyncio.open_unix_connection(str(served.socket))
            body = json.dumps(a_chat(0)).encode()
            mark = f"{TELL_READ}: 1\r\n" if asked else ""
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{mark}content-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            first = await reader.readline()
            assert first == (b"HTTP/1.1 102 Processing\r\n" if asked else b"HTTP/1.1 200 OK\r\n")
            writer.close()


async def test_a_real_engine_reads_a_common_beginning_once(
    bed: GatewayBed, sample_model: Callable[[str], Path]
) -> None:
    rules = "".join(f"Rule {n}: answer question {n} in {n + 2} words. " for n in range(60))  # about 700 tokens
    async with started(plugins.load("engine", "openvino"), sample_model("smollm2")) as served:
        route = a_route("chat").model_copy(
            update={"endpoints": (Endpoint(attempt="real", url=f"unix:{served.socket}"),), "shares_prefixes": True}
        )
        bed.route(route)
        await bed.start()
        ended: list[int] = []

        async def asked(number: int, stream: bool) -> None:
            # It goes on with its rules for as long as it may, and the others end some steps after they have begun.
            body = {"model": "chat", "prompt": f"{rules}Note {number}. ", "temperature": 0, "stream": stream}
            status, text = await ask(bed.url, {**body, "max_tokens": 2 if number else 48}, "/v1/completions")
            assert status == 200, text
            ended.append(number)

        first = asyncio.create_task(asked(0, stream=False))
        while await counter(bed.url, "in_flight") < 1:
            pass  # the reading takes far longer than all this
        await asyncio.gather(first, *(asked(number, bool(number % 2)) for number in range(1, 8)))
        assert await coalesced(bed.url) == 7
        assert ended[-1] == 0  # they followed its first token, and did not wait for its last one
        await asyncio.gather(*(asked(number, stream=True) for number in (1, 2)))
        assert await coalesced(bed.url) == 7  # warm: nobody waits
