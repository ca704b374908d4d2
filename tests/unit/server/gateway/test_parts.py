"""The gateway's parts that need no process: frames, admission, metering, the table, request shapes."""

import json
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.errors import (
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    UnavailableError,
)
from llm_os.server.gateway import openai, routes
from llm_os.server.gateway.admission import Admission
from llm_os.server.gateway.frames import Frames, usage_of
from llm_os.server.gateway.metering import Metering
from llm_os.server.gateway.upstream import Upstreams
from llm_os.spec.routing import Endpoint, GatewayUsage, KeyEntry, Route, RoutingTable


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
        ("starting", "text-generation", UnavailableError, "llm-os why starting"),
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


STREAM = b'data: {"x": 1}\n\ndata: {"usage": {"prompt_tokens": 3}}\n\ndata: [DONE]\n\n'


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


def test_half_an_event_is_held_but_not_without_end() -> None:
    frames = Frames()
    assert frames.feed(b"data: half") == b""
    assert len(frames.feed(b"x" * 2**20)) == 2**20 + len(b"data: half")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"usage": 5}', b"[" * 100_000])
def test_usage_of_a_strange_answer_is_nothing(body: bytes) -> None:
    assert usage_of(body) == {}


def test_slots_are_bounded_by_replicas_and_come_back() -> None:
    now = iter(range(0, 1000, 40))
    admission = Admission(2, lambda: float(next(now)))
    route = a_route("chat", replicas=2)
    with ExitStack() as busy:
        for _ in range(4):
            busy.enter_context(admission.slot(route))
        with pytest.raises(OverloadedError) as caught, admission.slot(route):
            pytest.fail("a fifth request got in")
        assert caught.value.details["limit"] == 4
        assert caught.value.details["retry_after"] == 1
        with admission.slot(a_route("other")):
            pass  # one deployment's load is not another's
    with admission.slot(route):
        pass


def test_the_wait_that_is_advised_follows_what_requests_took() -> None:
    now = 0.0
    admission = Admission(1, lambda: now)
    route = a_route("chat")
    with admission.slot(route):
        now += 12.0
    with admission.slot(route), pytest.raises(OverloadedError) as caught, admission.slot(route):
        pytest.fail("a second request got in")
    assert caught.value.details["retry_after"] == 12


def test_metering_counts_and_forgets_what_is_served_no_more(tmp_path: Path) -> None:
    now, served = [100.0], {"chat", "old"}
    metering = Metering(tmp_path / "usage.json", lambda: now[0], lambda: served)
    assert metering.flush()
    assert not metering.flush()
    with metering.request("chat"), metering.request("old"):
        now[0] = 105.0
        assert metering.flush()
        written = GatewayUsage.model_validate_json((tmp_path / "usage.json").read_bytes())
        assert (written.deployments["chat"].in_flight, written.deployments["chat"].last_request_at) == (1, 100.0)
        served.remove("old")
    assert metering.flush()
    written = GatewayUsage.model_validate_json((tmp_path / "usage.json").read_bytes())
    assert set(written.deployments) == {"chat"}
    assert (written.deployments["chat"].in_flight, written.deployments["chat"].last_request_at) == (0, 105.0)
    assert [file.name for file in tmp_path.iterdir()] == ["usage.json"]


def test_a_full_disk_stops_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "not-there"
    metering = Metering(folder / "usage.json", lambda: 1.0, set)
    assert not metering.flush()
    assert not metering.flush()
    assert caplog.text.count("cannot be written") == 1
    folder.mkdir()
    assert metering.flush()


def test_the_least_busy_replica_is_chosen_and_the_broken_one_avoided() -> None:
    upstreams = Upstreams()
    first, second = a_route("chat", replicas=2).endpoints
    with upstreams.busy(first):
        assert upstreams.choose((first, second)) == second
        assert upstreams.choose((first, second), avoid=second.attempt) == first
    assert upstreams.choose((first,), avoid=first.attempt) == first


def test_an_endpoint_that_is_no_unix_socket_is_refused() -> None:
    with pytest.raises(UnavailableError, match="does not speak"):
        Upstreams().session(Endpoint(attempt="a", url="http://127.0.0.1:1"))


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
