"""What the gateway tells the kernel, and that no kill loses or doubles what was served."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.server.gateway.access import AccessLog
from llm_os.server.gateway.accounting import Accounting
from llm_os.server.gateway.estimates import Estimates
from llm_os.server.gateway.exchange import Exchange
from llm_os.server.gateway.metering import Metering
from llm_os.server.gateway.metrics import Metrics
from llm_os.server.gateway.spool import Spool, cached_of, tokens_of
from llm_os.spec.routing import (
    FIRST_WINDOW,
    Endpoint,
    GatewayUsage,
    KeyEntry,
    RevisionUsage,
    Route,
    RoutingTable,
    Served,
)

ACCOUNT = ("lab", "key-1", "chat", "smollm2@1")


def a_table(*deployments: str) -> RoutingTable:
    routes = (
        Route(deployment=name, version="smollm2@1", task="text-generation", engine="fake", created_at=1)
        for name in deployments
    )
    return RoutingTable(version=1, routes=tuple(routes), keys=(KeyEntry(id="key-1", sha256="0" * 64, role="user"),))


def written(folder: Path) -> GatewayUsage:
    return GatewayUsage.model_validate_json((folder / "usage.json").read_bytes())


def test_counts_and_forgets_what_is_served_no_more(tmp_path: Path) -> None:
    now, table = [100.0], [a_table("chat", "old")]
    metering = Metering(tmp_path / "usage.json", lambda: now[0], lambda: table[0])
    assert metering.flush()
    assert not metering.flush()
    with metering.request("chat"), metering.request("old"):
        now[0] = 105.0
        assert metering.flush()
        seen = written(tmp_path).deployments
        assert (seen["chat"].in_flight, seen["chat"].last_request_at) == (1, 100.0)
        table[0] = a_table("chat")
    assert metering.flush()
    seen = written(tmp_path).deployments
    assert set(seen) == {"chat"}
    assert (seen["chat"].in_flight, seen["chat"].last_request_at) == (0, 105.0)
    assert [file.name for file in tmp_path.iterdir()] == ["usage.json"]


def an_exchange(name: str, started: float, *, streams: bool = True) -> Exchange:
    return Exchange(name, started, prompt_tokens=100.0, answer_tokens=40.0, streams=streams)


def test_tokens_under_way_shrink_as_prompts_are_read_and_answers_written(tmp_path: Path) -> None:
    metering = Metering(tmp_path / "usage.json", lambda: 5.0, lambda: a_table("chat"), lambda: 10.0)

    def told() -> float:
        assert metering.flush(), "an answer that grows is told, though nothing else has changed"
        return written(tmp_path).deployments["chat"].tokens_in_flight

    one, two = an_exchange("one", 9.0), an_exchange("two", 9.5, streams=False)
    with metering.request("chat", one), metering.waiting("chat", two):
        assert told() == 280
        one.first_byte, one.events = 9.8, 10
        assert told() == 170
        one.events = 99
        assert told() == 140, "a longer answer than was guessed counts nothing, not less"
    assert told() == 0


def test_first_tokens_are_told_for_a_window_and_who_waits_longer_counts(tmp_path: Path) -> None:
    now = [100.0]
    metering = Metering(tmp_path / "usage.json", lambda: 5.0, lambda: a_table("chat"), lambda: now[0])

    def told() -> tuple[float | None, int]:
        metering.flush()
        seen = written(tmp_path).deployments["chat"]
        return seen.first_token, seen.first_tokens

    for number in range(20):
        quick = an_exchange(f"r{number}", 100.0)
        with metering.request("chat", quick):
            quick.first_byte = 100.1 + number / 100
    whole = an_exchange("whole", 90.0, streams=False)
    with metering.request("chat", whole):
        whole.first_byte = 99.0
    assert told() == (0.28, 20), "the 19th of 20; the first byte of a whole answer is its last"
    late = an_exchange("late", 100.0)
    with metering.request("chat", late):
        now[0] = 100.2
        assert told() == (0.28, 20), "nothing is known of one that waits no longer than others did"
        now[0] = 107.0
        assert told() == (0.29, 21)
        now[0] = 100.0 + FIRST_WINDOW + 5
        assert told() == (20.0, 1), "the others are too old"
    now[0] += FIRST_WINDOW + 1
    assert told() == (None, 0)


def test_how_revisions_fare_is_counted_apart_and_never_for_another_deployment_of_the_same_name(tmp_path: Path) -> None:
    def table(created_at: float, *revisions: int) -> RoutingTable:
        endpoints = tuple(Endpoint(attempt=f"a{n}", url="unix:x", revision=n) for n in revisions)
        there = {"deployment": "chat", "version": "m@1", "task": "t", "engine": "e", "created_at": created_at}
        return RoutingTable(version=1, routes=(Route(**there, endpoints=endpoints),))

    now = [table(1, 1, 2)]
    metering = Metering(tmp_path / "usage.json", lambda: 5.0, lambda: now[0])
    with metering.request("chat"):
        for revision, first_byte in ((1, 0.25), (2, None), (2, 0.5)):
            metering.asked("chat", revision)
            metering.fared("chat", revision, first_byte)
        metering.asked("chat", 2)  # nobody has heard of this one yet
    metering.flush()
    counted = written(tmp_path).deployments["chat"].revisions
    assert counted[1] == RevisionUsage(requests=1, first_bytes=1, first_byte_seconds=0.25, asked=1)
    assert counted[2] == RevisionUsage(requests=2, failed=1, first_bytes=1, first_byte_seconds=0.5, asked=3)
    again = Metering(tmp_path / "usage.json", lambda: 5.0, lambda: now[0])
    again.changed(now[0])
    now[0] = table(1, 5)
    for revision in (3, 4, 5):
        again.fared("chat", revision, 0.1)
    again.flush()
    assert set(written(tmp_path).deployments["chat"].revisions) == {3, 4, 5}, "the two newest that are gone are kept"
    now[0] = table(2, 1)
    again.changed(now[0])
    again.flush()
    assert written(tmp_path).deployments["chat"].revisions == {}


def test_who_waits_for_a_deployment_wants_it_and_is_not_counted_twice(tmp_path: Path) -> None:
    metering = Metering(tmp_path / "usage.json", lambda: 5.0, lambda: a_table("chat"))
    with metering.waiting("chat"):
        metering.flush()
        seen = written(tmp_path).deployments["chat"]
        assert (seen.in_flight, seen.requests, seen.last_request_at) == (1, 0, 5.0)


def test_a_full_disk_stops_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "not-there"
    metering = Metering(folder / "usage.json", lambda: 1.0, a_table)
    assert not metering.flush()
    assert not metering.flush()
    metering.served(ACCOUNT, 1, 2)
    metering.served(ACCOUNT, 1, 2)
    assert caplog.text.count("the usage cannot be written") == 1
    assert caplog.text.count("what was served cannot be written down") == 1
    folder.mkdir()
    assert metering.flush()
    assert written(folder).served[0].requests == 2


@given(st.lists(st.sampled_from(["serve", "fold", "write", "kill"]), max_size=40))
def test_no_kill_loses_or_doubles_what_was_served(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    folder = tmp_path_factory.mktemp("spool")
    path, served = folder / "usage.json", 0

    def begin() -> Spool:
        earlier = GatewayUsage.model_validate_json(path.read_bytes()) if path.exists() else None
        return Spool(path, earlier)

    def write(spool: Spool) -> None:
        usage = GatewayUsage(written_at=1, served=spool.sums(), spool=spool.number + 1)
        path.write_text(usage.model_dump_json())

    spool = begin()
    for step in steps:
        if step == "serve":
            spool.add(ACCOUNT, 3, 4)
            served += 1
        elif step == "fold":
            write(spool)
            spool.folded()
        else:
            if step == "write":  # killed between the two steps of a fold
                write(spool)
            spool = begin()
        sums = spool.sums()
        assert sum(one.requests for one in sums) == served
        assert sum(one.prompt_tokens for one in sums) == 3 * served
        assert sum(one.completion_tokens for one in sums) == 4 * served


def test_a_torn_line_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = json.dumps([*ACCOUNT, 1, 2])
    (tmp_path / "usage.0.jsonl").write_text(f'{good}\n["lab", "key\n{good}\n')
    assert Spool(tmp_path / "usage.json", None).sums()[0].requests == 2
    assert "damaged" in caplog.text


def test_what_is_gone_is_put_together(tmp_path: Path) -> None:
    table = [a_table("chat")]
    metering = Metering(tmp_path / "usage.json", lambda: 1.0, lambda: table[0])
    metering.served(ACCOUNT, 1, 2)
    metering.served(("lab", "key-2", "chat", "smollm2@1"), 1, 2)
    metering.served(("lab", "key-3", "gone", "smollm2@1"), 1, 2)
    metering.flush()
    found = {(one.key, one.deployment): one.requests for one in written(tmp_path).served}
    assert found == {("key-1", "chat"): 1, ("", "chat"): 1, ("", ""): 1}
    with metering.request("chat"):
        metering.flush()
    table[0] = RoutingTable(version=0)  # not read yet: nothing is known to be gone
    again = Metering(tmp_path / "usage.json", lambda: 1.0, lambda: table[0])
    again.flush()
    assert set(written(tmp_path).deployments) == {"chat"}
    assert {(one.key, one.deployment) for one in written(tmp_path).served} == set(found)


def test_the_first_sums_are_those_of_the_file(tmp_path: Path) -> None:
    one = Served(tenant="a", key="b", deployment="c", version="d", requests=5, prompt_tokens=6, completion_tokens=7)
    assert Spool(tmp_path / "usage.json", GatewayUsage(written_at=1, served=(one,))).sums() == (one,)


@pytest.mark.parametrize(
    ("usage", "found"),
    [({}, (0, 0)), ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4)), ({"prompt_tokens": "x"}, (0, 0))],
)
def test_tokens_of_what_an_engine_said(usage: dict[str, object], found: tuple[int, int]) -> None:
    assert tokens_of(usage) == found


def test_the_access_log_turns_and_a_full_disk_does_not_stop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("llm_os.server.gateway.access.MOST", 200)
    lost = AccessLog(tmp_path / "not-there" / "access.log")
    for _ in range(2):
        lost.line("x")
        lost.flush()
    assert caplog.text.count("cannot be written") == 1
    log = AccessLog(tmp_path / "access.log")
    for number in range(6):
        log.line(f"{number} " + "x" * 200)
        log.flush()
    log.line("last")
    log.flush()
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["access.log", "access.log.1", "access.log.2", "access.log.3"]
    assert [(tmp_path / name).read_text()[24:28] for name in names] == ["last", "5 xx", "4 xx", "3 xx"]


@pytest.mark.parametrize(
    ("details", "found"),
    [({"cached_tokens": 7}, 7), ({"cached_tokens": 0}, 0), ({}, None), (None, None), ({"cached_tokens": "x"}, None)],
)
def test_what_an_engine_had_in_its_cache_is_known_only_where_it_says_so(details: object, found: int | None) -> None:
    assert cached_of({"prompt_tokens": 9, "prompt_tokens_details": details}) == found


def test_tokens_from_the_cache_are_counted_beside_those_of_prompts(tmp_path: Path) -> None:
    metrics = Metrics()
    metering = Metering(tmp_path / "usage.json", lambda: 5.0, lambda: a_table("chat"))
    accounting = Accounting(metering, metrics, Estimates(), AccessLog(tmp_path / "access.log"))
    for number, details in enumerate(({"cached_tokens": 7}, None)):
        exchange = an_exchange(f"r{number}", 0.0)
        exchange.route, exchange.model, exchange.version, exchange.tenant = "/v1/x", "chat", "m@1", "lab"
        exchange.first_byte = 1.0
        exchange.usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": details}
        accounting.served(exchange, 36)
    page = metrics.page().decode()
    assert 'llm_os_gateway_prompt_tokens_cached_total{model="chat",tenant="lab",version="m@1"} 7.0' in page
    assert 'llm_os_gateway_tokens_total{direction="in",model="chat",tenant="lab",version="m@1"} 18.0' in page
    metrics.forget({"chat": {"m@1"}})
    metrics.forget({"chat": {"m@2"}})
    assert "cached_total{" in metrics.page().decode()
    metrics.forget({"other": {"m@1"}})
    assert "cached_total{" not in metrics.page().decode()


@pytest.mark.parametrize(
    ("streams", "events", "first_tokens"),
    [(True, 3, 1), (True, 1, 1), (False, 0, 0), (True, 0, 0)],
    ids=["a stream", "a short one", "a whole answer", "a whole answer to who asked for a stream"],
)
def test_only_streams_have_a_first_token(tmp_path: Path, streams: bool, events: int, first_tokens: int) -> None:
    metrics = Metrics()
    metering = Metering(tmp_path / "usage.json", lambda: 5.0, lambda: a_table("chat"))
    accounting = Accounting(metering, metrics, Estimates(), AccessLog(tmp_path / "access.log"))
    exchange = an_exchange("r", 0.0, streams=streams)
    exchange.route, exchange.model, exchange.version, exchange.tenant = "/v1/x", "chat", "m@1", "lab"
    exchange.status, exchange.first_byte, exchange.events = 200, 2.5, events
    accounting.ended(exchange, "POST", None)
    page, who = metrics.page().decode(), 'model="chat",route="/v1/x",tenant="lab",version="m@1"'
    assert f"llm_os_gateway_first_byte_seconds_sum{{{who}}} 2.5" in page
    assert page.count(f"llm_os_gateway_first_token_seconds_sum{{{who}}} 2.5") == first_tokens
    metrics.forget({})
    assert "first_token_seconds_sum{" not in metrics.page().decode()


def test_counters_of_versions_that_were_replaced_do_not_become_ever_more() -> None:
    metrics = Metrics()
    for number in range(50):
        metrics.of("/v1/x", "chat", f"m@{number}", "lab").answered(200)
        metrics.of("/v1/x", "", "", "lab").answered(404)
        metrics.forget({"chat": {f"m@{number}", "adapter@1"}})
        assert f'version="m@{number - (number > 0)}"' in metrics.page().decode()  # once more, for who reads it
    assert {labels[2] for labels in metrics._series} == {"", "m@48", "m@49"}
    assert metrics.page().decode().count("llm_os_gateway_requests_total{") == 3
