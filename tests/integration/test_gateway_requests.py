"""A real gateway process with scripted replicas: what callers see when all is well, and when they are wrong."""

import asyncio
import contextlib
import gzip
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from llm_os.server.gateway import openapi
from llm_os.testing.gateway_bed import ADMIN, LIMITED, MONITOR, USER, GatewayBed, ScriptedReplica, a_route

CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def chat(tmp_path: Path) -> AsyncIterator[ScriptedReplica]:
    replica = ScriptedReplica(tmp_path / "chat.sock")
    await replica.start()
    yield replica
    await replica.close()


@pytest.fixture
async def mood(tmp_path: Path) -> AsyncIterator[ScriptedReplica]:
    replica = ScriptedReplica(tmp_path / "mood.sock")
    await replica.start()
    yield replica
    await replica.close()


@pytest.fixture
async def bed(tmp_path: Path, chat: ScriptedReplica, mood: ScriptedReplica) -> AsyncIterator[GatewayBed]:
    bed = GatewayBed(tmp_path / "home", "--max-body", "100000")
    bed.route(
        a_route("chat", chat, version="smollm2@1"),
        a_route("mood", mood, task="text-classification", version="sentic@3"),
        a_route("starting"),
    )
    await bed.start()
    try:
        yield bed
    finally:
        await bed.close()


def client(bed: GatewayBed, key: str = USER) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=bed.url + "/v1", api_key=key, max_retries=0)


async def ask(
    bed: GatewayBed, path: str, body: Any = None, *, key: str | None = USER, method: str = "POST", **headers: str
) -> tuple[int, Any, Any]:
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, bed.url + path, data=data, headers=headers) as answer,
    ):
        text = await answer.text()
        return answer.status, json.loads(text) if "json" in answer.content_type else text, answer.headers


async def test_the_official_client_chats(bed: GatewayBed, chat: ScriptedReplica) -> None:
    async with client(bed) as ai:
        answer = await ai.chat.completions.create(**CHAT, temperature=0.5)  # type: ignore[call-overload]
    assert answer.choices[0].message.content == "one two three"
    assert answer.usage.completion_tokens == 3
    assert chat.seen == [{**CHAT, "temperature": 0.5}]


async def test_the_official_client_streams(bed: GatewayBed) -> None:
    async with client(bed) as ai:
        stream = await ai.chat.completions.create(**CHAT, stream=True)  # type: ignore[call-overload]
        words = [event.choices[0].delta.content async for event in stream]
    assert words == ["one ", "two ", "three", None]


async def test_a_version_that_is_served_is_a_name_too(bed: GatewayBed, chat: ScriptedReplica) -> None:
    status, _, _ = await ask(bed, "/v1/chat/completions", {**CHAT, "model": "smollm2@1"})
    assert (status, len(chat.seen)) == (200, 1)


async def test_classifies(bed: GatewayBed) -> None:
    status, answer, headers = await ask(bed, "/classify", {"model": "mood", "input": ["good", "fine"]})
    assert status == 200
    assert [item["label"] for item in answer["data"]] == ["positive", "positive"]
    assert headers["x-request-id"].startswith("req-")


async def test_lists_what_the_key_may_see(bed: GatewayBed) -> None:
    async with client(bed) as ai:
        assert [model.id async for model in ai.models.list()] == ["chat", "mood", "starting"]
        one = await ai.models.retrieve("chat")
        assert (one.id, one.owned_by) == ("chat", "llm-os")
    async with client(bed, LIMITED) as ai:
        assert [model.id async for model in ai.models.list()] == ["chat"]


async def test_a_wrong_key_is_the_clients_authentication_error(bed: GatewayBed, chat: ScriptedReplica) -> None:
    async with client(bed, "sk-wrong") as ai:
        with pytest.raises(openai.AuthenticationError) as caught:
            await ai.chat.completions.create(**CHAT)  # type: ignore[call-overload]
    assert caught.value.code == "authentication"
    assert chat.seen == []


async def test_an_unknown_model_is_not_found_and_the_known_ones_are_named(bed: GatewayBed) -> None:
    async with client(bed) as ai:
        with pytest.raises(openai.NotFoundError) as caught:
            await ai.chat.completions.create(**{**CHAT, "model": "chta"})  # type: ignore[call-overload]
    assert "Did you mean 'chat'?" in caught.value.body["hint"]  # type: ignore[index]
    assert "mood" in caught.value.body["hint"]  # type: ignore[index]
    assert caught.value.param == "model"


@pytest.mark.parametrize("model", ["mood", "sentic@3", "no-such-thing"])
async def test_a_limited_key_learns_nothing_of_other_deployments(bed: GatewayBed, model: str) -> None:
    status, answer, _ = await ask(bed, "/classify", {"model": model, "input": "x"}, key=LIMITED)
    assert (status, answer["error"]["code"]) == (403, "permission_denied")
    assert answer["error"]["hint"] == "It may use: chat."


async def test_the_wrong_endpoint_names_the_right_one(bed: GatewayBed) -> None:
    status, answer, _ = await ask(bed, "/v1/chat/completions", {**CHAT, "model": "mood"})
    assert (status, "POST /classify" in answer["error"]["hint"]) == (400, True)
    status, answer, _ = await ask(bed, "/classify", {"model": "chat", "input": "x"})
    assert (status, "POST /v1/chat/completions" in answer["error"]["hint"]) == (400, True)


async def test_a_deployment_without_a_ready_replica_is_unavailable(bed: GatewayBed) -> None:
    wait = {"x-llm-os-timeout": "0.2"}
    status, answer, headers = await ask(bed, "/v1/chat/completions", {**CHAT, "model": "starting"}, **wait)
    assert (status, answer["error"]["code"], headers["retry-after"]) == (503, "unavailable", "1")


@pytest.mark.parametrize(
    ("key", "chats", "watches"), [(ADMIN, 200, 200), (USER, 200, 403), (MONITOR, 403, 200), (None, 401, 401)]
)
async def test_roles(bed: GatewayBed, key: str | None, chats: int, watches: int) -> None:
    assert (await ask(bed, "/v1/chat/completions", CHAT, key=key))[0] == chats
    assert (await ask(bed, "/metrics", key=key, method="GET"))[0] == watches


async def test_health_needs_no_key_and_says_nothing_else(bed: GatewayBed) -> None:
    assert (await ask(bed, "/health", key=None, method="GET"))[:2] == (200, {"status": "ok"})


async def test_foreign_pages_and_rebound_names_are_refused(bed: GatewayBed) -> None:
    assert (await ask(bed, "/health", method="GET", key=None, host="evil.example"))[0] == 403
    assert (await ask(bed, "/v1/models", method="GET", origin="https://evil.example"))[0] == 403
    assert (await ask(bed, "/v1/models", method="GET", origin="http://localhost:3000"))[0] == 200


async def test_an_engines_refusal_keeps_its_status_and_gets_our_shape(bed: GatewayBed, chat: ScriptedReplica) -> None:
    chat.refuse_with = (400, {"error": {"code": "invalid_option", "message": "too long", "hint": "Shorten it."}})
    status, answer, _ = await ask(bed, "/v1/chat/completions", CHAT)
    assert status == 400
    assert answer["error"] == {
        "message": "too long",
        "type": "invalid_request_error",
        "code": "invalid_option",
        "param": None,
        "hint": "Shorten it.",
    }
    chat.refuse_with = (500, "nonsense")
    status, answer, _ = await ask(bed, "/v1/chat/completions", CHAT)
    assert (status, answer["error"]["code"]) == (500, "engine_error")


MALFORMED: list[tuple[Any, dict[str, str]]] = [
    (b"", {}),
    (b"{", {}),
    (b"[" * 50_000, {}),
    (b"\xff\xfe\x00", {}),
    (b"null", {}),
    (b'"text"', {}),
    (b"[1, 2]", {}),
    ({}, {}),
    ({"model": 5}, {}),
    ({"model": None, "messages": []}, {}),
    ({"model": "chat"}, {}),
    ({"model": "chat", "messages": "hello"}, {}),
    ({"model": "chat", "messages": []}, {}),
    ({"model": "chat", "messages": ["hello"]}, {}),
    ({"model": "chat", "messages": [{"role": 1}]}, {}),
    ({"model": "chat", "messages": [{"role": "user", "content": 7}]}, {}),
    ({**CHAT, "stream": "yes"}, {}),
    ({"model": "mood", "input": 5}, {}),
    ({"model": "mood", "input": []}, {}),
    ({"model": "mood", "input": ["a", 1]}, {}),
    ({"model": "x" * 90_000, "messages": CHAT["messages"]}, {}),
    (b" " * 200_000, {}),
    (b"not gzip", {"content-encoding": "gzip"}),
    (b"x", {"content-type": "multipart/form-data; boundary=y"}),
    (b"x", {"content-type": ";;/nonsense"}),
]


async def test_no_malformed_request_gets_a_500_or_reaches_a_replica(
    bed: GatewayBed, chat: ScriptedReplica, mood: ScriptedReplica
) -> None:
    for path in ("/v1/chat/completions", "/classify"):
        for body, headers in MALFORMED:
            status, answer, _ = await ask(bed, path, body, **headers)
            assert 400 <= status < 500, (path, body, status)
            assert set(answer["error"]) == {"message", "type", "code", "param", "hint"}, (path, body)
    assert chat.seen == mood.seen == []


async def test_a_huge_body_is_refused_before_it_is_read(bed: GatewayBed) -> None:
    status, answer, _ = await ask(bed, "/classify", {"model": "mood", "input": "x" * 200_000})
    assert (status, answer["error"]["code"]) == (413, "too_large")


async def test_a_body_that_grows_beyond_the_limit_is_refused_however_it_comes(bed: GatewayBed) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10_000

    bomb, headers = gzip.compress(b" " * 50_000_000), {"authorization": f"Bearer {USER}"}
    assert len(bomb) < 100_000
    async with aiohttp.ClientSession(headers=headers) as session:
        for path, shape in (("/classify", {"error"}), ("/v1/messages", {"type", "error", "request_id"})):
            for data, encoding in ((parts(), {}), (bomb, {"content-encoding": "gzip"})):
                async with session.post(bed.url + path, data=data, headers=encoding) as answer:
                    told = await answer.json()
                    assert (answer.status, told["error"]["code"], set(told)) == (413, "too_large", shape), told
    status, told, _ = await ask(bed, "/v1/messages", b"{")
    assert (status, told["type"], told["error"]["type"]) == (400, "error", "invalid_request_error")


async def test_unknown_paths_and_methods_have_the_same_shape(bed: GatewayBed) -> None:
    status, answer, _ = await ask(bed, "/v1/poems", {})
    assert (status, answer["error"]["type"]) == (404, "not_found_error")
    assert (await ask(bed, "/classify", method="GET"))[0] == 405


async def test_metrics_count_requests_tokens_and_refusals(bed: GatewayBed) -> None:
    await ask(bed, "/v1/chat/completions", {**CHAT, "stream": True})
    await ask(bed, "/v1/chat/completions", CHAT, key="sk-wrong")
    _, page, _ = await ask(bed, "/metrics", key=MONITOR, method="GET")
    route = 'route="/v1/chat/completions"'
    who = 'tenant="default",version="smollm2@1"'
    nobody = 'tenant="",version=""'
    assert f'llm_os_gateway_requests_total{{model="chat",{route},status="200",{who}}} 1.0' in page
    assert f'llm_os_gateway_requests_total{{model="",{route},status="401",{nobody}}} 1.0' in page
    assert f'llm_os_gateway_tokens_total{{direction="out",model="chat",{who}}} 3.0' in page
    assert f'llm_os_gateway_between_tokens_seconds_count{{model="chat",{route},{who}}} 1.0' in page
    assert f'llm_os_gateway_queue_seconds_count{{model="chat",{route},{who}}} 1.0' in page
    assert 'llm_os_gateway_waiting{model="chat"} 0.0' in page
    assert 'llm_os_gateway_rejected_total{code="authentication"} 1.0' in page
    assert f'llm_os_gateway_first_byte_seconds_count{{model="chat",{route},{who}}} 1.0' in page
    assert 'llm_os_gateway_in_flight{model="chat"} 0.0' in page


async def test_first_tokens_are_timed_of_streams_alone(bed: GatewayBed) -> None:
    for body in ({**CHAT, "stream": True}, CHAT, CHAT):
        assert (await ask(bed, "/v1/chat/completions", body))[0] == 200
    assert (await ask(bed, "/classify", {"model": "mood", "input": "fine"}))[0] == 200
    _, page, _ = await ask(bed, "/metrics", key=MONITOR, method="GET")
    who = 'model="chat",route="/v1/chat/completions",tenant="default",version="smollm2@1"'
    assert f"llm_os_gateway_first_byte_seconds_count{{{who}}} 3.0" in page
    assert f"llm_os_gateway_first_token_seconds_count{{{who}}} 1.0" in page
    assert 'llm_os_gateway_first_token_seconds_count{model="mood"' not in page


async def test_the_log_tells_of_requests_but_not_what_they_said(bed: GatewayBed) -> None:
    secret = {"model": "chat", "messages": [{"role": "user", "content": "my secret"}]}
    await ask(bed, "/v1/chat/completions", secret)
    await ask(bed, "/v1/chat/completions", b'{"my secret')
    log = bed.settings.logs / "gateway-access.log"
    await bed.until(lambda: log.exists() and "status=400" in log.read_text())
    text = log.read_text()
    assert "POST /v1/chat/completions status=200 model=chat key=user" in text
    assert "my secret" not in text
    assert USER not in text


async def test_what_is_asked_is_logged_where_the_operator_asks_for_it(tmp_path: Path, chat: ScriptedReplica) -> None:
    made = GatewayBed(tmp_path / "other", env={"LLM_OS_LOG_PROMPTS": "1"})
    made.route(a_route("chat", chat))
    await made.start()
    try:
        said = {"model": "chat", "messages": [{"role": "user", "content": 'a "line"\nand one more ' + "x" * 9000}]}
        await ask(made, "/v1/chat/completions", said)
        log = made.settings.logs / "gateway-access.log"
        await made.until(lambda: log.exists() and "status=200" in log.read_text())
        (line,) = log.read_text().splitlines()
        logged = json.loads(line.partition(" prompt=")[2])
        assert 'user\x1fa "line"\nand one more' in logged
        assert len(logged) == 4000
        assert USER not in line
    finally:
        await made.close()


async def test_slow_callers_lose_their_connection_and_harm_nobody(tmp_path: Path, chat: ScriptedReplica) -> None:
    """Slow loris: heads and bodies that come byte by byte, or not at all."""
    made = GatewayBed(tmp_path / "other", "--headers-within", "4", "--body-within", "1")
    made.route(a_route("chat", chat))
    await made.start()
    port = int(made.url.rsplit(":", 1)[1])
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    body = head + f"authorization: Bearer {USER}\r\ncontent-length: 1000\r\n\r\n".encode()

    async def slow(begin: bytes, drip: bytes) -> bytes:
        """What it is answered until it is left alone; it never stops sending by itself."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = b""
        try:
            writer.write(begin)
            async with asyncio.timeout(20):
                while True:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.2):
                            chunk = await reader.read(4096)
                        if not chunk:
                            return answer
                        answer += chunk
                        continue
                    writer.write(drip)
                    await writer.drain()
        except ConnectionError:
            return answer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    try:
        many = [slow(head, b"x-more: 1\r\n") for _ in range(50)]
        ends = asyncio.gather(slow(b"", b""), slow(head, b""), slow(b"P", b""), slow(body, b" "), *many)
        for _ in range(5):
            assert (await ask(made, "/v1/chat/completions", CHAT))[0] == 200
        answers = await ends
        assert b" 400 " in answers[3].splitlines()[0]
        assert b"did not arrive within 1 s" in answers[3]
        assert {answer for at, answer in enumerate(answers) if at != 3} <= {b""} | {
            answer for answer in answers if answer.startswith(b"HTTP/1.1 4")
        }
        assert len(chat.seen) == 5, "none of it reached a replica"
    finally:
        await made.close()


def test_the_gateway_starts_without_the_kernels_code() -> None:
    heavy = (
        "('sqlalchemy', 'fastapi', 'starlette', 'uvicorn', 'torch', 'tokenizers', 'transformers', 'numpy', "
        "'llm_os.kernel', 'llm_os.store', 'llm_os.drivers')"
    )
    program = f"import sys, llm_os.server.gateway.main; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout == "[]\n"


AUTHORISED = f"POST /classify HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {USER}\r\n"


BROKEN = [
    b"\0" * 1000,
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /%00%ff%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/models/%2e%2e%2f HTTP/1.1\r\nHost: localhost\r\n\r\n",
    f"{AUTHORISED}Content-Length: -5\r\n\r\n".encode(),
    f"{AUTHORISED}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode(),
    f"{AUTHORISED}Transfer-Encoding: chunked\r\n\r\nZZZ\r\n".encode(),
    f"{AUTHORISED}Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc".encode(),
    f"{AUTHORISED}Content-Length: 99999999999999999999\r\n\r\n{{".encode(),
]


async def test_broken_http_is_refused_and_harms_nobody_else(bed: GatewayBed) -> None:
    for wire in BROKEN:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(bed.url.rsplit(":", 1)[1]))
        writer.write(wire)
        writer.write_eof()
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), (wire[:80], answer[:200])
        assert (await ask(bed, "/health", key=None, method="GET"))[0] == 200


async def test_the_document_of_all_endpoints_is_served_without_a_key(bed: GatewayBed) -> None:
    status, told, _ = await ask(bed, "/openapi.json", key=None, method="GET")
    assert (status, told) == (200, json.loads(openapi.page()))


async def test_a_wrong_method_is_refused_with_those_that_there_are(bed: GatewayBed) -> None:
    status, answer, headers = await ask(bed, "/v1/messages", {}, method="PUT")
    assert (status, headers["allow"]) == (405, "POST")
    assert answer["error"]["type"] == "invalid_request_error"
    assert "/v1/messages/count_tokens" in answer["error"]["hint"]


async def test_a_caller_may_wait_for_leave_to_send_its_body(bed: GatewayBed) -> None:
    body = json.dumps(CHAT).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {USER}\r\n"
    head += f"content-length: {len(body)}\r\nconnection: close\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(bed.url.rsplit(":", 1)[1]))
    writer.write(f"{head}expect: 100-Continue\r\n\r\n".encode())
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    status, answer, _ = await ask(bed, "/v1/chat/completions", CHAT, expect="a-miracle")
    assert (status, answer["error"]["code"]) == (417, "invalid_input")


async def test_paths_are_those_of_the_document_and_no_others(bed: GatewayBed) -> None:
    async with aiohttp.ClientSession() as session, session.head(f"{bed.url}/health") as head:
        assert (head.status, await head.read()) == (200, b"")
    assert (await ask(bed, "/v1/models/smollm2%401", method="GET"))[1]["id"] == "chat"
    assert (await ask(bed, "/v1/%63hat/completions", CHAT))[0] == 200
    for path in ("/v1/models/", "/v1/models/chat/more", "/v1/models/{model}", "/", "/v1/chat", "/V1/models"):
        assert (await ask(bed, path, method="GET"))[0] == 404, path


async def test_broken_http_is_a_line_of_the_log_and_no_traceback(bed: GatewayBed) -> None:
    head = f"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {USER}\r\n".encode()
    log = bed.settings.logs / "gateway.log"
    broken = (b"accept: \0", b"content-length: -1", b"content-encoding: gzip\r\ncontent-length: 9")
    for number, line in enumerate(broken, start=1):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(bed.url.rsplit(":", 1)[1]))
        writer.write(head + line + b"\r\n\r\nnot gzip!")
        assert b" 400 " in await reader.readline()
        writer.close()
        await bed.until(lambda so_far=number: log.read_text().count("no HTTP: 400") == so_far)
    assert "Traceback" not in log.read_text()
