"""A worker answers what a request does not say as the model's own folder says it, whatever the engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from llm_os.errors import ModelError
from llm_os.models import settings
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import Input, ServeCall
from llm_os.workers.backend import Piece
from llm_os.workers.fake import FakeBackend
from llm_os.workers.requests import ChatRequest
from llm_os.workers.server import Face


class Recording(FakeBackend):
    """Answers as the fake engine and keeps what it was asked."""

    seen: ChatRequest

    def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        self.seen = request
        return super().chat(request)


def face_of(folder: Path) -> tuple[Face, Recording]:
    facts = ArtifactFacts(digest="sha256:" + "0" * 64, kind="model", size=1, meta={})
    call = ServeCall(
        engine="fake",
        deployment="chat",
        model=Input(path=str(folder), facts=facts),
        version="chat@1",
        task="text-generation",
        options={},
        socket="/nowhere.sock",
    )
    backend = Recording(call)
    return Face(call, backend), backend


async def test_requests_and_only_they_are_filled_up(tmp_path: Path) -> None:
    (tmp_path / settings.FILE).write_text('{"temperature": 0.2, "top_p": 0.8, "top_k": 3, "max_new_tokens": 2}')
    face, backend = face_of(tmp_path)
    async with TestClient(TestServer(face.app())) as client:
        answer = await client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}]})
        assert (await answer.json())["choices"][0]["message"]["content"] == "This is"
        assert (backend.seen.temperature, backend.seen.top_p, backend.seen.top_k) == (0.2, 0.8, 3)
        await client.post("/v1/completions", json={"prompt": "Hi", "temperature": 0.9})
        assert (backend.seen.temperature, backend.seen.top_p, backend.seen.max_tokens) == (0.9, 0.8, 16)


def test_a_broken_file_fails_the_start_by_name(tmp_path: Path) -> None:
    (tmp_path / settings.FILE).write_text("{")
    with pytest.raises(ModelError, match=settings.FILE):
        face_of(tmp_path)
