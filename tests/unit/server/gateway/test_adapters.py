"""Requests that name an adapter: which replicas may answer, under which version, and what is never mixed."""

from __future__ import annotations

from typing import Any

import pytest

from llm_os.errors import NotFoundError, PermissionDeniedError, UnavailableError
from llm_os.server.gateway import openai
from llm_os.server.gateway.openai import Call
from llm_os.server.gateway.prefixes import BLOCK, blocks
from llm_os.server.gateway.response_cache import name_of, state_of
from llm_os.server.gateway.routes import adapted, find, pinned, views
from llm_os.spec.routing import Canary, Endpoint, KeyEntry, Route, RouteAdapter, RoutingTable

ADMIN = KeyEntry(id="k", sha256="0", role="admin")


def endpoint(name: str, revision: int = 1, **adapters: str) -> Endpoint:
    return Endpoint(attempt=name, url=f"unix:/{name}", version=f"base@{revision}", revision=revision, adapters=adapters)


def a_route(*endpoints: Endpoint, **more: Any) -> Route:
    adapters = (RouteAdapter(name="mood", version="mood@2"), RouteAdapter(name="tone", version="tone@1"))
    given = {"adapters": adapters, **more}
    return Route(
        deployment="chat",
        version="base@1",
        task="text-generation",
        engine="e",
        endpoints=endpoints,
        created_at=1,
        **given,
    )


def attempts(route: Route) -> list[str]:
    return [one.attempt for one in route.endpoints]


def test_only_replicas_that_hold_an_adapter_answer_with_it_and_its_version_is_counted() -> None:
    route = a_route(endpoint("a"), endpoint("b", mood="mood@2"), endpoint("c", mood="mood@2", tone="tone@1"))
    found = pinned(find(RoutingTable(version=1, routes=(route,)), ADMIN, "chat:mood", route.task), "chat:mood")
    assert attempts(found) == ["b", "c"]
    assert {one.version for one in found.endpoints} == {found.version} == {"mood@2"}
    assert attempts(pinned(route, "chat")) == ["a", "b", "c"]
    assert pinned(route, "chat").version == "base@1"
    lacking = route.model_copy(update={"absent": {"other": ()}})
    assert pinned(lacking, "chat:mood").absent == {}, "nobody knows whether the other one would hold it"
    assert [pinned(lacking, model).absent for model in ("chat", "base@1")] == [lacking.absent] * 2


def test_the_version_before_answers_until_a_replica_holds_the_new_one() -> None:
    before = adapted(a_route(endpoint("a", mood="mood@1"), endpoint("b")), "mood")
    assert (attempts(before), before.endpoints[0].version, before.version) == (["a"], "mood@1", "mood@2")
    after = adapted(a_route(endpoint("a", mood="mood@1"), endpoint("b", mood="mood@2")), "mood")
    assert attempts(after) == ["b"]


def test_a_request_waits_for_one_that_is_on_its_way_and_is_told_of_one_that_cannot_come() -> None:
    assert adapted(a_route(endpoint("a")), "mood").endpoints == ()
    failed = (RouteAdapter(name="mood", version="mood@2", failed="it is broken."),)
    with pytest.raises(UnavailableError, match=r"could not be taken in: it is broken\."):
        adapted(a_route(endpoint("a"), adapters=failed), "mood")
    assert adapted(a_route(adapters=failed), "mood").endpoints == (), "asleep: the next replica may take it"
    assert attempts(adapted(a_route(endpoint("a"), endpoint("b", mood="mood@2"), adapters=failed), "mood")) == ["b"]


def test_an_unknown_one_is_named_with_what_there_is() -> None:
    with pytest.raises(NotFoundError) as unknown:
        adapted(a_route(endpoint("a")), "moo")
    assert unknown.value.message == "'chat' has no adapter 'moo'."
    assert unknown.value.hint == "Did you mean 'chat:mood'? Known: chat, chat:mood, chat:tone."
    with pytest.raises(NotFoundError):
        adapted(a_route(), "")


def test_a_key_of_some_deployments_may_use_their_adapters_and_no_others() -> None:
    table = RoutingTable(version=1, routes=(a_route(endpoint("a", mood="mood@2")),))
    mine = ADMIN.model_copy(update={"role": "user", "deployments": ("chat",)})
    assert find(table, mine, "chat:mood", "text-generation").deployment == "chat"
    with pytest.raises(PermissionDeniedError):
        find(table, mine.model_copy(update={"deployments": ("other",)}), "chat:mood", "text-generation")


def test_a_version_with_an_adapter_is_both() -> None:
    new = endpoint("b", 2, mood="mood@2")
    route = a_route(endpoint("a", mood="mood@2"), new, canary=Canary(revision=2, weight=0.5))
    found = pinned(route, "base@2:mood")
    assert (attempts(found), found.canary, found.version) == (["b"], None, "mood@2")


def test_what_was_read_or_said_with_one_adapter_is_never_taken_for_another() -> None:
    text = "x" * 4 * BLOCK
    assert len({blocks(text), blocks(text, "mood@1"), blocks(text, "mood@2")}) == 3
    assert not {*blocks(text)} & {*blocks(text, "mood@1")}
    route = a_route(endpoint("a", mood="mood@2", tone="tone@1"))
    call = Call("chat", False, b"{}", value={"messages": [], "temperature": 0})
    names = [
        name_of("t", pinned(route, model), "/v1/chat/completions", call) for model in ("chat", "chat:mood", "chat:tone")
    ]
    assert len(set(names)) == 3
    assert {one.state for one in names} == {state_of(view) for view in views(route)}, "what is asked for is kept"
    other = (RouteAdapter(name="mood", version="mood@3"), *route.adapters[1:])
    changed = a_route(endpoint("a"), adapters=other)
    kept = {state_of(view) for view in views(route)} & {state_of(view) for view in views(changed)}
    assert kept == {names[0].state, names[2].state}, "a new version of one says nothing of the others"


def test_the_list_of_models_names_adapters_with_their_model() -> None:
    route = a_route(endpoint("a", mood="mood@2", tone="tone@0"))
    listed = {one["id"]: one for one in openai.model_list([route])["data"]}
    assert list(listed) == ["chat", "chat:mood", "chat:tone"]
    assert listed["chat:mood"]["parent"] == "chat"
    assert (listed["chat:mood"]["ready"], listed["chat:tone"]["ready"]) == (True, False)


def test_an_answer_of_one_version_is_never_told_to_who_names_another() -> None:
    """While a version is tried or replaced, both are served under one name."""
    both = a_route(endpoint("a"), endpoint("b", revision=2), canary=Canary(revision=2, weight=0.1))
    asked = {name: openai.any_call(f'{{"model": "{name}", "prompt": "Hi"}}'.encode()) for name in ("base@1", "base@2")}
    names = [name_of("t", pinned(both, name), "/v1/completions", call) for name, call in asked.items()]
    assert names[0] != names[1]
    assert pinned(both, "base@2").version == "base@2"
    alone = a_route(endpoint("a"))
    call = asked["base@1"]
    assert name_of("t", pinned(alone, "base@1"), "", call) == name_of("t", pinned(alone, "chat"), "", call)
