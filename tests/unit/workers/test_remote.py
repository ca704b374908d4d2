"""The worker of `remote`: its key comes from a file that nobody else can read, and goes nowhere but to its server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from llm_os.errors import InvalidInputError
from llm_os.models.remote import Remote
from llm_os.testing.openai_server import ANSWER, Faults, Server
from llm_os.workers.remote import RemoteBackend, read_key
from llm_os.workers.requests import ChatRequest
from llm_os.workers.upstream import Upstream


def key_file(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_key_is_read_without_its_line_end(tmp_path: Path) -> None:
    assert read_key(key_file(tmp_path, b"sk-1234\n")) == "sk-1234"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_key_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="read by others") as caught:
        read_key(key_file(tmp_path, b"sk-1234", mode))
    assert "sk-1234" not in str(caught.value)
    assert "chmod 600" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"a\nb", "ключ".encode(), b"k" * 20_000, b"a\0b"])
def test_a_file_that_holds_no_key_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no key"):
        read_key(key_file(tmp_path, content))


def test_what_is_no_file_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="No such file"):
        read_key(tmp_path / "none")
    with pytest.raises(InvalidInputError, match="is no file"):
        read_key(tmp_path)
    with pytest.raises(InvalidInputError, match="no absolute path"):
        read_key(Path("key"))


def test_the_most_new_tokens_go_by_the_name_that_its_server_knows() -> None:
    upstream = Upstream("a", "https://a/v1")
    backend = RemoteBackend(upstream, Remote("https://a/v1", "m"), most=1, limit="max_completion_tokens")
    asked = backend.asked(ChatRequest(max_tokens=5), "/chat/completions")
    assert "max_tokens" not in asked
    assert asked["max_completion_tokens"] == 5
    assert backend.asked(ChatRequest(max_tokens=5), "/completions")["max_tokens"] == 5


HELLO = ({"role": "user", "content": "What is it?"},)
NEWER = {"max_tokens": None, "temperature": 1.0}
"""As OpenAI's models that think take it: the limit by its other name, and no temperature but the usual one."""


@asynccontextmanager
async def far(tmp_path: Path, limit: str = "auto", **faults: Any) -> AsyncIterator[tuple[RemoteBackend, Server]]:
    """A backend that has had its first token, and the server behind it."""
    server = Server(Faults(**faults))
    runner = web.AppRunner(server.app(), handler_cancellation=True)
    await runner.setup()
    path = str(tmp_path / "far.sock")
    await web.UnixSite(runner, path).start()
    upstream = Upstream("toy.example", "http://toy/v1", socket=path, outside=True)
    backend = RemoteBackend(upstream, Remote("https://toy.example/v1", "big"), most=4, limit=limit)
    try:
        await backend.begin()
        yield backend, server
    finally:
        await backend.end()
        await runner.cleanup()


async def said(backend: RemoteBackend, **more: Any) -> str:
    return "".join([piece.text async for piece in backend.chat(ChatRequest(messages=HELLO, **more))])


async def test_a_server_that_takes_everything_is_asked_once(tmp_path: Path) -> None:
    async with far(tmp_path) as (backend, server):
        assert (len(server.asked), server.asked[0]["max_tokens"]) == (1, 1)
        assert await said(backend, temperature=0.0) == ANSWER
        assert server.asked[-1]["temperature"] == 0.0


@pytest.mark.parametrize("names", [True, False])
async def test_a_newer_model_is_asked_as_it_wants_it_and_then_always(tmp_path: Path, names: bool) -> None:
    async with far(tmp_path, refuses_parameters=NEWER, names_parameters=names) as (backend, server):
        assert [("max_tokens" in body, "max_completion_tokens" in body) for body in server.asked] == [
            (True, False),
            (False, True),
        ]
        server.asked.clear()
        assert await said(backend, max_tokens=2) == "The capital"
        assert len(server.asked) == 1, "it is remembered"
        assert server.asked[0]["max_completion_tokens"] == 2


@pytest.mark.parametrize("names", [True, False])
async def test_what_is_usual_is_left_out_where_it_is_refused(tmp_path: Path, names: bool) -> None:
    refused = {"temperature": None, "top_p": None, "max_tokens": None}
    async with far(tmp_path, refuses_parameters=refused, names_parameters=names) as (backend, server):
        server.asked.clear()
        assert await said(backend) == ANSWER
        (asked,) = server.asked
        assert not {"temperature", "top_p"} & set(asked)


async def test_what_a_caller_asked_for_is_refused_by_name_and_not_dropped(tmp_path: Path) -> None:
    async with far(tmp_path, refuses_parameters=NEWER) as (backend, server):
        server.asked.clear()
        with pytest.raises(InvalidInputError, match=r"'temperature' does not support 0\.5") as caught:
            await said(backend, temperature=0.5)
        assert caught.value.details["param"] == "temperature"
        assert len(server.asked) == 1


async def test_a_limit_that_is_too_high_is_no_reason_to_call_it_otherwise(tmp_path: Path) -> None:
    async with far(tmp_path) as (backend, server):
        told = {"message": "max_tokens is too large: 9000. This model gives 4096 at most.", "param": "max_tokens"}
        server.faults.refuses = (400, told, {})
        server.asked.clear()
        with pytest.raises(InvalidInputError, match="too large"):
            await said(backend, max_tokens=9000)
        assert [body["max_tokens"] for body in server.asked] == [9000]


async def test_a_server_that_knows_neither_name_is_asked_by_both_and_refuses(tmp_path: Path) -> None:
    neither = {"max_tokens": None, "max_completion_tokens": None}
    with pytest.raises(InvalidInputError, match="not supported"):
        async with far(tmp_path, refuses_parameters=neither):
            pass


async def test_a_name_that_the_operator_gave_is_not_changed(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="'max_tokens' is not supported"):
        async with far(tmp_path, limit="max_tokens", refuses_parameters=NEWER):
            pass


async def test_a_model_that_thinks_longer_than_one_token_has_proved_that_it_works(tmp_path: Path) -> None:
    told = {"message": "Could not finish the message because max_tokens or model output limit was reached."}
    async with far(tmp_path, refuses=(400, told, {})) as (backend, server):
        server.faults.refuses = None
        assert await said(backend) == ANSWER
