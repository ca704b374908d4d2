"""Tools in the words of other APIs: what a chat is asked, and how calls are told back, whole and in streams."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from llm_os.errors import InvalidInputError, InvalidOptionError
from llm_os.server.gateway import openai
from llm_os.server.gateway.anthropic import Count, Message
from llm_os.server.gateway.responses import Response
from llm_os.server.gateway.translation import ChatTranslation
from llm_os.spec.base import DEEPEST
from llm_os.workers import requests

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
ASK: dict[str, Any] = {"role": "user", "content": "Weather?"}
CHAT_TOOL = {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": SCHEMA}}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
NAMED = {"type": "function", "function": {"name": "weather"}}

CLAUDE_TOOL = {"name": "weather", "description": "Of a city.", "input_schema": SCHEMA, "cache_control": {"type": "x"}}
CLAUDE: dict[str, Any] = {"model": "chat", "max_tokens": 9, "messages": [ASK], "tools": [CLAUDE_TOOL]}
USE = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}}
GPT_TOOL = {"type": "function", "name": "weather", "description": "Of a city.", "parameters": SCHEMA, "strict": None}
GPT: dict[str, Any] = {"model": "chat", "input": "Weather?", "tools": [GPT_TOOL]}
ITEM = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": '{"city": "Rome"}'}


def asked(translation: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(translation.body)
    return found


def test_tools_of_both_apis_become_those_of_a_chat() -> None:
    assert asked(Message(CLAUDE))["tools"] == [CHAT_TOOL]
    assert asked(Response(GPT))["tools"] == [CHAT_TOOL]
    assert asked(Count({"model": "chat", "messages": [ASK], "tools": [CLAUDE_TOOL]}))["tools"] == [CHAT_TOOL]
    strict = asked(Response(GPT | {"tools": [GPT_TOOL | {"strict": True}]}))["tools"][0]["function"]
    assert strict["strict"] is True


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "weather"}, {"tool_choice": NAMED}),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
    ],
)
def test_anthropics_choice(theirs: Any, ours: dict[str, Any]) -> None:
    chat = asked(Message(CLAUDE | {"tool_choice": theirs}))
    assert {name: chat[name] for name in ("tool_choice", "parallel_tool_calls") if name in chat} == ours


def test_the_choice_of_responses() -> None:
    assert asked(Response(GPT | {"tool_choice": "required"}))["tool_choice"] == "required"
    assert asked(Response(GPT | {"tool_choice": {"type": "function", "name": "weather"}}))["tool_choice"] == NAMED
    assert asked(Response(GPT | {"parallel_tool_calls": False}))["parallel_tool_calls"] is False


def test_calls_and_results_go_back_in() -> None:
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "sunny"}]}
    said = [{"type": "text", "text": "Let me see."}, USE]
    turns: list[Any] = [
        ASK,
        {"role": "assistant", "content": said},
        {"role": "user", "content": [result, {"type": "text", "text": "So"}, {"type": "text", "text": "?"}]},
    ]
    wanted = [
        ASK,
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CHAT_CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    assert asked(Message(CLAUDE | {"messages": turns}))["messages"] == [*wanted, {"role": "user", "content": "So?"}]
    failed = {"role": "user", "content": [result | {"content": "no such city", "is_error": True}]}
    chat = asked(Message(CLAUDE | {"messages": [*turns[:2], failed]}))["messages"]
    assert chat[-1]["content"] == "Error: no such city"

    output = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
    items = [ASK, {"role": "assistant", "content": "Let me see."}, ITEM, output]
    assert asked(Response(GPT | {"input": items}))["messages"] == wanted
    alone = asked(Response(GPT | {"input": [ASK, ITEM, output | {"output": [{"type": "input_text", "text": "x"}]}]}))
    assert alone["messages"][1] == {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]}
    assert alone["messages"][2]["content"] == "x"


def test_an_answer_may_be_held_to_a_schema() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    claude = Message(CLAUDE | {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}})
    assert asked(claude)["response_format"] == wanted
    form = {"type": "json_schema", "name": "answer", "schema": SCHEMA}
    gpt = Response(GPT | {"text": {"format": form}})
    assert asked(gpt)["response_format"] == wanted
    assert json.loads(gpt.whole(whole("{}")))["text"] == {"format": form}
    assert asked(Response(GPT | {"text": {"format": {"type": "json_object"}}}))["response_format"] == {
        "type": "json_object"
    }
    assert "response_format" not in asked(Response(GPT | {"text": {"format": {"type": "text"}}}))


def result(of: Any = "c1", **more: Any) -> list[Any]:
    block = {"type": "tool_result", "tool_use_id": of, "content": "x"} | more
    return [ASK, {"role": "assistant", "content": [USE]}, {"role": "user", "content": [block]}]


@pytest.mark.parametrize(
    ("kind", "given", "param"),
    [
        (Message, {"tools": "weather"}, "tools"),
        (Message, {"tools": [3]}, "tools[0]"),
        (Message, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        (Message, {"tools": [CLAUDE_TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
        (Message, {"tool_choice": "auto"}, "tool_choice"),
        (Message, {"tool_choice": {"type": "some"}}, "tool_choice"),
        (Message, {"tool_choice": {"type": []}}, "tool_choice"),
        (Message, {"messages": result("c2")}, "messages[2].content[0].tool_use_id"),
        (Message, {"messages": result(["c1"])}, "messages[2].content[0].tool_use_id"),
        (
            Message,
            {"messages": [ASK, {"role": "assistant", "content": [USE | {"id": ["c1"]}]}, *result()[2:]]},
            "messages[2].content[0].tool_use_id",
        ),
        (Message, {"messages": result(content=[{"type": "image"}])}, "messages[2].content[0].content[0]"),
        (
            Message,
            {"messages": [ASK, {"role": "assistant", "content": [USE | {"input": "x"}]}]},
            "messages[1].content[0].input",
        ),
        (Message, {"messages": [ASK, {"role": "assistant", "content": [USE]}]}, "messages"),
        (
            Message,
            {"messages": [{"role": "user", "content": [*result()[2]["content"], {"type": "image"}]}]},
            "messages[0].content[0].tool_use_id",
        ),
        (Message, {"messages": [*result()[:2], {"role": "user", "content": [USE]}]}, "messages[2].content[0]"),
        (Message, {"output_config": {"effort": "high"}}, "output_config.effort"),
        (Message, {"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
        (Message, {"output_config": "json"}, "output_config"),
        (Response, {"tools": {"name": "weather"}}, "tools"),
        (Response, {"tools": [{"type": "web_search"}]}, "tools[0].type"),
        (Response, {"tools": [GPT_TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
        (Response, {"input": [{"type": "function_call"}]}, "input[0].call_id"),
        (Response, {"input": [ITEM | {"arguments": {}}]}, "input[0].arguments"),
        (
            Response,
            {"input": [{"type": "function_call_output", "call_id": "c1", "output": "x"}]},
            "input[0].call_id",
        ),
        (
            Response,
            {"input": [ITEM, {"type": "function_call_output", "call_id": "c1", "output": 3}]},
            "input[1].output",
        ),
        (Response, {"input": [{"type": "reasoning"}]}, "input[0]"),
        (Response, {"text": {"verbosity": "low"}}, "text.verbosity"),
        (Response, {"text": "json"}, "text"),
    ],
)
def test_what_a_chat_cannot_say_is_named(kind: Any, given: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        kind((CLAUDE if kind is Message else GPT) | given)
    assert caught.value.details["param"] == param
    assert caught.value.hint


@pytest.mark.parametrize("read", [openai.json_object, requests.json_object])
def test_what_is_too_deep_to_be_written_again_is_refused_where_it_is_read(read: Any) -> None:
    def body(depth: int) -> bytes:
        below = depth - 3  # the body, its tools, the tool
        parameters = '{"a":' * below + "1" + "}" * below
        tool = f'{{"type": "function", "name": "weather", "parameters": {parameters}}}'
        return f'{{"model": "chat", "input": "x", "tools": [{tool}]}}'.encode()

    assert len(read(json.dumps({"tools": [[]] * 2 * DEEPEST}).encode())["tools"]) == 2 * DEEPEST  # much, but flat
    assert asked(Response(read(body(DEEPEST))))["tools"]
    for depth in (DEEPEST + 1, *range(970, 1000), 2000):
        with pytest.raises(InvalidInputError, match=r"lists and objects deep|is not JSON"):
            read(body(depth))


@pytest.mark.parametrize(
    ("engines", "claude", "gpt"),
    [
        ("tools[1].function.parameters", "tools[1].input_schema", "tools[1].parameters"),
        ("tools[1].function.name", "tools[1].name", "tools[1].name"),
        ("response_format", "output_config.format", "text.format"),
        ("messages[3].content", "messages", "input"),
        ("parallel_tool_calls", "tool_choice.disable_parallel_tool_use", "parallel_tool_calls"),
        ("tool_choice", "tool_choice", "tool_choice"),
    ],
)
def test_an_engines_refusal_names_what_the_caller_sent(engines: str, claude: str, gpt: str) -> None:
    for translation, wanted in ((Message(CLAUDE), claude), (Response(GPT), gpt)):
        error = InvalidOptionError(f"The engine refuses '{engines}'.", hint="x", details={"param": engines})
        translation.renamed(error)
        assert error.details["param"] == wanted
        assert wanted in error.message


USED = {"prompt_tokens": 3, "completion_tokens": 4}


def whole(content: str | None, *calls: Any, finish: str = "stop") -> bytes:
    message = {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})}
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}], "usage": USED}).encode()


def test_calls_of_a_whole_answer_are_told() -> None:
    told = json.loads(Message(CLAUDE).whole(whole(None, CHAT_CALL, finish="tool_calls")))
    assert (told["content"], told["stop_reason"]) == ([USE], "tool_use")
    told = json.loads(Response(GPT).whole(whole("So:", CHAT_CALL, finish="tool_calls")))
    assert [item["type"] for item in told["output"]] == ["message", "function_call"]
    assert {name: told["output"][1][name] for name in ("call_id", "name", "arguments", "status")} == {
        "call_id": "c1",
        "name": "weather",
        "arguments": '{"city": "Rome"}',
        "status": "completed",
    }
    assert (told["tools"], told["tool_choice"], told["status"]) == ([GPT_TOOL], "auto", "completed")
    assert json.loads(Message(CLAUDE).whole(whole(None)))["content"] == [{"type": "text", "text": ""}]


def delta(finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": more, "finish_reason": finish}]}


def part(index: int, arguments: str, **begin: Any) -> dict[str, Any]:
    name = {"name": begin.pop("name")} if "name" in begin else {}
    return {"index": index, **begin, "function": {**name, "arguments": arguments}}


WHOLE_CALLS = [
    delta(role="assistant", content=""),
    delta(content="So:"),
    delta(tool_calls=[{"index": 0, **CHAT_CALL}, {"index": 1, **CHAT_CALL, "id": "c2"}]),
    delta(finish="tool_calls"),
]
CALLS_IN_PARTS = [
    delta(role="assistant", content=None),
    delta(content="So:"),
    delta(tool_calls=[part(0, "", id="c1", name="weather")]),
    *(delta(tool_calls=[part(0, text)]) for text in ('{"city"', ': "Rome"}')),
    delta(tool_calls=[part(1, '{"ci', id="c2", name="weather")]),
    delta(tool_calls=[part(1, 'ty": "Rome"}')]),
    delta(finish="tool_calls"),
]


def told_by(translation: ChatTranslation, events: Sequence[Any]) -> list[dict[str, Any]]:
    told = b""
    for event in [*events, {"choices": [], "usage": USED}]:
        told += translation.events(b"data: " + json.dumps(event).encode() + b"\n\n")
    told += translation.events(b"data: [DONE]\n\n")
    return [json.loads(line[6:]) for line in told.splitlines() if line.startswith(b"data: ")]


@pytest.mark.parametrize("events", [WHOLE_CALLS, CALLS_IN_PARTS], ids=["whole", "in parts"])
def test_calls_stream_to_anthropics_clients(events: Sequence[Any]) -> None:
    told = told_by(Message(CLAUDE), events)
    blocks: dict[int, Any] = {}
    opened: int | None = None
    for event in told:
        if event["type"] == "content_block_start":
            assert opened is None, "one block at a time"
            opened = int(event["index"])
            blocks[opened] = [event["content_block"], ""]
        elif event["type"] == "content_block_delta":
            assert event["index"] == opened
            blocks[event["index"]][1] += event["delta"].get("text") or event["delta"].get("partial_json") or ""
        elif event["type"] == "content_block_stop":
            assert event["index"] == opened
            opened = None
    assert opened is None
    assert blocks[0] == [{"type": "text", "text": ""}, "So:"]
    assert blocks[1] == [USE | {"input": {}}, '{"city": "Rome"}']
    assert blocks[2] == [USE | {"input": {}, "id": "c2"}, '{"city": "Rome"}']
    assert told[-2]["delta"]["stop_reason"] == "tool_use"
    assert (told[0]["type"], told[-1]["type"]) == ("message_start", "message_stop")


@pytest.mark.parametrize("events", [WHOLE_CALLS, CALLS_IN_PARTS], ids=["whole", "in parts"])
def test_calls_stream_as_items_of_a_response(events: Sequence[Any]) -> None:
    told = told_by(Response(GPT), events)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    last = told[-1]
    assert last["type"] == "response.completed"
    items = last["response"]["output"]
    assert [item["type"] for item in items] == ["message", "function_call", "function_call"]
    assert [item["call_id"] for item in items[1:]] == ["c1", "c2"]
    for place, item in enumerate(items):
        mine = [event for event in told if event.get("output_index") == place]
        assert {event.get("item_id") or event["item"]["id"] for event in mine} == {item["id"]}
        assert (mine[0]["type"], mine[-1]["type"]) == ("response.output_item.added", "response.output_item.done")
        assert mine[-1]["item"] == item
    said = "".join(e["delta"] for e in told if e["type"] == "response.function_call_arguments.delta")
    assert said == '{"city": "Rome"}' * 2
    assert [e["arguments"] for e in told if e["type"] == "response.function_call_arguments.done"] == [
        '{"city": "Rome"}'
    ] * 2


def test_an_empty_stream_is_one_empty_text() -> None:
    told = told_by(Message(CLAUDE), [delta(role="assistant", content=""), delta(finish="stop")])
    starts = [event["content_block"] for event in told if event["type"] == "content_block_start"]
    assert starts == [{"type": "text", "text": ""}]
    last = told_by(Response(GPT), [delta(finish="stop")])[-1]
    assert last["response"]["output"][0]["content"][0]["text"] == ""


def test_a_call_that_was_cut_is_told_as_far_as_it_came() -> None:
    cut = [delta(tool_calls=[part(0, '{"ci', id="c1", name="weather")]), delta(finish="length")]
    *_, done, last = told_by(Response(GPT), cut)
    assert (last["type"], last["response"]["output"][0]["status"]) == ("response.incomplete", "incomplete")
    assert (done["type"], done["item"]["status"]) == ("response.output_item.done", "incomplete")
    half = CHAT_CALL | {"function": {"name": "weather", "arguments": '{"ci'}}
    whole_told = json.loads(Message(CLAUDE).whole(whole(None, half, finish="length")))
    assert (whole_told["content"][0]["input"], whole_told["stop_reason"]) == ({}, "max_tokens")
