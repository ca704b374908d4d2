"""A real gateway sends its traces to a real receiver of OTLP over HTTP; one that is away harms nobody."""

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from llm_os.testing.gateway_bed import USER, GatewayBed, ScriptedReplica, a_route

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry.exporter") is None, reason="the extra 'traces' is not installed"
)
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "a secret"}], "stream": True}
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS = {"authorization": f"Bearer {USER}", "traceparent": CALLER, "x-llm-os-priority": "batch"}


class Receiver:
    """A collector. `bodies` holds what it was sent, `hangs` makes it say nothing."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.bodies: list[bytes] = []
        self.hangs = hangs

    async def start(self) -> str:
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        if self.hangs:
            await asyncio.Event().wait()
        return web.Response(content_type="application/x-protobuf")

    def spans(self) -> dict[str, tuple[Any, dict[str, Any]]]:
        """By name: the span, and its attributes."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        found = {}
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        values = {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
                        found[span.name] = (span, values)
        return found


@pytest.fixture
async def chat(tmp_path: Path) -> AsyncIterator[ScriptedReplica]:
    replica = ScriptedReplica(tmp_path / "chat.sock")
    await replica.start()
    yield replica
    await replica.close()


async def answered(home: Path, chat: ScriptedReplica) -> tuple[GatewayBed, list[int]]:
    """What a gateway of this home answers to a few chats, and the gateway, which has ended."""
    bed = GatewayBed(home)
    bed.route(a_route("chat", chat, version="smollm2@1"))
    await bed.start()
    statuses = []
    try:
        async with aiohttp.ClientSession(headers=HEADERS) as session:
            for _ in range(3):
                async with session.post(bed.url + "/v1/chat/completions", json=CHAT) as answer:
                    assert (await answer.read()).endswith(b"data: [DONE]\n\n")
                    statuses.append(answer.status)
    finally:
        assert await bed.close() == 0
    return bed, statuses


async def test_a_collector_gets_the_trace_of_a_request(
    tmp_path: Path, chat: ScriptedReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver()
    monkeypatch.setenv("LLM_OS_TRACES", await receiver.start())
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    try:
        await answered(tmp_path / "home", chat)
    finally:
        await receiver.close()
    spans = receiver.spans()
    root, facts = spans["POST /v1/chat/completions"]
    attempt, _ = spans["attempt"]
    assert f"00-{root.trace_id.hex()}-{root.parent_span_id.hex()}-01" == CALLER
    assert attempt.parent_span_id == root.span_id
    assert chat.heads[-1]["traceparent"] == f"00-{root.trace_id.hex()}-{attempt.span_id.hex()}-01"
    assert [event.name for event in attempt.events] == ["first token"]
    assert (facts["gen_ai.usage.input_tokens"], facts["gen_ai.usage.output_tokens"]) == (7, 3)
    assert (facts["gen_ai.request.model"], facts["gen_ai.response.model"]) == ("chat", "smollm2@1")
    assert (facts["llm_os.tenant"], facts["llm_os.priority"]) == ("default", "batch")
    everything = b"".join(receiver.bodies)
    assert b"a secret" not in everything
    assert USER.encode() not in everything


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_collector_that_is_away_or_hangs_harms_no_request(
    tmp_path: Path, chat: ScriptedReplica, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    receiver = Receiver(hangs=hangs)
    monkeypatch.setenv("LLM_OS_TRACES", await receiver.start())
    if not hangs:
        await receiver.close()
    try:
        bed, statuses = await answered(tmp_path / "home", chat)
    finally:
        await receiver.close()
    assert statuses == [200, 200, 200]
    log = (bed.settings.logs / "gateway.log").read_text()
    assert "Traceback" not in log
    assert sum("opentelemetry.exporter" in line for line in log.splitlines()) <= 1
    assert bool(receiver.bodies) == hangs
    assert json.loads((bed.settings.usage).read_bytes())["deployments"]["chat"]["requests"] == 3
