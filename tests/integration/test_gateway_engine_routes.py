"""Endpoints of engines that are no chats, through a real gateway to the real face of a worker.

The backend is made by hand: its vectors count letters.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import Input, ServeCall
from llm_os.spec.routing import Endpoint, Route
from llm_os.testing.gateway_bed import USER, GatewayBed, ScriptedReplica
from llm_os.workers.backend import Backend, Classified, Embedded, Piece, Tokenized
from llm_os.workers.requests import ChatRequest
from llm_os.workers.server import Face, listen


class Letters(Backend):
    """Counts letters for vectors, and says whether a text is loud; its tokens are letters."""

    async def begin(self) -> None: ...

    async def end(self) -> None: ...

    async def embed(self, texts: Sequence[str]) -> Embedded:
        vectors = [[float(text.count(letter)) + 0.001 for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
        return Embedded(vectors, sum(map(len, texts)))

    async def classify(self, texts: Sequence[str]) -> Classified:
        return Classified(("loud", "quiet"), [[0.9, 0.1] if "!" in text else [0.2, 0.8] for text in texts], len(texts))

    async def tokenize(self, request: ChatRequest) -> Tokenized:
        text = request.prompt if isinstance(request.prompt, str) else str(request.messages[0]["content"])
        return Tokenized([ord(letter) for letter in text], 16)

    async def detokenize(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def chat(self, request: ChatRequest) -> Any:
        async def pieces() -> AsyncIterator[Piece]:
            yield Piece("a", 1, 1, "stop")

        return pieces()


async def served(folder: Path, name: str, task: str) -> tuple[web.AppRunner, Route]:
    socket = str(folder / f"{name}.sock")
    facts = ArtifactFacts(digest="sha256:" + "0" * 64, kind="model", size=1, meta={})
    call = ServeCall(
        engine="hand", deployment=name, model=Input(path="/", facts=facts), version="m@1", task=task, options={},
        socket=socket,
    )  # fmt: skip
    runner = await listen(Face(call, Letters()).app(), socket)
    route = Route(
        deployment=name, version="m@1", task=task, engine="hand", created_at=1.0,
        endpoints=(Endpoint(attempt=name, url=f"unix:{socket}"),),
    )  # fmt: skip
    return runner, route


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[GatewayBed]:
    """A gateway with `near` (embeddings), `mood` (classes) and `chat`."""
    tasks = {"near": "sentence-similarity", "mood": "text-classification", "chat": "text-generation"}
    made = [await served(tmp_path, name, task) for name, task in tasks.items()]
    bed = GatewayBed(tmp_path / "home")
    bed.route(*(route for _, route in made))
    await bed.start()
    yield bed
    await bed.close()
    for runner, _ in made:
        await runner.cleanup()


async def ask(bed: GatewayBed, path: str, **body: Any) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {USER}"}) as session,
        session.post(bed.url + path, json=body) as answer,
    ):
        return answer.status, json.loads(await answer.text())


async def test_documents_are_ranked_scored_classified_and_turned_into_tokens(bed: GatewayBed) -> None:
    documents = ["zzz", "bananas", "a banana"]
    status, told = await ask(bed, "/v1/rerank", model="near", query="banana", documents=documents, top_n=2)
    assert status == 200, told
    assert [one["index"] for one in told["results"]] == [2, 1] or [one["index"] for one in told["results"]] == [1, 2]
    scores = [one["relevance_score"] for one in told["results"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] > 0.8
    assert told["usage"]["total_tokens"] > 0

    status, told = await ask(bed, "/v1/score", model="near", text_1="banana", text_2=["banana", "zzz"])
    assert status == 200, told
    assert [one["score"] > 0.99 for one in told["data"]] == [True, False]

    status, told = await ask(bed, "/classify", model="mood", input=["hey!", "hm"])
    assert [one["label"] for one in told["data"]] == ["loud", "quiet"]

    status, told = await ask(bed, "/tokenize", model="chat", prompt="ab")
    assert (status, told["tokens"], told["count"], told["max_model_len"]) == (200, [97, 98], 2, 16)
    status, told = await ask(bed, "/detokenize", model="chat", tokens=[97, 98])
    assert (status, told["prompt"]) == (200, "ab")

    client = openai.AsyncOpenAI(base_url=bed.url + "/v1", api_key=USER)
    vectors = await client.embeddings.create(model="near", input=["ab", "b"])
    assert [round(one.embedding[0]) for one in vectors.data] == [1, 0]
    await client.close()


async def test_what_is_wrong_with_them_is_named(bed: GatewayBed) -> None:
    wrong: list[tuple[str, dict[str, Any], int, str]] = [
        ("/v1/rerank", {"model": "near", "documents": ["a"]}, 400, "query"),
        ("/v1/rerank", {"model": "near", "query": "a", "documents": []}, 400, "documents"),
        ("/v1/rerank", {"model": "near", "query": "a", "documents": ["a"], "top_n": 0}, 400, "top_n"),
        ("/v1/rerank", {"model": "chat", "query": "a", "documents": ["a"]}, 400, "model"),
        ("/v1/rerank", {"model": "nea", "query": "a", "documents": ["a"]}, 404, "model"),
        ("/v1/score", {"model": "near", "text_1": "a"}, 400, "text_2"),
        ("/classify", {"model": "mood", "input": []}, 400, "input"),
        ("/detokenize", {"model": "chat", "tokens": ["x"]}, 400, "tokens"),
    ]
    for path, body, status, param in wrong:
        got, told = await ask(bed, path, **body)
        assert got == status, (path, body, told)
        assert set(told["error"]) >= {"message", "type", "code", "param"}
        assert (told["error"]["param"] or "") == param, told
    assert (
        "Did you mean 'near'"
        in (await ask(bed, "/v1/rerank", model="nea", query="a", documents=["a"]))[1]["error"]["hint"]
    )


# -- engines side by side, of which one is not there -------------------------------------------------------------------

SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
LACKING = ("an_answer_is_held_to_a_schema",)


async def test_what_only_an_engine_can_that_is_not_there_is_no_mistake_of_the_callers(
    bed: GatewayBed, tmp_path: Path
) -> None:
    few = ScriptedReplica(tmp_path / "few.sock")
    lacking = few.endpoint().model_copy(update={"lacks": LACKING})
    route = Route(
        deployment="duo", version="m@1", task="text-generation", engine="hand", created_at=1.0, endpoints=(lacking,)
    )  # fmt: skip
    body = {"model": "duo", "messages": [{"role": "user", "content": "hello"}]}
    await few.start()
    try:
        bed.route(route.model_copy(update={"absent": {"able": ()}}))
        status, told = await ask(bed, "/v1/chat/completions", **body, response_format=SCHEMA)
        assert (status, told["error"]["code"]) == (503, "unavailable")
        assert "only able can do what is asked, and it has no ready replica" in told["error"]["message"]
        assert few.seen == [], "the other one is not asked for what it lacks"
        assert (await ask(bed, "/v1/chat/completions", **body))[0] == 200
        bed.route(route)  # there is no such engine: the one that is there says itself what it cannot
        assert (await ask(bed, "/v1/chat/completions", **body, response_format=SCHEMA))[0] == 200
        assert len(few.seen) == 2
    finally:
        await few.close()
