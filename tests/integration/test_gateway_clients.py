"""Clients that people have, unmodified, in programs of their own: LangChain and LiteLLM against a real gateway."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from llm_os.testing.gateway_bed import USER, GatewayBed, ScriptedReplica, a_route

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
print(json.dumps({
    "whole": whole.content, "used": whole.usage_metadata["output_tokens"],
    "finish": whole.response_metadata["finish_reason"],
    "pieces": len([one for one in pieces if one.content]), "text": "".join(one.content for one in pieces),
    "city": city.model_dump(), "refused": refused,
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
print(json.dumps({
    "whole": whole.choices[0].message.content, "used": whole.usage.completion_tokens,
    "text": "".join(one.choices[0].delta.content or "" for one in pieces if one.choices),
    "counted": [one.usage.completion_tokens for one in pieces if getattr(one, "usage", None)],
    "refused": refused, "claude": claude.choices[0].message.content,
}))
"""


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[ScriptedReplica]:
    one = ScriptedReplica(tmp_path / "one.sock", words=('{"city": ', '"Paris", ', '"large": true}'))
    await one.start()
    yield one
    await one.close()


@pytest.fixture
async def bed(tmp_path: Path, replica: ScriptedReplica) -> AsyncIterator[GatewayBed]:
    bed = GatewayBed(tmp_path / "home")
    bed.route(a_route("chat", replica))
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


async def test_litellm(bed: GatewayBed, replica: ScriptedReplica) -> None:
    found = await said(LITELLM, bed)
    text = "".join(replica.words)
    assert (found["whole"], found["used"], found["text"], found["claude"]) == (text, 3, text, text)
    assert (found["counted"][-1:], found["refused"]) == ([3], "AuthenticationError")
    assert replica.seen[0]["max_tokens"] == 9
