"""Tools that requests offer and messages that speak of calls: what is taken, and how the rest is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_os.errors import InvalidOptionError
from llm_os.spec.base import DEEPEST
from llm_os.workers.backend import Piece
from llm_os.workers.requests import ChatRequest, chat_request, completion_request, tokenize_request
from llm_os.workers.shapes import Chat
from llm_os.workers.tools import MOST_TOOLS, ToolCall

HELLO: list[Any] = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
LARGE = SCHEMA | {"description": "x" * 30_000}
FREE, HELD = frozenset({"tools", "logprobs", "response_format"}), frozenset({"tools", "tool_choice"})


def function(name: Any = "weather", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def chat(follows: frozenset[str] = HELD, **more: Any) -> ChatRequest:
    return chat_request(json.dumps({"messages": HELLO} | more).encode(), "toy", follows)


TWO = [function("weather", description="Of a city.", parameters=SCHEMA), function("time")]


def test_what_is_offered_reaches_the_engine() -> None:
    asked = chat(tools=TWO)
    assert [tool.name for tool in asked.tools] == ["weather", "time"]
    assert asked.tools[0].told() == TWO[0]
    assert asked.tools[1].parameters == {"type": "object", "properties": {}}
    assert (asked.must_call, asked.parallel_calls) == (False, True)
    assert not chat(tools=TWO, parallel_tool_calls=False).parallel_calls
    assert [tool.name for tool in chat(FREE, tools=TWO, tool_choice="auto").tools] == ["weather", "time"]


def test_a_choice_is_two_flags() -> None:
    assert chat(tools=TWO, tool_choice="none") == chat()
    required = chat(tools=TWO, tool_choice="required")
    assert (len(required.tools), required.must_call, required.parallel_calls) == (2, True, True)
    one = chat(tools=TWO, tool_choice=named("time"))
    assert ([tool.name for tool in one.tools], one.must_call, one.parallel_calls) == (["time"], True, False)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"tools": "weather"}, "tools"),
        ({"tools": [function()] * (MOST_TOOLS + 1)}, "tools"),
        ({"tools": ["weather"]}, "tools[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [function("a b")]}, "tools[0].function.name"),
        ({"tools": [function(3)]}, "tools[0].function.name"),
        ({"tools": [function(), function()]}, "tools[1].function.name"),
        ({"tools": [function(colour="red")]}, "tools[0].function.colour"),
        ({"tools": [function(description=3)]}, "tools[0].function.description"),
        ({"tools": [function(parameters=[1])]}, "tools[0].function.parameters"),
        ({"tools": [function(parameters={"type": "string"})]}, "tools[0].function.parameters"),
        ({"tools": [function(strict="yes")]}, "tools[0].function.strict"),
        ({"tools": TWO, "tool_choice": "weather"}, "tool_choice"),
        ({"tools": TWO, "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tools": TWO, "tool_choice": named("other")}, "tool_choice"),
        ({"tools": TWO, "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TWO, "parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"tools": [function(f"t{n}", parameters=LARGE) for n in range(3)], "tool_choice": "required"}, "tools"),
        (
            {"tools": [function(parameters=SCHEMA | {"not": {}})], "tool_choice": "required"},
            "tools[0].function.parameters",
        ),
        ({"tools": [function(parameters=SCHEMA | {"not": {}}, strict=True)]}, "tools[0].function.parameters"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        chat(**given)
    assert caught.value.details["param"] == param
    assert caught.value.hint


def test_an_engine_without_a_grammar_names_the_one_that_has_it() -> None:
    for given, param in (
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": named("time")}, "tool_choice"),
        ({"tools": [function(strict=True)]}, "tools[0].function.strict"),
    ):
        with pytest.raises(InvalidOptionError, match="engine toy cannot hold") as caught:
            chat(FREE, **{"tools": TWO, **given})
        assert caught.value.details["param"] == param
        assert "openvino" in caught.value.hint
    chat(FREE, tools=[function(strict=True)], tool_choice="none")
    chat(FREE, tools=[function(parameters=SCHEMA | {"not": {}})])


def test_an_engine_without_tools_says_who_has_them() -> None:
    with pytest.raises(InvalidOptionError, match="toy does not follow 'tools'") as caught:
        chat(frozenset(), tools=TWO)
    assert "torch, openvino, llamacpp or vllm" in caught.value.hint
    chat(frozenset(), tools=[], tool_choice="auto", parallel_tool_calls=True)
    with pytest.raises(InvalidOptionError, match="'tools'"):
        completion_request(json.dumps({"prompt": "a", "tools": TWO}).encode(), "toy", HELD)


@pytest.mark.parametrize("name", ["logprobs", "response_format"])
def test_what_does_not_go_with_tools_is_named(name: str) -> None:
    wish = {"logprobs": True, "response_format": {"type": "json_object"}}[name]
    with pytest.raises(InvalidOptionError, match="do not go together") as caught:
        chat(FREE, tools=TWO, **{name: wish})
    assert caught.value.details["param"] == name
    chat(FREE, tools=TWO, tool_choice="none", **{name: wish})
    chat(FREE, tools=TWO, response_format={"type": "text"}, logprobs=False)


def call(**more: Any) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'} | more}


def turns(*calls: Any, **result: Any) -> list[Any]:
    answer = {"role": "tool", "tool_call_id": "1", "content": "sunny"} | result
    return [*HELLO, {"role": "assistant", "content": None, "tool_calls": list(calls)}, answer]


def test_calls_and_results_are_read_as_templates_take_them() -> None:
    _, assistant, result = chat(messages=turns(call())).messages
    function = {"name": "weather", "arguments": {"city": "Rome"}}
    assert assistant == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "1", "type": "function", "function": function}],
    }
    assert result == {"role": "tool", "content": "sunny", "tool_call_id": "1", "name": "weather"}
    assert chat(messages=turns(call(arguments=""))).messages[1]["tool_calls"][0]["function"]["arguments"] == {}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (turns("weather"), "messages[1].tool_calls[0]"),
        (turns(call(name=None)), "messages[1].tool_calls[0]"),
        (turns(call() | {"id": None}), "messages[1].tool_calls[0]"),
        (turns(call() | {"type": "custom"}), "messages[1].tool_calls[0]"),
        (turns(call(arguments="{")), "messages[1].tool_calls[0].function.arguments"),
        (turns(call(arguments="[1]")), "messages[1].tool_calls[0].function.arguments"),
        (turns(call(arguments='{"city": "\\ud800"}')), "messages[1].tool_calls[0].function.arguments"),
        (
            turns(call(arguments='{"city": ' + "[" * DEEPEST + "]" * DEEPEST + "}")),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (turns(call(arguments={"city": 1})), "messages[1].tool_calls[0].function.arguments"),
        (turns(call(), tool_call_id="2"), "messages[2].tool_call_id"),
        (turns(call(), tool_call_id=None), "messages[2].tool_call_id"),
        (turns(call(), tool_call_id=["1"]), "messages[2].tool_call_id"),
        (turns(call(), content=None), "messages[2].content"),
        ([{"role": "assistant", "content": None}], "messages[0].content"),
        ([{"role": "assistant", "tool_calls": 3}], "messages[0].tool_calls"),
    ],
)
def test_a_wrong_call_or_result_is_named(messages: list[Any], param: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        chat(messages=messages)
    assert caught.value.details["param"] == param


def test_tokens_are_told_with_tools() -> None:
    asked = tokenize_request(json.dumps({"messages": HELLO, "tools": TWO}).encode(), "toy", HELD)
    assert len(asked.tools) == 2


def test_calls_are_told_in_openais_shape() -> None:
    calls = (ToolCall("weather", '{"city": "Rome"}', "a"), ToolCall("time", "{}", "b"))
    (choice,) = Chat("toy").whole([Piece("", 3, 4, "tool_calls", calls=calls)], 1)["choices"]
    told = [
        {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
        {"id": "b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]
    assert choice["message"] == {"role": "assistant", "content": None, "tool_calls": told}
    assert choice["finish_reason"] == "tool_calls"
    shape = Chat("toy")
    deltas = [
        shape.event(Piece(text, 3, 4, calls=some), 0, first=text == "a", usage=False)["choices"][0]["delta"]
        for text, some in (("a", ()), ("", calls[:1]), ("", calls[1:]))
    ]
    assert deltas[0] == {"role": "assistant", "content": "a"}
    assert deltas[1:] == [{"tool_calls": [{"index": at, **told[at]}]} for at in (0, 1)]
