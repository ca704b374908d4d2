"""The OpenAPI document of the gateway agrees with the routes that there are and with what is really checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from llm_os.errors import LLMOSError
from llm_os.server.gateway import anthropic, openapi, responses, schemas
from llm_os.server.gateway.accounting import Accounting
from llm_os.server.gateway.admission import Admission
from llm_os.server.gateway.app import Gateway, Parts
from llm_os.server.gateway.exchange import Exchange, identified
from llm_os.server.gateway.lanes import Lanes
from llm_os.server.gateway.proxy import Proxy
from llm_os.server.gateway.quotas import Quotas
from llm_os.server.gateway.response_cache import ResponseCache
from llm_os.server.gateway.routes import Routes
from llm_os.server.gateway.upstream import Upstreams
from llm_os.workers import conversation, ranking, tools
from llm_os.workers import requests as workers

DOCUMENT = openapi.document()


def properties(name: str) -> set[str]:
    return set(schemas.REQUESTS[name]["properties"])


def test_every_route_is_in_the_document_and_the_other_way_round(tmp_path: Path) -> None:
    parts = Parts(
        routes=Routes(tmp_path / "routes.json"),
        proxy=Proxy(Upstreams(lambda: 0.0), lambda: 0.0, lambda _: None, None, Lanes()),  # type: ignore[arg-type,return-value]
        cache=ResponseCache(0),
        admission=Admission(1, lambda: 0.0),
        quotas=Quotas(lambda: 0.0),
        accounting=Accounting(None, None, None, None),  # type: ignore[arg-type]
        max_body=1,
        body_within=1.0,
        logfile="",
    )
    table = Gateway(parts).endpoints().table
    served = {(method.lower(), path) for method, paths in table.items() for path in paths if method != "HEAD"}
    assert table["HEAD"] == table["GET"]
    told = {(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert told == served


def test_the_names_of_chats_and_completions_are_those_that_workers_let_through() -> None:
    always = workers.UNUSED | set(workers.NEUTRAL) - set(workers.FOLLOWED_BY)
    assert properties("ChatRequest") == workers.KNOWN | always | set(workers.FOLLOWED_BY)
    followed = set(workers.FOLLOWED_BY) - {"response_format", "top_logprobs"}
    assert properties("CompletionRequest") == workers.KNOWN_OF_COMPLETIONS | always | followed


def test_the_names_of_other_apis_are_those_of_their_translations() -> None:
    assert properties("ResponsesRequest") == responses.KNOWN | set(responses.NEUTRAL)
    assert properties("MessagesRequest") == anthropic.KNOWN
    assert properties("CountRequest") == anthropic.COUNTED


def test_limits_are_those_of_the_workers() -> None:
    for name in ("MOST_STOPS", "MOST_TEXTS", "MOST_PROMPTS", "MOST_LOGPROBS"):
        assert getattr(schemas, name) == getattr(workers, name), name
    assert schemas.MOST_ANSWERS == workers.MOST_CHOICES
    assert schemas.MOST_TOOLS == tools.MOST_TOOLS
    assert schemas.CHOICES == tools.CHOICES
    assert tools.NAME.pattern == schemas.TOOL_NAME
    neutral = {**schemas.NEUTRAL, **schemas.OF_CHATS}
    assert neutral == {name: workers.NEUTRAL[name] for name in neutral}
    messages = schemas.REQUESTS["ChatRequest"]["properties"]["messages"]["items"]["anyOf"]
    kinds = [schemas.REQUESTS[one["$ref"].rsplit("/")[-1]]["properties"] for one in messages]
    told = {role for kind in kinds for role in kind["role"]["enum"]}
    assert told == set(conversation.ROLES)


def engines(text: str) -> set[str]:
    return set(re.split(", | or ", text))


def test_each_description_names_the_engines_that_follow_it() -> None:
    all_of_them = set().union(*map(engines, workers.FOLLOWED_BY.values()))
    for name, followed in workers.FOLLOWED_BY.items():
        said = schemas.REQUESTS["ChatRequest"]["properties"][name]["description"]
        assert {engine for engine in all_of_them if engine in said} == engines(followed), name


CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
COMPLETION = {"model": "m", "prompt": "x"}
RESPONSE = {"model": "m", "input": "x"}
MESSAGE = {**CHAT, "max_tokens": 1}
ASK = {"role": "user", "content": "x"}
FUNCTION = {"name": "f", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ITEM = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
USE = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
FORM = {"type": "json_schema", "name": "a", "schema": {"type": "object"}}


def function(**more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {**FUNCTION, **more}}


def named(name: str) -> dict[str, Any]:
    return function(name=name)


def many(number: int) -> list[Any]:
    return [named(f"f{index}") for index in range(number)]


def result(**more: Any) -> dict[str, Any]:
    return {"messages": [ASK, CALLING, {"role": "tool", "content": "x", **more}]}


def output(**more: Any) -> dict[str, Any]:
    return {"input": [ITEM, {"type": "function_call_output", "call_id": "c", **more}]}


def used(**more: Any) -> dict[str, Any]:
    turns = [ASK, {"role": "assistant", "content": [USE]}]
    return {"messages": [*turns, {"role": "user", "content": [{"type": "tool_result", **more}]}]}


AT_LIMITS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("ChatRequest", CHAT, {"temperature": 2}, {"temperature": 2.1}),
    ("ChatRequest", CHAT, {"top_p": 1}, {"top_p": 0}),
    ("ChatRequest", CHAT, {"seed": 0}, {"seed": -1}),
    ("ChatRequest", CHAT, {"seed": 2**63 - 1}, {"seed": 2**63}),
    ("ChatRequest", CHAT, {"max_tokens": 1}, {"max_tokens": 0}),
    ("ChatRequest", CHAT, {"stop": ["x"] * 8}, {"stop": ["x"] * 9}),
    ("ChatRequest", CHAT, {"stop": "x"}, {"stop": ""}),
    ("ChatRequest", CHAT, {"n": 16}, {"n": 17}),
    ("ChatRequest", CHAT, {"tools": []}, {"tools": [1]}),
    ("ChatRequest", CHAT, {"stream_options": {"include_usage": True}}, {"stream_options": {"x": True}}),
    ("ChatRequest", CHAT, {"frequency_penalty": -2}, {"frequency_penalty": -2.5}),
    ("ChatRequest", CHAT, {"user": 1}, {"unknown": 1}),
    ("ChatRequest", CHAT, {"n": None}, {"n": "2"}),
    ("ChatRequest", CHAT, {"messages": [{"role": "developer", "content": "x"}]}, {"messages": []}),
    ("ChatRequest", CHAT, {"response_format": {"type": "text"}}, {"response_format": {"type": "yaml"}}),
    ("ChatRequest", CHAT, {"logprobs": True, "top_logprobs": 20, "max_tokens": 9}, {"logprobs": 1}),
    (
        "ChatRequest",
        CHAT,
        {"response_format": {"type": "json_schema", "json_schema": FORM}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
    ),
    ("ChatRequest", CHAT, {"tools": [TOOL]}, {"tools": [TOOL | {"type": "custom"}]}),
    ("ChatRequest", CHAT, {"tools": many(128)}, {"tools": many(129)}),
    ("ChatRequest", CHAT, {"tools": [named("a" * 64)]}, {"tools": [named("a" * 65)]}),
    ("ChatRequest", CHAT, {"tools": [named("a-_Z9")]}, {"tools": [named("a.b")]}),
    ("ChatRequest", CHAT, {"tools": [function(strict=None)]}, {"tools": [function(strict="yes")]}),
    ("ChatRequest", CHAT, {"tools": [function(parameters=None)]}, {"tools": [function(parameters={"type": "array"})]}),
    ("ChatRequest", CHAT, {"tools": [function(description="d")]}, {"tools": [function(returns="d")]}),
    ("ChatRequest", CHAT | {"tools": [TOOL]}, {"tool_choice": "required"}, {"tool_choice": "any"}),
    ("ChatRequest", CHAT | {"tools": [TOOL]}, {"tool_choice": TOOL}, {"tool_choice": {"type": "function"}}),
    ("ChatRequest", CHAT | {"tools": [TOOL]}, {"parallel_tool_calls": False}, {"parallel_tool_calls": 0}),
    ("ChatRequest", CHAT, {"messages": [CALLING]}, {"messages": [CALLING | {"tool_calls": []}]}),
    (
        "ChatRequest",
        CHAT,
        {"messages": [ASK | {"role": "assistant", "tool_calls": None}]},
        {"messages": [{"role": "assistant", "content": None}]},
    ),
    ("ChatRequest", CHAT, {"messages": [CALLING]}, {"messages": [CALLING | {"tool_calls": [CALL | {"id": 1}]}]}),
    ("ChatRequest", CHAT, result(tool_call_id="c"), result()),
    ("ChatRequest", CHAT, result(tool_call_id="c"), result(tool_call_id="c", content=None)),
    ("CompletionRequest", COMPLETION, {"tools": [], "tool_choice": "none"}, {"tools": [TOOL]}),
    ("CompletionRequest", COMPLETION, {"tool_choice": "auto"}, {"tool_choice": "required"}),
    ("CompletionRequest", COMPLETION, {"prompt": [[1, 2], "x"]}, {"prompt": [[]]}),
    ("CompletionRequest", COMPLETION, {"prompt": [2**31 - 1]}, {"prompt": [2**31]}),
    ("CompletionRequest", COMPLETION, {"prompt": ["x"] * 256}, {"prompt": ["x"] * 257}),
    ("CompletionRequest", COMPLETION, {"logprobs": 20}, {"logprobs": 21}),
    ("CompletionRequest", COMPLETION, {"echo": False}, {"echo": True}),
    ("ResponsesRequest", RESPONSE, {"metadata": {"a": "b"}}, {"metadata": {"a": 1}}),
    ("ResponsesRequest", RESPONSE, {"text": responses.PLAIN}, {"text": {"format": 1}}),
    ("ResponsesRequest", RESPONSE, {"text": {"format": FORM}}, {"text": {"format": FORM | {"schema": None}}}),
    ("ResponsesRequest", RESPONSE, {"text": {"format": None}}, {"text": {"verbosity": "low"}}),
    ("ResponsesRequest", RESPONSE, {"instructions": None}, {"instructions": 1}),
    ("ResponsesRequest", RESPONSE, {"tools": [FUNCTION | {"type": "function"}]}, {"tools": [FUNCTION]}),
    (
        "ResponsesRequest",
        RESPONSE,
        {"tools": [{"type": "function", "name": "f", "parameters": None}]},
        {"tools": [{"type": "function", "name": "f", "parameters": {"type": "array"}}]},
    ),
    (
        "ResponsesRequest",
        RESPONSE | {"tools": [FUNCTION | {"type": "function"}]},
        {"tool_choice": {"type": "function", "name": "f"}},
        {"tool_choice": {"type": "function"}},
    ),
    ("ResponsesRequest", RESPONSE, {"parallel_tool_calls": None}, {"parallel_tool_calls": "no"}),
    ("ResponsesRequest", RESPONSE, {"input": [ITEM]}, {"input": [ITEM | {"arguments": {}}]}),
    ("ResponsesRequest", RESPONSE, output(output="x"), output(output={"text": "x"})),
    ("ResponsesRequest", RESPONSE, output(output=[{"type": "input_text", "text": "x"}]), output()),
    ("MessagesRequest", MESSAGE, {"system": "x"}, {"system": 1}),
    ("MessagesRequest", MESSAGE, {"stop_sequences": None}, {"max_tokens": None}),
    (
        "MessagesRequest",
        MESSAGE,
        {"tools": [{"name": "f", "input_schema": {"type": "object"}}]},
        {"tools": [{"name": "f", "input_schema": {"type": "string"}}]},
    ),
    (
        "MessagesRequest",
        MESSAGE,
        {"tools": [{"name": "f", "type": "custom"}]},
        {"tools": [{"name": "f", "type": "bash_20250124"}]},
    ),
    (
        "MessagesRequest",
        MESSAGE | {"tools": [{"name": "f"}]},
        {"tool_choice": {"type": "tool", "name": "f"}},
        {"tool_choice": {"type": "required"}},
    ),
    (
        "MessagesRequest",
        MESSAGE | {"tools": [{"name": "f"}]},
        {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        {"tool_choice": "any"},
    ),
    ("MessagesRequest", MESSAGE, used(tool_use_id="c"), used(tool_use_id=["c"])),
    ("MessagesRequest", MESSAGE, used(tool_use_id="c", content="x", is_error=True), used(content="x")),
    (
        "MessagesRequest",
        MESSAGE,
        used(tool_use_id="c", content=[{"type": "text", "text": "x"}]),
        used(tool_use_id="c", content=[{"type": "image"}]),
    ),
    ("MessagesRequest", MESSAGE, used(tool_use_id="c"), {"messages": [{"role": "user", "content": [USE]}]}),
    ("MessagesRequest", MESSAGE, {"output_config": {"format": FORM}}, {"output_config": {"format": {"type": "text"}}}),
    ("MessagesRequest", MESSAGE, {"output_config": None}, {"output_config": {"effort": "low"}}),
    ("CountRequest", CHAT, {"system": [{"type": "text", "text": "x"}]}, {"temperature": 1}),
    ("CountRequest", CHAT, {"tools": [{"name": "f"}]}, {"tools": [{"name": "f g"}]}),
    ("TokenizeRequest", CHAT, {"tools": [TOOL]}, {"tools": [FUNCTION]}),
    ("TokenizeRequest", {"model": "m"}, {"prompt": ""}, {"prompt": "", "messages": CHAT["messages"]}),
    ("DetokenizeRequest", {"model": "m"}, {"tokens": [0]}, {"tokens": []}),
    ("ClassifyRequest", {"model": "m"}, {"input": [""]}, {"input": []}),
    ("EmbeddingsRequest", {"model": "m"}, {"input": "x", "encoding_format": "base64"}, {"input": "x", "dimensions": 3}),
    ("RerankRequest", {"model": "m", "query": "q"}, {"documents": [{"text": "x"}, "y"]}, {"documents": [""]}),
    ("RerankRequest", {"model": "m", "query": "q", "documents": ["x"]}, {"top_n": 1}, {"top_n": 0}),
    ("ScoreRequest", {"model": "m", "text_1": "x"}, {"text_2": "y"}, {"text_2": ""}),
]
"""Schema, a body, what may be added to it, and what may not."""
FOLLOWS = frozenset(workers.FOLLOWED_BY)
CHECKS: Mapping[str, Any] = {
    "ChatRequest": lambda body: workers.chat_request(body, "any", FOLLOWS),
    "CompletionRequest": lambda body: workers.completion_request(body, "any", FOLLOWS),
    "ResponsesRequest": lambda body: workers.chat_request(responses.Response(json.loads(body)).body, "any", FOLLOWS),
    "MessagesRequest": lambda body: workers.chat_request(anthropic.Message(json.loads(body)).body, "any", FOLLOWS),
    "CountRequest": lambda body: workers.tokenize_request(anthropic.Count(json.loads(body)).body, "any", FOLLOWS),
    "TokenizeRequest": lambda body: workers.tokenize_request(body, "any", FOLLOWS),
    "DetokenizeRequest": lambda body: workers.detokenize_request(body, "any"),
    "ClassifyRequest": lambda body: workers.classify_request(body, "any"),
    "EmbeddingsRequest": lambda body: workers.embeddings_request(body, "any"),
    "RerankRequest": lambda body: ranking.Rerank(body, "any"),
    "ScoreRequest": lambda body: ranking.Score(body, "any"),
}


def valid(name: str, body: Mapping[str, Any]) -> bool:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return bool(jsonschema.Draft202012Validator(schema).is_valid(body))


@pytest.mark.parametrize(("name", "body", "right", "wrong"), AT_LIMITS)
def test_what_the_document_takes_is_taken_and_what_it_refuses_is_refused(
    name: str, body: dict[str, Any], right: dict[str, Any], wrong: dict[str, Any]
) -> None:
    assert valid(name, body | right)
    CHECKS[name](json.dumps(body | right).encode())
    assert not valid(name, body | wrong)
    with pytest.raises(LLMOSError):
        CHECKS[name](json.dumps(body | wrong).encode())


def test_every_schema_is_a_schema_and_every_reference_leads_somewhere() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for target in references(DOCUMENT):
        found: Any = DOCUMENT
        for part in target.removeprefix("#/").split("/"):
            found = found[part]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def test_headers_of_answers_are_those_that_are_sent() -> None:
    sent = identified(Exchange("req-1", 0.0, cache="hit", engine="torch"))
    for endpoint in (one for one in openapi.ENDPOINTS if one.asked):
        told = DOCUMENT["paths"][endpoint.path]["post"]["responses"]["200"]["headers"]
        assert told.keys() == sent.keys() - {"request-id"}  # which says the same as x-request-id
    assert sent["x-llm-os-cache"] in DOCUMENT["components"]["headers"]["x-llm-os-cache"]["schema"]["enum"]


def test_refusals_are_told_with_their_codes() -> None:
    told = DOCUMENT["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert {"200", "400", "401", "403", "404", "413", "429", "500", "503", "504", "default"} == set(told)
    assert "`quota_exceeded`" in told["429"]["description"]
    assert "retry-after" in told["429"]["headers"]
    assert DOCUMENT["paths"]["/health"]["get"]["security"] == []
