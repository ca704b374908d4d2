"""Other APIs at a real gateway: Anthropic's and OpenAI's own clients, unmodified, against scripted replicas."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from llm_os.testing.gateway_bed import USER, GatewayBed, ScriptedReplica, a_route

HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def chat(tmp_path: Path) -> AsyncIterator[ScriptedReplica]:
    replica = ScriptedReplica(tmp_path / "chat.sock")
    await replica.start()
    yield replica
    await replica.close()


@pytest.fixture
async def bed(tmp_path: Path, chat: ScriptedReplica) -> AsyncIterator[GatewayBed]:
    bed = GatewayBed(tmp_path / "home", "--max-body", "100000")
    bed.route(a_route("chat", chat), a_route("mood", chat, task="text-classification"), a_route("starting"))
    await bed.start()
    try:
        yield bed
    finally:
        await bed.close()


def claude(bed: GatewayBed, key: str = USER) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=bed.url, api_key=key, max_retries=0)


def gpt(bed: GatewayBed) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=bed.url + "/v1", api_key=USER, max_retries=0)


async def post(bed: GatewayBed, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    headers["authorization"] = f"Bearer {USER}"
    async with aiohttp.ClientSession() as session, session.post(bed.url + path, json=body, headers=headers) as answer:
        return answer.status, json.loads(await answer.text())


async def test_anthropics_client_gets_a_message(bed: GatewayBed, chat: ScriptedReplica) -> None:
    async with claude(bed) as ai:
        answer = await ai.messages.create(
            model="chat",
            max_tokens=64,
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            messages=[{"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}],
            stop_sequences=["END"],
            extra_body={"temperature": 0.5},
        )
    assert answer.content[0].type == "text"
    assert answer.content[0].text == "one two three"
    assert (answer.stop_reason, answer.role, answer.model) == ("end_turn", "assistant", "chat")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 3)
    assert chat.seen == [
        {
            "model": "chat",
            "messages": [{"role": "system", "content": "Be brief."}, *HELLO],
            "max_tokens": 64,
            "temperature": 0.5,
            "stop": ["END"],
        }
    ]


async def test_anthropics_client_streams(bed: GatewayBed, chat: ScriptedReplica) -> None:
    async with claude(bed) as ai, ai.messages.stream(model="chat", max_tokens=8, messages=HELLO) as stream:
        words = [text async for text in stream.text_stream]
        last = await stream.get_final_message()
    assert words == ["one ", "two ", "three"]
    assert last.content[0].type == "text"
    assert last.content[0].text == "one two three"
    assert (last.stop_reason, last.usage.input_tokens, last.usage.output_tokens) == ("end_turn", 7, 3)
    assert chat.seen[0]["stream_options"] == {"include_usage": True}


async def test_the_end_of_a_message_is_told_in_anthropics_words(bed: GatewayBed, chat: ScriptedReplica) -> None:
    async with claude(bed) as ai:
        chat.finish, chat.stop_reason = "length", None
        cut = await ai.messages.create(model="chat", max_tokens=8, messages=HELLO)
        chat.finish, chat.stop_reason = "stop", "END"
        ended = await ai.messages.create(model="chat", max_tokens=8, messages=HELLO, stop_sequences=["END"])
    assert (cut.stop_reason, cut.stop_sequence) == ("max_tokens", None)
    assert (ended.stop_reason, ended.stop_sequence) == ("stop_sequence", "END")


async def test_the_stop_text_of_a_stream_is_told(bed: GatewayBed, chat: ScriptedReplica) -> None:
    chat.stop_reason = "END"
    async with claude(bed) as ai, ai.messages.stream(model="chat", max_tokens=8, messages=HELLO) as stream:
        last = await stream.get_final_message()
    assert (last.stop_reason, last.stop_sequence) == ("stop_sequence", "END")


async def test_what_cannot_be_told_on_ends_a_stream_with_an_error(bed: GatewayBed, chat: ScriptedReplica) -> None:
    chat.garbage = (b"data: {no json\n\n",)
    async with gpt(bed) as ai:
        stream = await ai.responses.create(model="chat", input="hello", stream=True)
        events = [event async for event in stream]
    assert events[-1].type == "error"
    assert "cannot be told on" in events[-1].message


async def test_turns_of_one_role_are_joined(bed: GatewayBed, chat: ScriptedReplica) -> None:
    turns: Any = [*HELLO, {"role": "user", "content": "again"}]
    async with claude(bed) as ai:
        answer = await ai.messages.with_raw_response.create(model="chat", max_tokens=8, messages=turns)
    assert answer.headers["request-id"].startswith("req-")
    assert chat.seen[0]["messages"] == [{"role": "user", "content": "hello\n\nagain"}]


async def test_an_engines_refusal_names_what_the_caller_sent(bed: GatewayBed, chat: ScriptedReplica) -> None:
    refusal = {"message": "'max_tokens' must be a whole number.", "code": "invalid_option", "param": "max_tokens"}
    chat.refuse_with = (400, {"error": refusal})
    _, answer = await post(bed, "/v1/responses", {"model": "chat", "input": "x", "max_output_tokens": 0})
    assert answer["error"]["param"] == "max_output_tokens"
    assert answer["error"]["message"].startswith("'max_output_tokens'")


async def test_half_a_character_is_refused_everywhere(bed: GatewayBed) -> None:
    half = [{"role": "user", "content": "\ud83d"}]
    for path, body in (
        ("/v1/messages", {"model": "chat", "max_tokens": 8, "messages": half}),
        ("/v1/responses", {"model": "chat", "input": "x", "metadata": {"a": "\ud83d"}, "stream": True}),
        ("/v1/chat/completions", {"model": "chat", "messages": half}),
        ("/tokenize", {"model": "chat", "prompt": "\ud83d"}),
    ):
        status, answer = await post(bed, path, body)
        assert (status, "half a character" in answer["error"]["message"]) == (400, True), path
    whole = {"model": "chat", "messages": [{"role": "user", "content": "\U0001f600"}]}
    assert (await post(bed, "/v1/chat/completions", whole))[0] == 200


async def test_a_stream_that_breaks_off_is_an_error_of_anthropics_client(
    bed: GatewayBed, chat: ScriptedReplica
) -> None:
    chat.break_after = 2
    got: list[str] = []

    async def read(ai: anthropic.AsyncAnthropic) -> None:
        async with ai.messages.stream(model="chat", max_tokens=8, messages=HELLO) as stream:
            async for text in stream.text_stream:
                got.append(text)

    async with claude(bed) as ai:
        with pytest.raises(anthropic.APIStatusError, match="broke off in the middle"):
            await read(ai)
    assert got == ["one ", "two "]


async def test_anthropics_client_counts_tokens(bed: GatewayBed, chat: ScriptedReplica) -> None:
    async with claude(bed) as ai:
        counted = await ai.messages.count_tokens(model="chat", messages=HELLO, system="Be brief.")
    assert counted.input_tokens == 5
    assert chat.seen == [{"model": "chat", "messages": [{"role": "system", "content": "Be brief."}, *HELLO]}]


async def test_anthropics_top_k_is_the_engines(bed: GatewayBed, chat: ScriptedReplica) -> None:
    async with claude(bed) as ai:
        await ai.messages.create(model="chat", max_tokens=8, messages=HELLO, extra_body={"top_k": 3})
    assert chat.seen[0]["top_k"] == 3


async def test_errors_have_anthropics_shape(bed: GatewayBed, chat: ScriptedReplica) -> None:
    async with claude(bed) as ai:
        with pytest.raises(anthropic.NotFoundError, match="'chatt' is served") as missing:
            await ai.messages.create(model="chatt", max_tokens=8, messages=HELLO)
        with pytest.raises(anthropic.BadRequestError, match="does not follow 'logprobs'"):
            await ai.messages.create(model="chat", max_tokens=8, messages=HELLO, extra_body={"logprobs": True})
        refusal = {"message": "The engine fake does not follow 'x'.", "code": "invalid_option", "param": "x"}
        chat.refuse_with = (400, {"error": refusal})
        with pytest.raises(anthropic.BadRequestError, match="The engine fake"):
            await ai.messages.create(model="chat", max_tokens=8, messages=HELLO)
    assert missing.value.body["type"] == "error"  # type: ignore[index]
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    assert "Did you mean 'chat'" in missing.value.body["error"]["hint"]  # type: ignore[index]
    async with claude(bed, "sk-wrong") as stranger:
        with pytest.raises(anthropic.AuthenticationError):
            await stranger.messages.create(model="chat", max_tokens=8, messages=HELLO)


async def test_openais_client_gets_a_response(bed: GatewayBed, chat: ScriptedReplica) -> None:
    async with gpt(bed) as ai:
        answer = await ai.responses.create(model="chat", input="hello", instructions="Be brief.", max_output_tokens=64)
        turns: Any = [*HELLO, {"role": "assistant", "content": [{"type": "output_text", "text": "hi"}]}, *HELLO]
        await ai.responses.create(model="chat", input=turns, store=False)
    assert answer.output_text == "one two three"
    assert (answer.status, answer.object) == ("completed", "response")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (7, 3, 10)
    assert chat.seen == [
        {"model": "chat", "messages": [{"role": "system", "content": "Be brief."}, *HELLO], "max_tokens": 64},
        {"model": "chat", "messages": [*HELLO, {"role": "assistant", "content": "hi"}, *HELLO]},
    ]


async def test_openais_client_streams_a_response(bed: GatewayBed) -> None:
    async with gpt(bed) as ai, ai.responses.stream(model="chat", input="hello") as stream:
        events = [event async for event in stream]
        last = await stream.get_final_response()
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["one ", "two ", "three"]
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert last.output_text == "one two three"
    assert last.usage is not None
    assert last.usage.output_tokens == 3


async def test_a_response_that_was_cut_is_incomplete(bed: GatewayBed, chat: ScriptedReplica) -> None:
    chat.finish = "length"
    async with gpt(bed) as ai:
        answer = await ai.responses.create(model="chat", input="hello")
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


async def test_openais_client_completes(bed: GatewayBed, chat: ScriptedReplica) -> None:
    async with gpt(bed) as ai:
        answer = await ai.completions.create(model="chat", prompt="Once upon", max_tokens=8)
    assert answer.choices[0].text == "one two three"
    assert chat.seen == [{"model": "chat", "prompt": "Once upon", "max_tokens": 8}]


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        ("/v1/messages", {"messages": HELLO, "max_tokens": 8}, "model", "'model' must be a text"),
        ("/v1/messages", {"model": "chat", "messages": HELLO}, "max_tokens", "'max_tokens' is missing"),
        ("/v1/messages", {"model": "chat", "max_tokens": 8}, "messages", "at least one message"),
        (
            "/v1/messages",
            {"model": "chat", "max_tokens": 8, "messages": [{"role": "robot", "content": "x"}]},
            "messages[0].role",
            "neither",
        ),
        (
            "/v1/messages",
            {"model": "chat", "max_tokens": 8, "messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "messages[0].content[0]",
            "of type 'image'",
        ),
        (
            "/v1/messages",
            {"model": "chat", "max_tokens": 8, "messages": HELLO, "tools": [{"type": "bash_1"}]},
            "tools[0].type",
            "runs at Anthropic's",
        ),
        ("/v1/messages", {"model": "chat", "max_tokens": 8, "messages": HELLO, "stream": "yes"}, "stream", "true or"),
        (
            "/v1/messages",
            {"model": "chat", "max_tokens": 8, "messages": [{"role": ["user"], "content": "x"}]},
            "messages[0].role",
            "neither",
        ),
        (
            "/v1/messages",
            {"model": "chat", "max_tokens": 8, "messages": [{"role": "user", "content": [{"type": []}]}]},
            "messages[0].content[0]",
            "of type '[]'",
        ),
        (
            "/v1/messages",
            {"model": "chat", "max_tokens": 8, "messages": [*HELLO, {"role": "assistant", "content": "{"}]},
            "messages",
            "not the user's",
        ),
        ("/v1/responses", {"model": "chat", "input": "x", "metadata": [1]}, "metadata", "object of texts"),
        ("/v1/responses", {"model": "chat", "input": [{"role": [], "content": "x"}]}, "input[0].role", "roles"),
        ("/v1/responses", {"model": "chat"}, "input", "'input' must be"),
        ("/v1/responses", {"model": "chat", "input": [{"type": "reasoning"}]}, "input[0]", "'reasoning'"),
        ("/v1/responses", {"model": "chat", "input": "x", "instructions": 3}, "instructions", "must be a text"),
        ("/v1/responses", {"model": "chat", "input": "x", "previous_response_id": "r"}, "previous_response_id", "not"),
        ("/v1/responses", {"model": "chat", "input": "x", "text": {"verbosity": "low"}}, "text.verbosity", "not"),
        ("/v1/completions", {"model": "chat"}, "prompt", "'prompt' must be"),
        ("/tokenize", {"prompt": "x"}, "model", "'model' must be a text"),
        ("/v1/messages", {"model": "mood", "max_tokens": 8, "messages": HELLO}, "model", "text-classification"),
    ],
)
async def test_what_is_wrong_is_named(bed: GatewayBed, path: str, body: Any, param: str, words: str) -> None:
    status, answer = await post(bed, path, body)
    assert status == 400, answer
    assert answer["error"]["param"] == param
    assert words in answer["error"]["message"]
    assert answer.get("type") == ("error" if path == "/v1/messages" else None)


async def test_a_body_that_is_no_object_is_refused_everywhere(bed: GatewayBed) -> None:
    for path in ("/v1/messages", "/v1/messages/count_tokens", "/v1/responses", "/v1/completions", "/detokenize"):
        status, answer = await post(bed, path, [1])
        assert (status, "not an object" in answer["error"]["message"]) == (400, True), path
    assert (await post(bed, "/v1/messages/batches", {}))[1]["type"] == "error"
    soon = {"x-llm-os-timeout": "0.2"}
    cold = {"model": "starting", "max_tokens": 8, "messages": HELLO}
    status, answer = await post(bed, "/v1/messages", cold, **soon)
    assert (status, answer["error"]["type"]) == (503, "overloaded_error")
