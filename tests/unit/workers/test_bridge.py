"""A backend in front of a server that speaks OpenAI's API: what it asks, passes on, and says of failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from llm_os.errors import (
    DeadlineError,
    InvalidInputError,
    InvalidOptionError,
    LLMOSError,
    OverloadedError,
    UnavailableError,
    UpstreamError,
)
from llm_os.testing.openai_server import ANSWER, Faults, Server
from llm_os.workers import llamacpp
from llm_os.workers.backend import Piece
from llm_os.workers.bridge import Bridge, heard
from llm_os.workers.llamacpp import LlamaBackend
from llm_os.workers.requests import ChatRequest
from llm_os.workers.shapes import usage_of
from llm_os.workers.upstream import Upstream

HELLO = ({"role": "user", "content": "What is it?"},)


@asynccontextmanager
async def listening(server: Server, tmp_path: Path) -> AsyncIterator[str]:
    """The server on a Unix socket."""
    runner = web.AppRunner(server.app(), handler_cancellation=True)
    await runner.setup()
    path = str(tmp_path / "s.sock")
    await web.UnixSite(runner, path).start()
    try:
        yield path
    finally:
        await runner.cleanup()


@asynccontextmanager
async def bridged(server: Server, tmp_path: Path, *, key: str | None = None, most: int = 4) -> AsyncIterator[Bridge]:
    async with listening(server, tmp_path) as path:
        upstream = Upstream("toy.example", "http://toy/v1", socket=path, key=key, outside=True)
        bridge = Bridge(upstream, model="big", most=most)
        await bridge.begin()
        server.asked.clear()
        try:
            yield bridge
        finally:
            await bridge.end()


async def answered(bridge: Bridge, **more: Any) -> list[Piece]:
    return [piece async for piece in bridge.chat(ChatRequest(messages=HELLO, **more))]


async def test_an_answer_comes_in_pieces_and_the_last_one_counts(tmp_path: Path) -> None:
    async with bridged(Server(), tmp_path) as bridge:
        pieces = await answered(bridge)
    assert "".join(piece.text for piece in pieces) == ANSWER
    assert [piece.finish for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    assert (pieces[-1].prompt_tokens, pieces[-1].completion_tokens) == (4, 6)


async def test_a_server_that_tells_no_counts_is_counted_by_its_events(tmp_path: Path) -> None:
    async with bridged(Server(usage=False), tmp_path) as bridge:
        assert (await answered(bridge))[-1].completion_tokens == 6


async def test_it_asks_for_what_it_was_asked_for_and_for_nothing_else(tmp_path: Path) -> None:
    server = Server()
    async with bridged(server, tmp_path, key="secret") as bridge:
        await answered(bridge)
        (bare,) = server.asked
        await answered(
            bridge, seed=0, max_tokens=3, stop=("x",), logprobs=2, schema='{"type": "object"}', presence_penalty=0.5
        )
        asked = server.asked[1]
    assert set(bare) == {"model", "stream", "stream_options", "temperature", "top_p", "messages"}
    assert bare["model"] == "big"
    assert (asked["seed"], asked["max_tokens"], asked["stop"], asked["presence_penalty"]) == (0, 3, ["x"], 0.5)
    assert (asked["logprobs"], asked["top_logprobs"]) == (True, 2)
    assert asked["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert server.headers["Authorization"] == "Bearer secret"


async def test_a_stop_that_the_server_met_is_named(tmp_path: Path) -> None:
    async with bridged(Server(), tmp_path) as bridge:
        last = (await answered(bridge, stop=("France",)))[-1]
    assert (last.finish, last.stop, last.completion_tokens) == ("stop", "France", 3)


async def test_probabilities_go_with_their_tokens(tmp_path: Path) -> None:
    async with bridged(Server(), tmp_path) as bridge:
        scores = [score for piece in await answered(bridge, logprobs=2, max_tokens=2) for score in piece.scores]
    assert [score.text for score in scores] == ["The", " capital"]
    assert [len(score.top) for score in scores] == [2, 2]


def test_the_shape_that_vllm_has_for_completions_is_read_too() -> None:
    told = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"b": -2.0, "a": -1.0}], "text_offset": [0]}
    said = heard({"choices": [{"text": "a", "logprobs": told, "finish_reason": "length"}], "usage": None})
    assert (said.text, said.finish) == ("a", "length")
    assert said.scores[0].top == (("a", -1.0), ("b", -2.0))


async def test_a_reader_who_leaves_ends_the_servers_work(tmp_path: Path) -> None:
    server = Server()
    async with bridged(server, tmp_path) as bridge:
        pieces = bridge.chat(ChatRequest(messages=HELLO, max_tokens=2000))
        await anext(pieces)
        await pieces.aclose()
        await answered(bridge)  # its connection is a new one, its answer its own
    assert server.left == 1


async def test_more_requests_than_it_may_have_are_refused(tmp_path: Path) -> None:
    async with bridged(Server(), tmp_path, most=1) as bridge:
        pieces = bridge.chat(ChatRequest(messages=HELLO))
        await anext(pieces)
        with pytest.raises(OverloadedError):
            await answered(bridge)
        await pieces.aclose()
        assert len(await answered(bridge)) > 1


REFUSALS: Sequence[tuple[int, dict[str, Any], type[LLMOSError], str]] = (
    (400, {"message": "bad top_p", "param": "top_p"}, InvalidInputError, "bad top_p"),
    (401, {"message": "no such key"}, UpstreamError, "key_file"),
    (403, {"message": "not yours"}, UpstreamError, "may not"),
    (404, {"message": "no model big"}, UpstreamError, "name of the model"),
    (302, {}, UpstreamError, "302"),
    (429, {"message": "slow down"}, OverloadedError, "slow down"),
    (500, {"message": "oh"}, UnavailableError, "oh"),
    (503, {"message": "later"}, UnavailableError, "later"),
    (504, {"message": "late"}, DeadlineError, "late"),
)


@pytest.mark.parametrize(("status", "told", "kind", "says"), REFUSALS, ids=lambda value: str(value)[:12])
async def test_a_refusal_says_who_refused_and_what(
    status: int, told: dict[str, Any], kind: type[LLMOSError], says: str, tmp_path: Path
) -> None:
    server = Server()
    async with bridged(server, tmp_path) as bridge:
        server.faults = Faults(refuses=(status, told, {"retry-after": "7", "location": "/health"}))
        with pytest.raises(kind) as caught:
            await answered(bridge)
    assert "toy.example" in caught.value.message
    assert says in str(caught.value)
    assert caught.value.details["retry_after"] == 7
    assert caught.value.details.get("param") == told.get("param")


async def test_a_stream_that_breaks_off_is_no_whole_answer(tmp_path: Path) -> None:
    server = Server()
    async with bridged(server, tmp_path) as bridge:
        server.faults = Faults(breaks=True)
        with pytest.raises(UnavailableError, match="broke its answer off"):
            await answered(bridge)


async def test_nobody_listening_and_no_answer_in_time_are_told_apart(tmp_path: Path) -> None:
    nobody = Bridge(Upstream("toy.example", "http://toy/v1", socket=str(tmp_path / "none")), model="m", most=1)
    with pytest.raises(UnavailableError, match=r"toy\.example cannot be spoken to"):
        await nobody.begin()
    await nobody.end()
    async with listening(Server(pause=60), tmp_path) as path:
        slow = Bridge(Upstream("toy.example", "http://toy/v1", socket=path, silence=0.05), model="m", most=1)
        with pytest.raises(DeadlineError, match="in time"):
            await slow.begin()
        await slow.end()


async def test_a_key_is_in_no_error(tmp_path: Path) -> None:
    server = Server()
    async with bridged(server, tmp_path, key="sk-very-secret") as bridge:
        server.faults = Faults(refuses=(401, {"message": "Incorrect API key provided: sk-very-secret."}, {}))
        with pytest.raises(UpstreamError, match=r"provided: \[key\]") as caught:
            await answered(bridge)
    assert "sk-very-secret" not in repr(caught.value.to_dict()) + repr(caught.value.__context__)


async def test_an_error_in_a_stream_may_be_a_text(tmp_path: Path) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"error": "the model fell asleep"}\n\n')
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", broken)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s.sock")).start()
    bridge = Bridge(Upstream("toy.example", "http://toy/v1", socket=str(tmp_path / "s.sock")), model="m", most=1)
    bridge.upstream.begin()
    try:
        with pytest.raises(UnavailableError, match="the model fell asleep"):
            await answered(bridge)
    finally:
        await bridge.end()
        await runner.cleanup()


class Elsewhere:
    """In the place of a child: a server that somebody else runs."""

    who = "llama.cpp"

    def __init__(self, socket: str) -> None:
        self.socket = socket

    async def start(self) -> None:
        """It runs already."""

    async def until(self, answers: Callable[[], Awaitable[bool]]) -> None:
        assert await answers()

    async def death(self) -> LLMOSError:
        return await asyncio.get_running_loop().create_future()

    async def end(self) -> None:
        """It goes on."""


@asynccontextmanager
async def llama(server: Server, tmp_path: Path, context: int = 32) -> AsyncIterator[LlamaBackend]:
    """The backend of llama.cpp in front of a server that was started elsewhere."""
    async with listening(server, tmp_path) as path:
        backend = LlamaBackend(Elsewhere(path), model="m", most=4, context=context, vocabulary=1000)
        await backend.begin()
        server.asked.clear()
        try:
            yield backend
        finally:
            await backend.end()


async def test_a_chat_becomes_tokens_whose_number_is_known_before_the_answer(tmp_path: Path) -> None:
    server = Server()
    async with llama(server, tmp_path) as backend:
        pieces = await answered(backend)
        (asked,) = server.asked
        told = await backend.tokenize(ChatRequest(messages=HELLO))
    assert pieces[0].prompt_tokens == len(asked["prompt"]) == len(told.ids) == 4
    assert asked["max_tokens"] == 32 - 4, "what the context has room for"
    assert (asked["top_k"], asked["min_p"]) == (0, 0.0), "nothing is cut that was not asked for"


@pytest.mark.parametrize(
    ("request_", "samplers", "penalty"),
    [
        (ChatRequest(messages=HELLO, temperature=0.0), ["top_k"], None),
        (ChatRequest(messages=HELLO, temperature=0.0, repetition_penalty=1.1), None, 1.1),
        (ChatRequest(messages=HELLO, temperature=0.0, frequency_penalty=0.5), None, 1.0),
        (ChatRequest(messages=HELLO, temperature=0.7, top_k=5), None, 1.0),
    ],
)
async def test_the_likeliest_token_is_asked_for_without_sorting_unless_penalties_change_which_it_is(
    tmp_path: Path, request_: ChatRequest, samplers: list[str] | None, penalty: float | None
) -> None:
    async with llama(Server(), tmp_path) as backend:
        body = backend.asked(request_, "/completions")
    assert body["samplers"] == (samplers or ["penalties", "top_k", "temperature", "top_p"])
    assert (body["top_k"], body.get("repeat_penalty")) == (1 if samplers else request_.top_k, penalty)


async def test_a_prompt_that_leaves_no_room_is_refused_with_both_numbers(tmp_path: Path) -> None:
    server = Server()
    async with llama(server, tmp_path, context=3) as backend:
        with pytest.raises(InvalidOptionError, match=r"has 4 tokens or more, .* room for 3") as caught:
            await answered(backend)
    assert caught.value.details["param"] == "messages"
    assert server.asked == []


async def test_messages_that_the_template_refuses_are_the_callers_mistake(tmp_path: Path) -> None:
    async with llama(Server(), tmp_path) as backend:
        with pytest.raises(InvalidInputError, match=r"template refuses these messages.*alternate"):
            await backend.tokenize(ChatRequest(messages=({"role": "assistant", "content": "I"},)))


async def test_no_more_alternatives_are_told_than_were_asked_for(tmp_path: Path) -> None:
    async with llama(Server(), tmp_path) as backend:
        scores = [score for piece in await answered(backend, logprobs=0) for score in piece.scores]
        few = [score for piece in await answered(backend, logprobs=3) for score in piece.scores]
    assert len(scores) == len(few) == 6
    assert {score.top for score in scores} == {()}
    assert {len(score.top) for score in few} == {3}


async def test_how_likely_given_tokens_are_is_asked_one_by_one(tmp_path: Path) -> None:
    server = Server()
    async with llama(server, tmp_path) as backend:
        assert await backend.logprobs((7, 8, 9)) == pytest.approx([-0.01, -0.02])
        assert await backend.logprobs((7,)) == []
        of_the_last = await backend.logprobs(range(100))
    assert of_the_last == pytest.approx([-0.01 * at for at in range(76, 100)])
    one, two, *_ = server.asked
    assert [one["prompt"], two["prompt"]] == [[7], [7, 8]]
    assert [one["logit_bias"][0][0], two["logit_bias"][0][0]] == [8, 9]
    assert (one["n_predict"], one["n_probs"]) == (1, 1)


@pytest.mark.parametrize(("token", "asked"), [(500, [1, 10]), (509, [1, 10]), (510, [1, 10, 1000])])
async def test_a_token_of_which_nothing_is_told_is_looked_for_among_the_likeliest_then_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: int, asked: list[int]
) -> None:
    monkeypatch.setattr(llamacpp, "LIKELIEST", 10)
    server = Server()
    async with llama(server, tmp_path) as backend:
        plain = await backend._plain()
        assert await backend.logprobs((7, token)) == pytest.approx([-0.01])
        assert await backend.logprobs((7, 2000)) is None, "which is not among all"
    told = server.asked[: len(asked)]
    assert [one["n_probs"] for one in told] == asked
    assert [one["logit_bias"][0][0] for one in told] == [token] + [plain] * (len(asked) - 1)


OTHER_RELEASES: Sequence[tuple[int, Any]] = (
    (200, {"content": "x"}),
    (200, {"content": "x", "completion_probabilities": [{"content": "x", "probs": [{"tok_str": "x", "prob": 1}]}]}),
    (200, {"content": "x", "completion_probabilities": [{"id": 8, "logprob": None, "top_logprobs": []}]}),
    (400, {"error": {"message": "unknown field: n_probs"}}),
    (404, {"error": {"message": "File Not Found"}}),
    (500, {"error": {"message": "logit_bias must be something else"}}),
)


@pytest.mark.parametrize(("status", "answer"), OTHER_RELEASES)
async def test_a_server_of_another_release_may_not_tell_how_likely_tokens_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, answer: Any
) -> None:
    async def other(self: Server, request: web.Request) -> web.Response:
        return web.json_response(answer, status=status)

    monkeypatch.setattr(Server, "_dictated", other)
    async with llama(Server(), tmp_path) as backend:
        assert await backend.logprobs((7, 8, 9)) is None


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[int, list[str]]]:
    """A proxy that refuses everything; (its port, first lines of what it was asked)."""
    lines: list[str] = []

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append((await reader.readline()).decode().strip())
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], lines


async def once(upstream: Upstream) -> None:
    upstream.begin()
    try:
        await upstream.post("/chat/completions", {})
    finally:
        await upstream.end()


async def test_a_server_outside_is_asked_by_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with proxy() as (port, lines):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        with pytest.raises(UnavailableError, match=r"https://far\.example cannot be spoken to"):
            await once(Upstream("https://far.example", "https://far.example/v1", outside=True))
        assert lines == ["CONNECT far.example:443 HTTP/1.1"]
        monkeypatch.setenv("no_proxy", "far.example")
        with pytest.raises(UnavailableError):
            await once(Upstream("https://far.example", "https://far.example/v1", outside=True))
        assert len(lines) == 1, "who is excepted is asked directly"


@pytest.mark.parametrize("outside", [True, False])
async def test_no_proxy_is_asked_for_this_machine_or_a_unix_socket(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outside: bool
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with proxy() as (port, lines):
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        with pytest.raises(UnavailableError, match="Connect"):  # nobody listens there, and nobody else was asked
            await once(Upstream("here", "http://127.0.0.1:1/v1", outside=outside))
        async with listening(Server(), tmp_path) as path:
            upstream = Upstream("socket", "http://far.example", socket=path, outside=outside)
            upstream.begin()
            assert await upstream.post("/tokenize", {"content": "a b"})
            await upstream.end()
        assert lines == []


def test_what_was_in_a_servers_cache_is_heard_in_both_shapes() -> None:
    assert heard({"usage": {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 7}}}).cached_tokens == 7
    assert heard({"choices": [{"text": "a"}], "timings": {"predicted_n": 1, "cache_n": 0}}).cached_tokens == 0
    assert heard({"usage": {"prompt_tokens": 9, "prompt_tokens_details": None}}).cached_tokens is None
    assert heard({"usage": {"prompt_tokens_details": {"cached_tokens": "many"}}}).cached_tokens is None


def test_usage_tells_the_cache_once_a_prompt_and_only_where_the_engine_does() -> None:
    pieces = [Piece("a", 10, 3, "stop", cached_tokens=8), Piece("b", 10, 2, "stop", cached_tokens=10)]
    assert usage_of(pieces, 2)["prompt_tokens_details"] == {"cached_tokens": 8}
    assert usage_of(pieces, 1)["prompt_tokens_details"] == {"cached_tokens": 18}
    assert usage_of([Piece("a", 10, 3, "stop", cached_tokens=99)], 1)["prompt_tokens_details"] == {"cached_tokens": 10}
    assert "prompt_tokens_details" not in usage_of([*pieces, Piece("c", 1, 1, "stop")], 1)


async def test_a_server_that_closes_an_idle_connection_is_asked_by_a_new_one(tmp_path: Path) -> None:
    """On a busy machine its end crosses the next request: that one would be lost with the connection."""
    ends: list[asyncio.Event] = []

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(end := asyncio.Event())
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        await writer.drain()
        await reader.read(1)  # the next request, or the end
        writer.close()
        await writer.wait_closed()
        end.set()

    server = await asyncio.start_unix_server(met, str(tmp_path / "s.sock"))
    async with server:
        upstream = Upstream("toy", "http://toy/v1", socket=str(tmp_path / "s.sock"))
        upstream.begin()
        for _ in range(3):
            assert await upstream.post("/completions", {}) == {}
        await upstream.end()
        for end in ends:
            await end.wait()
    assert len(ends) == 3
