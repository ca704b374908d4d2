"""Clients that people have, unmodified, against a real gateway; LangChain and LiteLLM in programs of their own.

The deployment `caller` is a real engine process (the fake engine), which calls the first tool that it is offered, and
answers once it has the result.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from llm_os import plugins
from llm_os.spec.routing import Endpoint
from llm_os.testing.engine_bed import started
from llm_os.testing.gateway_bed import USER, GatewayBed, ScriptedReplica, a_route

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "clients.md"
ANSWER = "It is sunny in Paris."
PARIS = {"city": "Paris"}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASK: Any = {"role": "user", "content": "The weather in Paris?"}

LANGCHAIN = """
import json, sys
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

class City(BaseModel):
    city: str
    large: bool

url, key = sys.argv[1:]
chat = ChatOpenAI(model="chat", base_url=url + "/v1", api_key=key, temperature=0.5, max_retries=0)
whole = chat.invoke([("system", "Be brief."), ("user", "hello")])
pieces = list(chat.stream("hello", stop=["never"]))
city = chat.with_structured_output(City, method="json_schema").invoke("Where?")
try:
    ChatOpenAI(model="chta", base_url=url + "/v1", api_key=key, max_retries=0).invoke("hello")
except Exception as error:
    refused = type(error).__name__ + ": " + str(error)

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool

@tool
def weather(city: str) -> str:
    "The weather of a city, now."
    return f"Sunny in {city}."

caller = ChatOpenAI(model="caller", base_url=url + "/v1", api_key=key, max_retries=0)
agent = caller.bind_tools([weather])
talk = [HumanMessage("The weather in Paris?")]
asked = agent.invoke(talk)
talk += [asked, *(weather.invoke(call) for call in asked.tool_calls)]
answer = agent.invoke(talk)
streamed = None
for chunk in agent.stream(talk[:1]):
    streamed = chunk if streamed is None else streamed + chunk
forced = caller.bind_tools([weather], tool_choice="weather").invoke(talk)
print(json.dumps({
    "whole": whole.content, "used": whole.usage_metadata["output_tokens"],
    "finish": whole.response_metadata["finish_reason"],
    "pieces": len([one for one in pieces if one.content]), "text": "".join(one.content for one in pieces),
    "city": city.model_dump(), "refused": refused,
    "calls": [[c["name"], c["args"]] for c in asked.tool_calls], "ended": asked.response_metadata["finish_reason"],
    "result": talk[-1].content, "answer": answer.content,
    "streamed": [[c["name"], c["args"]] for c in streamed.tool_calls],
    "forced": [[c["name"], c["args"]] for c in forced.tool_calls],
}))
"""

LITELLM = """
import json, sys
import litellm

url, key = sys.argv[1:]
hello = [{"role": "user", "content": "hello"}]
to = {"model": "openai/chat", "api_base": url + "/v1", "api_key": key, "messages": hello}
whole = litellm.completion(**to, temperature=0.5, max_tokens=9)
pieces = list(litellm.completion(**to, stream=True, stream_options={"include_usage": True}))
try:
    litellm.completion(**{**to, "api_key": "wrong"})
except litellm.AuthenticationError as error:
    refused = type(error).__name__
claude = litellm.completion(**{**to, "model": "anthropic/chat", "api_base": url}, max_tokens=9)

schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
tools = [{"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": schema}}]
rounds = {}
for provider, base in (("openai", url + "/v1"), ("anthropic", url)):
    to = {"model": provider + "/caller", "api_base": base, "api_key": key, "tools": tools, "max_tokens": 99}
    talk = [{"role": "user", "content": "The weather in Paris?"}]
    asked = litellm.completion(**to, messages=talk)
    message = asked.choices[0].message
    (call,) = message.tool_calls
    chunks = list(litellm.completion(**to, messages=talk, stream=True))
    built = litellm.stream_chunk_builder(chunks, messages=talk).choices[0].message.tool_calls
    talk += [message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}]
    answer = litellm.completion(**to, messages=talk).choices[0]
    rounds[provider] = {
        "name": call.function.name, "arguments": json.loads(call.function.arguments),
        "streamed": [[c.function.name, json.loads(c.function.arguments)] for c in built],
        "ended": asked.choices[0].finish_reason, "answer": answer.message.content,
    }
print(json.dumps({
    "whole": whole.choices[0].message.content, "used": whole.usage.completion_tokens,
    "text": "".join(one.choices[0].delta.content or "" for one in pieces if one.choices),
    "counted": [one.usage.completion_tokens for one in pieces if getattr(one, "usage", None)],
    "refused": refused, "claude": claude.choices[0].message.content,
    "rounds": rounds,
}))
"""


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[ScriptedReplica]:
    one = ScriptedReplica(tmp_path / "one.sock", words=('{"city": ', '"Paris", ', '"large": true}'))
    await one.start()
    yield one
    await one.close()


@pytest.fixture
async def bed(
    tmp_path: Path, replica: ScriptedReplica, sample_model: Callable[[str], Path]
) -> AsyncIterator[GatewayBed]:
    fake = plugins.load("engine", "fake")
    async with started(fake, sample_model("smollm2"), reply=ANSWER, calls=json.dumps(PARIS)) as served:
        bed = GatewayBed(tmp_path / "home")
        caller = a_route("caller").model_copy(
            update={"endpoints": (Endpoint(attempt="caller", url=f"unix:{served.socket}"),)}
        )
        bed.route(a_route("chat", replica), caller)
        await bed.start()
        yield bed
        await bed.close()


async def said(program: str, bed: GatewayBed) -> dict[str, Any]:
    """What a program printed last, that knows the address and a key and nothing else of us."""
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, bed.url, USER),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-3000:]
    found: dict[str, Any] = json.loads(out.decode().strip().splitlines()[-1])
    return found


async def test_langchain(bed: GatewayBed, replica: ScriptedReplica) -> None:
    found = await said(LANGCHAIN, bed)
    text = "".join(replica.words)
    assert (found["whole"], found["used"], found["finish"]) == (text, 3, "stop")
    assert (found["pieces"], found["text"]) == (3, text)
    assert found["city"] == {"city": "Paris", "large": True}
    assert replica.seen[2]["response_format"]["json_schema"]["schema"]["required"] == ["city", "large"]
    assert "NotFoundError" in found["refused"]
    assert "No deployment or version 'chta'" in found["refused"]
    assert found["calls"] == found["streamed"] == found["forced"] == [["weather", PARIS]]
    assert (found["ended"], found["result"], found["answer"]) == ("tool_calls", "Sunny in Paris.", ANSWER)


async def test_litellm(bed: GatewayBed, replica: ScriptedReplica) -> None:
    found = await said(LITELLM, bed)
    text = "".join(replica.words)
    assert (found["whole"], found["used"], found["text"], found["claude"]) == (text, 3, text, text)
    assert (found["counted"][-1:], found["refused"]) == ([3], "AuthenticationError")
    assert replica.seen[0]["max_tokens"] == 9
    told = {"name": "weather", "arguments": PARIS, "streamed": [["weather", PARIS]], "ended": "tool_calls"}
    assert found["rounds"] == {provider: told | {"answer": ANSWER} for provider in ("openai", "anthropic")}


async def test_openais_client_calls_a_tool_in_chats(bed: GatewayBed) -> None:
    function: Any = {"name": "weather", "parameters": SCHEMA}
    tools: Any = [{"type": "function", "function": function}]
    async with openai.AsyncOpenAI(base_url=bed.url + "/v1", api_key=USER, max_retries=0) as ai:
        asked = await ai.chat.completions.create(model="caller", messages=[ASK], tools=tools)
        message = asked.choices[0].message
        assert (asked.choices[0].finish_reason, message.content) == ("tool_calls", None)
        assert message.tool_calls is not None
        (call,) = message.tool_calls
        assert call.type == "function"
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", PARIS)
        result: Any = {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}
        back: Any = message.model_dump(exclude_none=True)
        answer = await ai.chat.completions.create(model="caller", messages=[ASK, back, result], tools=tools)
        assert answer.choices[0].message.content == ANSWER
        async with ai.chat.completions.stream(model="caller", messages=[ASK], tools=tools) as stream:
            kinds = [event.type async for event in stream]
            last = (await stream.get_final_completion()).choices[0].message
        assert last.tool_calls is not None
        (streamed,) = last.tool_calls
        assert "tool_calls.function.arguments.done" in kinds
        assert (streamed.function.name, json.loads(streamed.function.arguments)) == ("weather", PARIS)
        silent = await ai.chat.completions.create(model="caller", messages=[ASK], tools=tools, tool_choice="none")
        assert silent.choices[0].message.content == ANSWER
        named: Any = {"type": "function", "function": {"name": "other"}}
        with pytest.raises(openai.BadRequestError, match="cannot be followed: no tool is called 'other'"):
            await ai.chat.completions.create(model="caller", messages=[ASK], tools=tools, tool_choice=named)


async def test_openais_client_calls_a_tool_in_responses(bed: GatewayBed) -> None:
    tools: Any = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}]
    async with openai.AsyncOpenAI(base_url=bed.url + "/v1", api_key=USER, max_retries=0) as ai:
        asked = await ai.responses.create(model="caller", input=[ASK], tools=tools)
        (call,) = asked.output
        assert call.type == "function_call"
        assert (call.name, json.loads(call.arguments), asked.status) == ("weather", PARIS, "completed")
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}
        items: Any = [ASK, *(item.model_dump() for item in asked.output), output]
        answer = await ai.responses.create(model="caller", input=items, tools=tools)
        assert answer.output_text == ANSWER
        async with ai.responses.stream(model="caller", input=[ASK], tools=tools) as stream:
            kinds = [event.type async for event in stream]
            (streamed,) = (await stream.get_final_response()).output
        assert "response.function_call_arguments.done" in kinds
        assert streamed.type == "function_call"
        assert json.loads(streamed.arguments) == PARIS


async def test_anthropics_client_calls_a_tool(bed: GatewayBed) -> None:
    tools: Any = [{"name": "weather", "description": "Of a city.", "input_schema": SCHEMA}]
    asking: Any = {"model": "caller", "max_tokens": 99, "tools": tools}
    async with anthropic.AsyncAnthropic(base_url=bed.url, api_key=USER, max_retries=0) as ai:
        asked = await ai.messages.create(messages=[ASK], **asking, tool_choice={"type": "any"})
        (use,) = asked.content
        assert use.type == "tool_use"
        assert (use.name, use.input, asked.stop_reason) == ("weather", PARIS, "tool_use")
        result: Any = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "Sunny."}]}
        back: Any = {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in asked.content]}
        answer = await ai.messages.create(messages=[ASK, back, result], **asking)
        assert [getattr(block, "text", None) for block in answer.content] == [ANSWER]
        async with ai.messages.stream(messages=[ASK], **asking) as stream:
            kinds = [event.type async for event in stream]
            last = await stream.get_final_message()
        assert "input_json" in kinds
        assert (last.content[0].type, last.stop_reason) == ("tool_use", "tool_use")
        assert getattr(last.content[0], "input", None) == PARIS
        counted = await ai.messages.count_tokens(model="caller", messages=[ASK], tools=tools)
        bare = await ai.messages.count_tokens(model="caller", messages=[ASK])
        assert counted.input_tokens > bare.input_tokens


async def test_the_code_of_the_page_runs(bed: GatewayBed, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for block in blocks:
        here = block.replace("http://127.0.0.1:7601", bed.url).replace('"chat"', '"caller"')
        await asyncio.to_thread(exec, here, {"key": USER})
    assert capsys.readouterr().out.splitlines() == [ANSWER, ANSWER, 'weather {"city": "Paris"}', ANSWER]
