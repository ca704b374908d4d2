"""What an engine may do beyond plain answers, as checks; an engine that cannot lists them among its gaps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jsonschema

from llm_os.testing.adapters import write_adapter
from llm_os.testing.engine_bed import Served

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
QUESTION = [
    {"role": "system", "content": "You answer in one short sentence."},
    {"role": "user", "content": "What is the capital of France?"},
]
"""Without the first message the small model's first token is nearly a tie, which engines break differently."""


def chat_body(**more: Any) -> dict[str, Any]:
    """A short question, and what is asked of its answer."""
    return {"model": "served", "messages": QUESTION, "temperature": 0, "max_tokens": 24} | more


async def several_answers_are_numbered_and_their_prompt_counts_once(served: Served) -> None:
    _, one = await served.post(CHAT, chat_body())
    status, body = await served.post(CHAT, chat_body(n=3))
    assert status == 200, body
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    # Not the same to the letter: an engine's arithmetic may depend on the batch, even at temperature 0.
    begun = one["choices"][0]["message"]["content"].split()[0]
    assert all(choice["message"]["content"].split()[0] == begun for choice in body["choices"]), body
    assert body["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    assert body["usage"]["completion_tokens"] > 2 * min(3, one["usage"]["completion_tokens"])
    asked = chat_body(n=2, stream=True, stream_options={"include_usage": True})
    events = [event async for event in served.events(CHAT, asked)]
    texts = {0: "", 1: ""}
    for event in events[:-2]:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert all(text.split()[0] == begun for text in texts.values()), texts
    assert events[-2]["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    status, body = await served.post(CHAT, chat_body(n=0))
    assert (status, body["error"]["param"]) == (400, "n")


async def probabilities_of_tokens_are_told(served: Served) -> None:
    status, body = await served.post(CHAT, chat_body(logprobs=True, max_tokens=6))
    assert status == 200, body
    told = body["choices"][0]["logprobs"]["content"]
    assert len(told) == body["usage"]["completion_tokens"]
    assert "".join(one["token"] for one in told).strip() == body["choices"][0]["message"]["content"].strip()
    assert all(one["logprob"] <= 0 for one in told)
    assert any(one["logprob"] < 0 for one in told)
    assert bytes(told[0]["bytes"]).decode() == told[0]["token"]
    asked = {"model": "served", "prompt": "One, two, three,", "temperature": 0, "max_tokens": 4, "logprobs": 0}
    status, body = await served.post(COMPLETIONS, asked)
    assert status == 200, body
    assert [len(body["choices"][0]["logprobs"][name]) for name in ("tokens", "token_logprobs", "text_offset")] == [
        4
    ] * 3
    events = [event async for event in served.events(CHAT, chat_body(logprobs=True, max_tokens=6, stream=True))]
    parts = [event["choices"][0].get("logprobs") or {"content": []} for event in events[:-1]]
    assert [one["token"] for part in parts for one in part["content"]] == [one["token"] for one in told]


async def the_likeliest_tokens_are_told(served: Served) -> None:
    status, body = await served.post(CHAT, chat_body(logprobs=True, top_logprobs=3, max_tokens=4))
    assert status == 200, body
    for one in body["choices"][0]["logprobs"]["content"]:
        tops = one["top_logprobs"]
        assert len(tops) == 3
        assert [top["logprob"] for top in tops] == sorted((top["logprob"] for top in tops), reverse=True)
        assert tops[0]["token"] == one["token"], "at temperature 0 the likeliest is taken"
        assert abs(tops[0]["logprob"] - one["logprob"]) < 1e-4
    status, body = await served.post(CHAT, chat_body(top_logprobs=3))
    assert (status, body["error"]["param"]) == (400, "top_logprobs")


async def prompt_tokens_from_the_cache_are_told(served: Served) -> None:
    long = [{"role": "user", "content": "Count: " + " ".join(map(str, range(120)))}]
    usages = []
    for _ in range(2):
        status, body = await served.post(CHAT, chat_body(messages=long, max_tokens=1))
        assert status == 200, body
        usages.append(body["usage"])
    cached = usages[1]["prompt_tokens_details"]["cached_tokens"]
    assert 0.5 * usages[1]["prompt_tokens"] < cached <= usages[1]["prompt_tokens"], usages
    asked = chat_body(messages=long, max_tokens=1, stream=True, stream_options={"include_usage": True})
    events = [event async for event in served.events(CHAT, asked)]
    assert events[-2]["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}


async def an_answer_is_held_to_a_schema(served: Served) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    for temperature in (0, 1.0):
        status, body = await served.post(
            CHAT, chat_body(response_format=form, max_tokens=64, temperature=temperature, seed=3)
        )
        assert status == 200, body
        jsonschema.validate(json.loads(body["choices"][0]["message"]["content"]), SCHEMA)
    asked = chat_body(response_format=form, max_tokens=64, stream=True)
    events = [event async for event in served.events(CHAT, asked)]
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in events[:-1])
    jsonschema.validate(json.loads(text), SCHEMA)


async def a_schema_that_is_none_is_refused(served: Served) -> None:
    wrong: list[Any] = [
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"schema": {"type": "colour"}}},
        {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/$defs/missing"}}},
        {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "(?=x)"}}},
        {"type": "poem"},
        "json",
    ]
    for form in wrong:
        status, body = await served.post(CHAT, chat_body(response_format=form))
        assert (status, body["error"]["param"]) == (400, "response_format"), form


WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather of a city, now.", "parameters": SCHEMA},
}
RESULT: list[dict[str, Any]] = [
    {"role": "user", "content": "What is the weather in Paris?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "Sunny, 22 degrees."},
]


async def tools_and_their_results_are_read(served: Served) -> None:
    status, bare = await served.post(CHAT, chat_body())
    assert status == 200, bare
    status, body = await served.post(CHAT, chat_body(tools=[WEATHER]))
    assert status == 200, body
    assert body["usage"]["prompt_tokens"] >= bare["usage"]["prompt_tokens"], "the model is told of its tools"
    status, told = await served.post("/tokenize", {"messages": QUESTION, "tools": [WEATHER]})
    assert (status, told["count"]) == (200, body["usage"]["prompt_tokens"])
    status, none = await served.post(CHAT, chat_body(tools=[WEATHER], tool_choice="none"))
    assert (status, none["usage"]["prompt_tokens"]) == (200, bare["usage"]["prompt_tokens"])
    for more in ({"tools": [WEATHER]}, {}):  # what was called stays readable when nothing is offered any more
        status, body = await served.post(CHAT, chat_body(messages=RESULT, **more))
        assert status == 200, body
        assert body["choices"][0]["message"]["content"], "the result of a call is answered"


async def a_wrong_tool_is_refused_by_name(served: Served) -> None:
    wrong: list[tuple[str, Any]] = [
        ("tools[0].type", {"tools": [{"type": "web_search"}]}),
        ("tools[0].function.parameters", {"tools": [{"type": "function", "function": {"name": "a", "parameters": 3}}]}),
        ("tool_choice", {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}}),
        ("messages[1].tool_call_id", {"messages": [RESULT[0], RESULT[2]]}),
    ]
    for param, given in wrong:
        status, body = await served.post(CHAT, chat_body(**given))
        assert (status, body["error"]["param"]) == (400, param), body


async def a_tool_is_called_where_it_must_be(served: Served) -> None:
    other = {"type": "function", "function": {"name": "time"}}
    named = {"type": "function", "function": {"name": "weather"}}
    for tools, more in (
        ([WEATHER], {"tool_choice": "required", "parallel_tool_calls": False}),
        ([other, WEATHER], {"tool_choice": named, "temperature": 1.0, "seed": 3}),
    ):
        status, body = await served.post(CHAT, chat_body(tools=tools, max_tokens=96, **more))
        assert status == 200, body
        (choice,) = body["choices"]
        assert choice["finish_reason"] == "tool_calls"
        (call,) = choice["message"]["tool_calls"]
        assert (call["type"], call["function"]["name"], bool(call["id"])) == ("function", "weather", True)
        jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMA)
    asked = chat_body(tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, max_tokens=96, stream=True)
    events = [event async for event in served.events(CHAT, asked)]
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert {call["index"] for call in calls} == {0}
    assert calls[0]["function"]["name"] == "weather"
    arguments = "".join(call["function"]["arguments"] for call in calls)
    jsonschema.validate(json.loads(arguments), SCHEMA)
    assert not "".join(delta.get("content") or "" for delta in deltas).strip(), "a call is no text"
    assert events[-2]["choices"][0]["finish_reason"] == "tool_calls"


async def adapters_are_hot(served: Served) -> None:
    """Several beside one model, asked together, taken in and let go while it serves."""

    async def said(name: str) -> str:
        status, body = await served.post(CHAT, chat_body(model=name, max_tokens=6))
        assert (status, body["model"]) == (200, name), body
        return str(body["choices"][0]["message"]["content"])

    async def refused(name: str) -> bool:
        status, body = await served.post(CHAT, chat_body(model=name))
        return (status, body["error"]["param"]) == (404, "model")

    before = await said("served")
    assert await refused("served:one")
    model = Path(json.loads((served.folder / "spec.json").read_text())["serve"]["model"]["path"])
    one, two = (write_adapter(served.folder / f"adapter-{n}", model=model, seed=n) for n in (1, 2))
    running = asyncio.create_task(said("served"))
    assert await served.hold({"one": one, "two": two}) == {"adapters": {"one": "one@1", "two": "two@1"}, "failed": {}}
    assert (await running).split()[0] == before.split()[0]
    alone = {name: await said(name) for name in ("served", "served:one", "served:two")}
    assert len(set(alone.values())) == 3, alone
    together = await asyncio.gather(*(said(name) for name in [*alone, *alone]))
    # Not to the letter: an engine's arithmetic may depend on the batch, even at temperature 0.
    for name, text in zip([*alone, *alone], together, strict=True):
        assert text.split()[:2] == alone[name].split()[:2], (name, text, alone)
    assert await served.hold({"one": two}, number=2) == {"adapters": {"one": "one@2"}, "failed": {}}
    assert (await said("served:one")).split()[-2:] == alone["served:two"].split()[-2:]
    assert await refused("served:two")
    assert await served.hold({}) == {"adapters": {}, "failed": {}}
    assert await refused("served:one")
    assert await said("served") == before


ABILITIES: tuple[Callable[[Served], Awaitable[None]], ...] = (
    several_answers_are_numbered_and_their_prompt_counts_once,
    probabilities_of_tokens_are_told,
    the_likeliest_tokens_are_told,
    an_answer_is_held_to_a_schema,
    a_schema_that_is_none_is_refused,
    tools_and_their_results_are_read,
    a_wrong_tool_is_refused_by_name,
    a_tool_is_called_where_it_must_be,
    adapters_are_hot,
    prompt_tokens_from_the_cache_are_told,
)
