"""Several answers to one prompt: where an engine would read it for each, the first one reads for all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llm_os.errors import UnavailableError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import Input, ServeCall
from llm_os.workers.backend import Backend, Piece
from llm_os.workers.requests import ChatRequest
from llm_os.workers.server import Face, listen

HELLO = [{"role": "user", "content": "Hi"}]


class Reader(Backend):
    """Reads a prompt for some turns of the loop, unless one like it was read before; then says two words."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.begun = 0
        self._read: set[str] = set()
        self._fails = fails

    async def begin(self) -> None: ...

    async def end(self) -> None: ...

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        self.begun += 1
        prompt = str(request.prompt or request.messages)
        if prompt not in self._read:
            self.reads.append(prompt)
            for _ in range(5):
                await asyncio.sleep(0)
            self._read.add(prompt)
        if self._fails:
            raise UnavailableError("The engine broke.")
        yield Piece("one ", 3, 1)
        yield Piece(f"seed {request.seed}", 3, 2, "stop")


class Anew(Reader):
    reads_anew = True


@asynccontextmanager
async def face(backend: Backend, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    facts = ArtifactFacts(digest="sha256:" + "0" * 64, kind="model", size=1, meta={})
    socket = str(tmp_path / "w.sock")
    call = ServeCall(
        engine="hand", deployment="chat", model=Input(path="/", facts=facts), version="m@1", task="text-generation",
        options={}, socket=socket,
    )  # fmt: skip
    runner = await listen(Face(call, backend).app(), socket)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as session:
            yield session
    finally:
        await runner.cleanup()


async def asked(session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> tuple[int, str]:
    async with session.post(f"http://w{path}", json={"model": "chat", **body}) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("stream", [True, False])
async def test_the_first_answer_reads_the_prompt_for_all(tmp_path: Path, stream: bool) -> None:
    backend = Anew()
    async with face(backend, tmp_path) as session:
        status, text = await asked(
            session, "/v1/chat/completions", {"messages": HELLO, "n": 4, "seed": 7, "stream": stream}
        )
    assert (status, len(backend.reads), backend.begun) == (200, 1, 4)
    assert [f"seed {7 + number}" in text for number in range(4)] == [True] * 4, text


async def test_an_engine_that_shares_by_itself_is_asked_for_all_at_once(tmp_path: Path) -> None:
    backend = Reader()
    async with face(backend, tmp_path) as session:
        await asked(session, "/v1/chat/completions", {"messages": HELLO, "n": 4})
    assert len(backend.reads) == 4, "nobody waited"


async def test_answers_to_several_prompts_wait_for_their_own_alone(tmp_path: Path) -> None:
    backend = Anew()
    async with face(backend, tmp_path) as session:
        status, text = await asked(session, "/v1/completions", {"prompt": ["a", "b"], "n": 3})
    assert (status, sorted(backend.reads)) == (200, ["a", "b"])
    assert len(json.loads(text)["choices"]) == 6


@pytest.mark.parametrize("stream", [True, False])
async def test_a_first_answer_that_fails_leaves_nobody_waiting(tmp_path: Path, stream: bool) -> None:
    async with face(Anew(fails=True), tmp_path) as session, asyncio.timeout(5):
        status, text = await asked(session, "/v1/chat/completions", {"messages": HELLO, "n": 16, "stream": stream})
    assert (status, "The engine broke" in text) == (503, True)


class Counting(Reader):
    """Says two words of two tokens each."""

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        yield Piece("one ", 3, 2)
        yield Piece("two", 3, 4, "stop")


async def test_the_events_of_a_stream_count_the_tokens_of_all_answers(tmp_path: Path) -> None:
    async with face(Counting(), tmp_path) as session:
        _, text = await asked(session, "/v1/chat/completions", {"messages": HELLO, "stream": True, "n": 2})
    counts = [int(line.removeprefix("tokens: ")) for line in text.splitlines() if line.startswith("tokens: ")]
    assert (counts[0], counts[-1], counts) == (2, 8, sorted(counts))


class Breaking(Reader):
    """Breaks in a way of its own after the first words."""

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        yield Piece("one ", 3, 1)
        raise KeyError("an engine's own")


@pytest.mark.parametrize("n", [1, 2])
async def test_a_stream_that_breaks_unexpectedly_ends_with_an_error_event(tmp_path: Path, n: int) -> None:
    async with face(Breaking(), tmp_path) as session:
        status, text = await asked(session, "/v1/chat/completions", {"messages": HELLO, "stream": True, "n": n})
    *_, last = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    assert (status, last["error"]["code"]) == (200, "internal")
    assert "KeyError" in last["error"]["message"]
