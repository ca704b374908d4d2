"""Answers that are kept: whose they are, which are worth it, and how many there is room for."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_os.server.gateway import openai
from llm_os.server.gateway.response_cache import (
    EVENTS,
    LARGEST,
    OVERHEAD,
    Name,
    Recording,
    ResponseCache,
    Stored,
    complete,
    deterministic,
    name_of,
    state_of,
)
from llm_os.spec.routing import Endpoint, Route

ROUTE = Route(deployment="chat", version="m@1", task="text-generation", engine="fake", created_at=1)
CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}


def named(tenant: str = "lab", route: Route = ROUTE, path: str = CHAT, **more: Any) -> Name:
    return name_of(tenant, route, path, openai.any_call(json.dumps(ASKED | more).encode()))


@pytest.mark.parametrize(
    ("path", "value", "kept"),
    [
        (CHAT, {"temperature": 0}, True),
        ("/v1/completions", {"temperature": 0.0}, True),
        (CHAT, {"temperature": 0.01}, False),
        (CHAT, {}, False),
        (CHAT, {"temperature": None, "seed": 1}, False),
        (CHAT, {"temperature": False}, False),
        (CHAT, {"temperature": "0"}, False),
        ("/classify", {}, True),
        ("/v1/embeddings", {}, True),
        ("/v1/rerank", {}, True),
        ("/v1/score", {}, True),
        ("/tokenize", {}, True),
    ],
)
def test_an_answer_is_kept_where_nothing_is_drawn(path: str, value: dict[str, Any], kept: bool) -> None:
    assert deterministic(path, value) is kept


def test_what_changes_no_answer_is_not_in_the_name() -> None:
    assert named() == named(user="anna", metadata={"a": "b"}, store=False, model="m@1")
    with_replica = ROUTE.model_copy(update={"endpoints": (Endpoint(attempt="a", url="unix:/a"),)})
    assert named() == named(route=with_replica)
    turned = dict(reversed(ASKED.items()))
    assert named() == name_of("lab", ROUTE, CHAT, openai.any_call(json.dumps(turned).encode()))


def test_what_may_change_an_answer_is() -> None:
    others = [
        named("other"),
        named(path="/v1/completions"),
        named(max_tokens=5),
        named(stream=True),
        named(stream=True, stream_options={"include_usage": True}),
        named(messages=[{"role": "user", "content": "ho"}]),
        *(named(route=ROUTE.model_copy(update=it)) for it in ({"version": "m@2"}, {"created_at": 2}, {"engine": "x"})),
    ]
    assert len({named(), *others}) == 1 + len(others)


ENTRIES = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 700), st.booleans()), max_size=40)


@given(ENTRIES, st.integers(0, 6 * (OVERHEAD + 700)))
@example([(0, 0, True), (6, 1, True), (0, 368, True), *((n, 327, True) for n in (1, 2, 3, 4, 5, 8))], 5242)
def test_it_never_holds_more_than_it_may_and_drops_what_was_used_longest_ago(
    steps: list[tuple[int, int, bool]], capacity: int
) -> None:
    cache, plain = ResponseCache(capacity), dict[Name, Stored]()
    for number, size, puts in steps:
        name, stored = Name("lab", "s", bytes([number])), Stored(b"x" * size, "application/json")
        if puts and size <= capacity // LARGEST:
            plain.pop(name, None)
            plain[name] = stored
            while sum(len(one.body) + OVERHEAD for one in plain.values()) > capacity:
                del plain[next(iter(plain))]
        elif not puts and name in plain:  # one that is too large is not kept, and was not used
            plain[name] = plain.pop(name)
        if puts:
            cache.put(name, stored)
        assert puts or cache.get(name) == plain.get(name)
        assert cache.size == sum(len(one.body) + OVERHEAD for one in plain.values()) <= capacity
    assert {name for name in plain if cache.get(name)} == set(plain)


def test_what_nobody_can_ask_for_any_more_is_forgotten() -> None:
    cache, stored = ResponseCache(2**20), Stored(b"{}", "application/json")
    names = [named(), named("gone"), named(route=ROUTE.model_copy(update={"version": "m@0"}))]
    for name in names:
        cache.put(name, stored)
    cache.forget({state_of(ROUTE)}, {"lab"})
    assert [cache.get(name) is not None for name in names] == [True, False, False]
    assert cache.size == 2 + OVERHEAD


def a_stream(*values: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values) + b"data: [DONE]\n\n"


def said(index: int = 0, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("body", "kind", "good"),
    [
        (b'{"choices": [{"index": 0, "finish_reason": "stop"}]}', "application/json", True),
        (b'{"choices": [{"index": 0, "finish_reason": "length"}, {"index": 1, "finish_reason": "stop"}]}', "j", True),
        (b'{"choices": [{"index": 0, "finish_reason": "length"}, {"index": 1}]}', "j", False),
        (b'{"choices": [{"index": 0, "finish_reason": "error"}]}', "j", False),
        (b'{"choices": []}', "j", False),
        (b'{"data": [1]}', "j", True),
        (b'{"error": {"message": "no"}}', "j", False),
        (b"[1]", "j", False),
        (b"not JSON", "j", False),
        (b"", "j", False),
        (a_stream(said(), said(finish="stop"), {"choices": [], "usage": {}}), EVENTS, True),
        (a_stream(said(0), said(1), said(1, "stop"), said(0, "length")), EVENTS, True),
        (a_stream(said(0), said(1), said(1, "stop")), EVENTS, False),
        (a_stream(said(finish="stop"), {"error": {}}), EVENTS, False),
        (a_stream(), EVENTS, False),
        (b"data: {half\n\n", EVENTS, False),
    ],
)
def test_only_complete_answers_are_good(body: bytes, kind: str, good: bool) -> None:
    assert complete(body, kind) is good


def test_a_recording_is_kept_whole_from_the_version_that_was_asked_or_not_at_all() -> None:
    body = a_stream(said(), said(finish="stop"))
    cache = ResponseCache(LARGEST * (len(body) + 10))

    def heard(parts: list[bytes], version: str = "m@1", revision: int = 1) -> Stored | None:
        cache.forget((), ())
        recording = Recording(cache, named(), 1, "m@1")
        for part in parts:
            recording.hear(part)
        recording.keep(EVENTS, revision, version)
        return cache.get(named())

    assert heard([body[:7], body[7:]]) == Stored(body, EVENTS)
    assert heard([body], "m@2") is None
    assert heard([body], revision=2) is None
    assert heard([b": a comment that makes it long\n\n", body]) is None


def test_an_engine_that_is_not_there_for_a_moment_makes_no_other_state() -> None:
    assert state_of(ROUTE.model_copy(update={"absent": {"other": ("x",)}, "endpoints": ()})) == state_of(ROUTE)
    assert state_of(ROUTE.model_copy(update={"version": "other@1"})) != state_of(ROUTE)
