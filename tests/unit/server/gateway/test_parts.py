"""The gateway's parts that need no process: frames, the table, request shapes."""

import asyncio
import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.errors import (
    AuthenticationError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    UnavailableError,
)
from llm_os.server import keys
from llm_os.server.gateway import openai, routes, wishes
from llm_os.server.gateway.estimates import Estimates
from llm_os.server.gateway.exchange import Exchange
from llm_os.server.gateway.frames import Frames, usage_of
from llm_os.server.gateway.proxy import Proxy
from llm_os.server.gateway.upstream import Upstreams
from llm_os.spec.quotas import Priority, Quota
from llm_os.spec.routing import Endpoint, KeyEntry, Route, RoutingTable


def a_route(name: str, replicas: int = 1, task: str = "text-generation", version: str | None = None) -> Route:
    endpoints = tuple(Endpoint(attempt=f"{name}-{n}", url=f"unix:/{name}-{n}") for n in range(replicas))
    version = version or f"{name}@1"
    return Route(deployment=name, version=version, task=task, engine="fake", endpoints=endpoints, created_at=1)


ANY = KeyEntry(id="any", sha256="0" * 64, role="user")
ONLY_CHAT = KeyEntry(id="one", sha256="1" * 64, role="user", deployments=("chat",))
TABLE = RoutingTable(
    version=1,
    routes=(
        a_route("mood", task="text-classification", version="sentic@2"),
        a_route("chat", version="smollm2@1"),
        a_route("chat-2", version="smollm2@1"),
        a_route("starting", replicas=0, version="smollm2@1"),
        a_route("vectors", task="feature-extraction"),
        a_route("tags", task="token-classification"),
        a_route("listens", task="speech-recognition"),
    ),
)


@pytest.mark.parametrize(("model", "found"), [("chat-2", "chat-2"), ("smollm2@1", "chat")])
def test_finds_a_route_by_deployment_or_version(model: str, found: str) -> None:
    assert routes.find(TABLE, ANY, model, "text-generation").deployment == found


def test_one_endpoint_serves_all_tasks_of_its_kind() -> None:
    assert routes.find(TABLE, ANY, "tags", "text-classification").deployment == "tags"
    assert routes.find(TABLE, ANY, "vectors", "sentence-similarity").deployment == "vectors"


def test_a_limited_key_finds_a_version_only_where_it_may() -> None:
    assert routes.find(TABLE, ONLY_CHAT, "smollm2@1", "text-generation").deployment == "chat"
    with pytest.raises(PermissionDeniedError, match="may not use"):
        routes.find(TABLE, ONLY_CHAT, "sentic@2", "text-classification")
    gone = RoutingTable(version=2)
    with pytest.raises(NotFoundError):
        routes.find(gone, ONLY_CHAT, "chat", "text-generation")


@pytest.mark.parametrize(
    ("model", "task", "error", "says"),
    [
        ("chta", "text-generation", NotFoundError, "Did you mean 'chat'"),
        ("mood", "text-generation", InvalidInputError, "POST /classify"),
        ("vectors", "text-generation", InvalidInputError, "POST /v1/embeddings"),
        ("listens", "text-generation", InvalidInputError, "no endpoint"),
    ],
)
def test_says_why_a_name_cannot_be_asked(model: str, task: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        routes.find(TABLE, ANY, model, task)


def test_the_table_is_read_when_it_changes_and_only_then(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    table = routes.Routes(path)
    assert not table.refresh()
    path.write_text(TABLE.model_dump_json())
    assert table.refresh()
    assert table.table == TABLE
    assert not table.refresh()
    path.write_text("{")
    assert not table.refresh()
    assert table.table == TABLE


def test_what_a_name_means_is_remembered_for_its_key_until_the_next_table(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    table = routes.Routes(path)
    limited = ONLY_CHAT.model_copy(update={"deployments": ("chat", "chat-2")})
    path.write_text(TABLE.model_copy(update={"keys": (ANY, limited)}).model_dump_json())
    table.refresh()
    any_key, limited = table.keys[ANY.sha256], table.keys[limited.sha256]
    found = table.meant(any_key, "chat", "chat", "text-generation")
    assert table.meant(any_key, "chat", "chat", "text-generation") is found
    assert table.meant(limited, "chat-2", "chat-2", "text-generation").deployment == "chat-2"
    with pytest.raises(PermissionDeniedError):
        table.meant(limited, "starting", "starting", "text-generation")
    less = TABLE.model_copy(
        update={"version": 2, "keys": (ANY, ONLY_CHAT), "routes": (a_route("chat", 2), a_route("chat-2"))}
    )
    path.write_text(less.model_dump_json())
    assert table.refresh()
    assert len(table.meant(any_key, "chat", "chat", "text-generation").endpoints) == 2
    with pytest.raises(PermissionDeniedError):
        table.meant(table.keys[ONLY_CHAT.sha256], "chat-2", "chat-2", "text-generation")
    # A request that came with the key as it was is judged by it, and teaches the newer one nothing.
    assert table.meant(limited, "chat-2", "chat-2", "text-generation").deployment == "chat-2"
    with pytest.raises(PermissionDeniedError):
        table.meant(table.keys[ONLY_CHAT.sha256], "chat-2", "chat-2", "text-generation")


def test_a_header_that_was_right_is_known_until_the_next_table(tmp_path: Path) -> None:
    path, header = tmp_path / "routes.json", "Bearer sk-one"
    table = routes.Routes(path)
    key = KeyEntry(id="one", sha256=keys.digest("sk-one"), role="user")
    path.write_text(TABLE.model_copy(update={"keys": (key,)}).model_dump_json())
    table.refresh()
    assert table.authorise(header, keys.MAY_INFER) is table.authorise(header, keys.MAY_INFER)
    with pytest.raises(PermissionDeniedError):
        table.authorise(header, keys.MAY_WATCH)
    assert table.authorise(f"Bearer {' ' * 300}sk-one", keys.MAY_INFER).id == "one"
    assert list(table._headers) == [header], "a long one is looked up each time"
    path.write_text(TABLE.model_copy(update={"version": 2}).model_dump_json())
    table.refresh()
    with pytest.raises(AuthenticationError):
        table.authorise(header, keys.MAY_INFER)


async def test_the_table_is_looked_at_once_in_a_pass_of_the_loop_and_again_in_the_next(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    table = routes.Routes(path)
    path.write_text(TABLE.model_dump_json())
    table.look()
    assert table.table.version == 1
    path.write_text(TABLE.model_copy(update={"version": 22}).model_dump_json())
    table.look()
    assert table.table.version == 1
    await asyncio.sleep(0)
    table.look()
    assert table.table.version == 22


STREAM = b'data: {"x": 1}\n\ndata: {"usage": {"prompt_tokens": 3}}\n\ndata: [DONE]\n\n'


COUNTED = (
    b'data: {"choices": [{"delta": {"content": "a \\"usage\\""}}], "usage": null}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 3}}\n\ndata: [DONE]\n\n'
)


@given(st.lists(st.integers(0, len(COUNTED)), max_size=12))
def test_counts_that_nobody_asked_for_are_read_and_not_passed_on(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(COUNTED)]
    frames = Frames(hides_usage=True)
    out = b"".join(frames.feed(COUNTED[a:b]) for a, b in pairwise(edges))
    first, counts, rest = COUNTED.split(b"\n\n", 2)
    assert out == first + b"\n\n" + rest
    assert counts not in out
    assert (frames.usage, frames.done) == ({"prompt_tokens": 3}, True)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_a_stream_cut_anywhere_comes_out_whole_and_in_whole_events(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    frames = Frames()
    out = [frames.feed(STREAM[a:b]) for a, b in pairwise(edges)]
    assert b"".join(out) == STREAM
    assert all(part.endswith(b"\n\n") for part in out if part)
    assert frames.done
    assert frames.usage == {"prompt_tokens": 3}


@pytest.mark.parametrize(
    ("text", "done", "failed"),
    [
        (b'data: {"x": "data: [DONE]"}\n\n', False, False),
        (b"data:[DONE]\r\n\r\n", True, False),
        (b'data: {"error": {"message": "x"}}\n\n', False, True),
        (b'data: {"error": {}}\n\ndata: [DONE]\n\n', True, False),
    ],
)
def test_knows_how_a_stream_ended(text: bytes, done: bool, failed: bool) -> None:
    frames = Frames()
    frames.feed(text)
    assert (frames.done, frames.failed) == (done, failed)


@given(st.lists(st.integers(0, 60), max_size=6))
def test_tokens_that_a_replica_counts_are_read_and_not_passed_on(cuts: list[int]) -> None:
    told = b'data: {"a": "tokens: 9"}\ntokens: 1\n\ndata: {}\ntokens: 14\n\n'
    edges = [0, *sorted(cuts), len(told)]
    frames = Frames()
    assert b"".join(frames.feed(told[a:b]) for a, b in pairwise(edges)) == b'data: {"a": "tokens: 9"}\n\ndata: {}\n\n'
    assert frames.events == 14


def test_half_an_event_is_held_but_not_without_end() -> None:
    frames = Frames()
    assert frames.feed(b"data: half") == b""
    assert len(frames.feed(b"x" * 2**20)) == 2**20 + len(b"data: half")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"usage": 5}', b"[" * 100_000])
def test_usage_of_a_strange_answer_is_nothing(body: bytes) -> None:
    assert usage_of(body) == {}


def test_the_least_busy_replica_is_chosen_and_the_broken_one_avoided() -> None:
    upstreams = Upstreams(lambda: 0.0)
    route = a_route("chat", replicas=2)
    first, choice = upstreams.choose(route)
    with upstreams.busy(route, first, choice, lambda: 5.0):
        second, _ = upstreams.choose(route)
        assert second != first
        assert upstreams.choose(route, avoid={second.attempt})[0] == first
        alone = a_route("chat")
        assert upstreams.choose(alone, avoid={alone.endpoints[0].attempt})[0] == alone.endpoints[0]
        upstreams.forget(RoutingTable(version=1))
    assert not upstreams._balances


def test_an_endpoint_that_is_no_unix_socket_is_refused() -> None:
    with pytest.raises(UnavailableError, match="does not speak"):
        Upstreams(lambda: 0.0).pool(Endpoint(attempt="a", url="http://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ({"messages": []}, "model"),
        ({"model": "chat", "messages": [], "stream": 1}, "stream"),
        ({"model": "chat", "messages": []}, "messages"),
        ({"model": "chat", "messages": [{"role": "user"}, 5]}, "messages[1]"),
        ({"model": "chat", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ],
)
def test_a_wrong_parameter_is_named(value: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        openai.chat_call(json.dumps(value).encode())
    assert caught.value.details["param"] == param


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_either_a_request_or_the_callers_mistake(value: Any) -> None:
    for check in (openai.chat_call, openai.classify_call):
        with suppress(InvalidInputError):  # anything else would be a 500
            assert check(json.dumps(value).encode()).model


@pytest.mark.parametrize(
    ("sent", "options", "hidden"),
    [
        ({}, {"include_usage": True}, True),
        ({"stream_options": None}, {"include_usage": True}, True),
        (
            {"stream_options": {"include_obfuscation": False}},
            {"include_usage": True, "include_obfuscation": False},
            True,
        ),
        ({"stream_options": {"include_usage": True}}, {"include_usage": True}, False),
    ],
)
def test_a_stream_is_always_asked_for_its_counts(sent: Any, options: Any, hidden: bool) -> None:
    value = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "stream": True, **sent}
    call = openai.chat_call(b"  " + json.dumps(value).encode())
    assert json.loads(call.body) == {**value, "stream_options": options}
    assert call.hides_usage is hidden


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_body_in_another_encoding_stays_whole(encoding: str) -> None:
    value = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    call = openai.chat_call(json.dumps(value).encode(encoding))
    assert json.loads(call.body) == {**value, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_events_of_every_kind_are_told_apart(end: bytes) -> None:
    counts = b'data: {"choices": [], "usage": {"prompt_tokens": 3}}' + end[: len(end) // 2] + b"id: 5" + end
    rest = b'data: {"usage" broken' + end + b": comment" + end + b"data: [DONE]" + end
    frames = Frames(hides_usage=True)
    assert frames.feed(counts + rest) == rest
    assert (frames.usage, frames.done, frames.events) == ({"prompt_tokens": 3}, True, 3)


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        ({"prompt": "x"}, 1),
        ({"prompt": [1, 2]}, 1),
        ({"prompt": ["a", "b"], "n": 3}, 6),
        ({"prompt": "x", "n": "many"}, 1),
    ],
)
def test_answers_are_counted_over_all_prompts(sent: Any, answers: int) -> None:
    assert openai.completion_call(json.dumps({"model": "m", **sent}).encode()).answers == answers


def test_a_whole_answer_is_asked_as_it_is() -> None:
    body = b'{"model": "chat", "prompt": "x", "max_tokens": 9}'
    assert openai.completion_call(body) == openai.Call("chat", False, body, 9, value=json.loads(body))


async def test_a_request_is_held_until_a_replica_is_ready(tmp_path: Path) -> None:
    table = routes.Routes(tmp_path / "routes.json")

    def publish(version: int, *given: Route) -> None:
        (tmp_path / "routes.json").write_text(RoutingTable(version=version, routes=given).model_dump_json())
        table.refresh()

    def find() -> Route:
        return routes.find(table.table, ANY, "chat", "text-generation")

    publish(1, a_route("chat", replicas=0))
    now = asyncio.get_running_loop().time
    held = asyncio.create_task(table.held(find, "lab", now, now() + 60))
    await asyncio.sleep(0)
    publish(2, a_route("chat", replicas=0), a_route("other"))
    await asyncio.sleep(0)
    assert not held.done()
    publish(3, a_route("chat"))
    assert (await held).endpoints
    publish(4, a_route("chat", replicas=0))
    with pytest.raises(UnavailableError, match="no ready replica"):
        await table.held(find, "lab", now, now() + 0.01)
    gone = asyncio.create_task(table.held(find, "lab", now, now() + 60))
    await asyncio.sleep(0)
    publish(5)
    with pytest.raises(UnavailableError, match="ended before"):
        await gone


async def test_who_waits_for_a_version_that_was_replaced_is_told_so_at_once(tmp_path: Path) -> None:
    """And not after two minutes in which it cannot come back."""
    table, asked = routes.Routes(tmp_path / "routes.json"), 0

    def find() -> Route:
        nonlocal asked
        asked += 1
        assert asked < 3
        now = a_route("chat", replicas=asked - 1, version=f"smollm2@{asked}")
        return routes.pinned(now, "smollm2@1")

    table.table = RoutingTable(version=1, routes=(a_route("chat"),))
    with pytest.raises(UnavailableError, match=r"'chat' no longer serves it: .*'smollm2@1'"):
        await table.ready(find, "chat", lambda: 0.0, 0.01)


async def test_not_too_many_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MOST_HELD", 1)
    table = routes.Routes(tmp_path / "routes.json")
    cold = a_route("chat", replicas=0)
    one = asyncio.create_task(table.held(lambda: cold, "lab", lambda: 0.0, 1.0))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="1 requests wait"):
        await table.held(lambda: cold, "lab", lambda: 0.0, 1.0)
    with pytest.raises(UnavailableError):
        await table.held(lambda: cold, "other", lambda: 1.0, 1.0)
    one.cancel()


def test_estimates_follow_what_engines_count() -> None:
    estimates = Estimates()
    assert estimates.guess("chat", 400, None) == 101 + 128
    assert estimates.guess("chat", 400, 16) == 101 + 16
    for _ in range(200):
        estimates.learn("chat", 300, 100, 40)
    assert abs(estimates.guess("chat", 300, None) - 141) < 2
    assert abs(estimates.guess("chat", 300, None, 4) - 261) < 4
    estimates.forget(set())
    assert estimates.guess("chat", 400, None) == 101 + 128


BATCH = Quota(priority=Priority.BATCH)


@pytest.mark.parametrize(
    ("sent", "quota", "found"),
    [
        ({}, Quota(), Priority.STANDARD),
        ({}, BATCH, Priority.BATCH),
        ({wishes.PRIORITY: "Interactive "}, Quota(), Priority.INTERACTIVE),
        ({wishes.PRIORITY: "batch"}, BATCH, Priority.BATCH),
    ],
)
def test_a_class_is_asked_for_or_follows_from_the_key(sent: Any, quota: Quota, found: Priority) -> None:
    assert wishes.priority_of(sent, quota) is found


def test_no_class_beyond_the_keys_and_none_that_is_not_there() -> None:
    with pytest.raises(PermissionDeniedError, match="'batch'"):
        wishes.priority_of({wishes.PRIORITY: "standard"}, BATCH)
    with pytest.raises(InvalidInputError, match="interactive, standard, batch"):
        wishes.priority_of({wishes.PRIORITY: "urgent"}, Quota())


@pytest.mark.parametrize("sent", ["0", "-1", "soon", "nan", "inf", "1e9", ""])
def test_a_time_that_is_none_is_refused(sent: str) -> None:
    with pytest.raises(InvalidInputError, match="no time"):
        wishes.deadline_of({wishes.TIMEOUT: sent}, 5.0)


def test_a_deadline_counts_from_the_arrival() -> None:
    assert wishes.deadline_of({wishes.TIMEOUT: "2.5"}, 5.0) == 7.5
    assert wishes.deadline_of({}, 5.0) is None


def test_an_answer_is_counted_when_it_is_complete_and_before_that_is_passed_on() -> None:
    counted: list[Any] = []
    exchange = Exchange(request_id="r", started=0.0)
    exchange.count = lambda: counted.append(exchange.usage)
    frames = Frames()
    frames.feed(b'data: {"usage": {"prompt_tokens": 3}}\n\n')
    Proxy._count(exchange, frames)
    assert counted == []
    frames.feed(b"data: [DONE]\n\n")
    Proxy._count(exchange, frames)
    assert counted == [{"prompt_tokens": 3}]


def test_a_table_of_a_newer_kernel_is_read_as_far_as_it_is_known(tmp_path: Path) -> None:
    """A gateway outlives the kernel that started it, and may be older than the next one."""
    path = tmp_path / "routes.json"
    endpoint = {"attempt": "a", "url": "unix:a", "colour": "blue"}
    route = {"deployment": "chat", "version": "m@1", "task": "t", "engine": "e", "created_at": 1, "mood": 3}
    key = {"id": "k", "sha256": "0" * 64, "role": "user", "quota": {"concurrent": 2, "per_day": 9}}
    told = {"version": 7, "routes": [{**route, "endpoints": [endpoint]}], "keys": [key], "weather": "fine"}
    path.write_text(json.dumps(told), encoding="utf-8")
    table = routes.Routes(path)
    assert table.refresh()
    assert [one.attempt for one in table.table.routes[0].endpoints] == ["a"]
    assert table.table.keys[0].quota.concurrent == 2
