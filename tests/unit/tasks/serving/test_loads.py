"""Callers that never stop asking, against a replica of a test's own making."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llm_os.errors import UnsupportedModelError
from llm_os.tasks.serving import loads
from llm_os.tasks.serving.loads import Chats, load_of, unit_of
from llm_os.tasks.serving.replica import Refused


class Answer:
    """The events of one answer, each after the others had a turn."""

    def __init__(self, *events: Any) -> None:
        self._events = events

    @property
    async def content(self) -> AsyncIterator[bytes]:
        for event in self._events:
            await asyncio.sleep(0)
            yield b"data: " + (b"[DONE]" if event is None else json.dumps(event).encode()) + b"\n"
            if event is not None and "counts" in event:
                yield b"tokens: %d\n" % event["counts"]
            yield b"\n"

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        return b"{}"


def said(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}], "usage": None}


def counted(tokens: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"completion_tokens": tokens}}


class Replica:
    """Answers all requests alike; remembers them and how many there were at once."""

    def __init__(self, *events: Any) -> None:
        self.events = events
        self.bodies: list[Mapping[str, Any]] = []
        self.paths: set[str] = set()
        self.running = self.most = 0

    @asynccontextmanager
    async def asked(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Answer]:
        self.bodies.append(body)
        self.paths.add(path)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            yield Answer(*self.events)
        finally:
            self.running -= 1


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "SECONDS", 0.02)


async def test_so_many_requests_are_under_way_as_were_wanted() -> None:
    replica = Replica(said("a"), said("b"), counted(2), None)
    found = await Chats().measured(replica, 7)
    assert found.streams == replica.most == 7
    assert replica.running == 0, "none is left"
    assert found.per_second > 0
    assert replica.paths == {"/v1/chat/completions"}


async def test_no_two_requests_are_alike_in_a_load_or_in_two_so_that_no_cache_answers() -> None:
    asked = []
    for streams in (1, 3, 8):
        replica = Replica(said("a"), counted(1), None)
        await Chats().measured(replica, streams)
        asked += [body["messages"][0]["content"] for body in replica.bodies[1:]]  # the first one warms
    assert len(asked) > 12
    assert len(set(asked)) == len(asked)


async def test_tokens_that_came_together_are_all_counted() -> None:
    counts = [done async for done in Chats().answer(Replica(said("three at once"), said(""), counted(3), None), 0)]
    assert counts == [1, 2]


async def test_tokens_that_share_an_event_are_counted_when_they_come_and_once() -> None:
    told = [
        {**said("one"), "counts": 1},
        {**said("four more"), "counts": 5},
        {**said(""), "counts": 6},
        counted(6),
        None,
    ]
    assert [done async for done in Chats().answer(Replica(*told), 0)] == [1, 4, 1]


async def test_an_answer_that_breaks_off_refuses_the_candidate() -> None:
    with pytest.raises(Refused, match="broke an answer off: out of memory"):
        await Chats().measured(Replica(said("a"), {"error": {"message": "out of memory"}}), 2)


async def test_one_that_lets_a_caller_wait_for_ever_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unfair(Replica):
        @asynccontextmanager
        async def asked(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Answer]:
            self.bodies.append(body)
            if len(self.bodies) == 3:  # one warms, the first is answered, the second is not
                await asyncio.Event().wait()
            async with super().asked(path, body) as answer:
                yield answer

    monkeypatch.setattr(loads, "PATIENCE", 0.05)
    with pytest.raises(Refused, match="With 2 at once it leaves callers without an answer"):
        await Chats().measured(Unfair(said("a"), counted(1), None), 2)


@pytest.mark.parametrize(
    ("task", "path", "unit"),
    [
        ("text-classification", "/classify", "texts"),
        ("token-classification", "/classify", "texts"),
        ("sentence-similarity", "/v1/embeddings", "texts"),
        ("feature-extraction", "/v1/embeddings", "texts"),
    ],
)
async def test_what_judges_texts_is_asked_one_text_a_request(task: str, path: str, unit: str) -> None:
    replica = Replica()
    found = await load_of(task).measured(replica, 2)
    assert replica.paths == {path}
    assert isinstance(replica.bodies[0]["input"], str)
    assert found.per_second > 0
    assert unit_of(task) == unit


def test_a_task_that_nobody_knows_how_to_load_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match="not measured on a text2text-generation model"):
        load_of("text2text-generation")


async def test_one_that_takes_a_request_and_answers_nothing_is_out_of_the_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loads, "PATIENCE", 0.01)

    class Silent(Replica):
        @asynccontextmanager
        async def asked(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Answer]:
            await asyncio.Event().wait()
            yield Answer()

    with pytest.raises(Refused, match="single caller"):
        await asyncio.wait_for(Chats().measured(Silent(), 1), 10)
