"""What engine workers accept, and how they name what they refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_os.errors import InvalidInputError, InvalidOptionError
from llm_os.models.settings import GenerationSettings
from llm_os.workers.backend import Backend
from llm_os.workers.llamacpp import LlamaBackend
from llm_os.workers.openvino import OpenVinoBackend
from llm_os.workers.requests import (
    FOLLOWED_BY,
    MOST_STOPS,
    chat_request,
    classify_request,
    completion_request,
    error_body,
)
from llm_os.workers.torch import TorchChat
from llm_os.workers.vllm import VllmBackend

HELLO = [{"role": "user", "content": "Hi"}]


def chat(**more: Any) -> Any:
    return chat_request(json.dumps({"messages": HELLO} | more).encode(), "toy")


def test_a_bare_chat_takes_the_defaults_of_openai() -> None:
    request = chat()
    assert (request.temperature, request.top_p, request.max_tokens, request.stream) == (1.0, 1.0, None, False)


def test_what_a_request_does_not_say_is_as_the_model_has_it() -> None:
    usual = GenerationSettings(0.6, 0.9, 20, 1.1, 300, (7,))
    follows = frozenset({"top_k", "repetition_penalty"})

    def asked(**more: Any) -> Any:
        return chat_request(json.dumps({"messages": HELLO} | more).encode(), "toy", follows, usual)

    def values(request: Any) -> tuple[Any, ...]:
        return request.temperature, request.top_p, request.top_k, request.repetition_penalty, request.max_tokens

    assert values(asked()) == (0.6, 0.9, 20, 1.1, 300)
    named = {"temperature": 0.3, "top_p": 0.5, "top_k": 0, "repetition_penalty": 1, "max_tokens": 9}
    assert values(asked(**named)) == (0.3, 0.5, 0, 1.0, 9)
    assert values(asked(temperature=0)) == (0.0, 1.0, 0, 1.0, 300), "the likeliest tokens, as it was evaluated"
    assert values(asked(temperature=0, repetition_penalty=1.2)) == (0.0, 1.0, 0, 1.2, 300)
    (completion,) = completion_request(b'{"prompt": "a"}', "toy", follows, usual)
    assert values(completion) == (0.6, 0.9, 20, 1.1, 16)
    greedy = chat_request(json.dumps({"messages": HELLO}).encode(), "toy", follows, GenerationSettings(0.0, top_k=5))
    assert values(greedy) == (0.0, 1.0, 0, 1.0, None)


def test_a_penalty_whose_quotients_are_no_numbers_is_refused() -> None:
    body = json.dumps({"messages": HELLO, "repetition_penalty": 1e-300}).encode()
    with pytest.raises(InvalidOptionError, match=r"between 0\.01 and 2"):
        chat_request(body, "toy", frozenset({"repetition_penalty"}))


def test_max_completion_tokens_wins_over_its_old_name() -> None:
    assert chat(max_tokens=5).max_tokens == 5
    assert chat(max_tokens=5, max_completion_tokens=7).max_tokens == 7


def test_a_stop_may_be_a_text_or_a_list() -> None:
    assert chat(stop="end").stop == ("end",)
    assert chat(stop=["a", "b"]).stop == ("a", "b")
    assert chat(stop=None).stop == ()


def test_text_parts_are_joined_and_the_developer_is_the_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = chat(messages=[{"role": "developer", "content": parts}])
    assert request.messages == ({"role": "system", "content": "ab"},)


def test_parameters_that_ask_for_nothing_are_taken() -> None:
    chat(n=1, frequency_penalty=0, presence_penalty=0.0, logprobs=False, user="me", best_of=None)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"best_of": 2}, "best_of"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"seed": -1}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * (MOST_STOPS + 1)}, "stop"),
        ({"stop": 3}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"colour": 1}}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "include_usage"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [*HELLO, {"role": "user", "content": [{"type": "image_url"}]}]}, "messages[1].content"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        chat(**given)
    assert error_body(caught.value)["error"]["param"] == param


ALL = frozenset(FOLLOWED_BY)


def chat_with(**more: Any) -> Any:
    return chat_request(json.dumps({"messages": HELLO} | more).encode(), "toy", ALL)


def test_what_an_engine_follows_reaches_it() -> None:
    asked = chat_with(n=2, logprobs=True, top_logprobs=3, frequency_penalty=0.5, presence_penalty=-1)
    assert (asked.n, asked.logprobs, asked.frequency_penalty, asked.presence_penalty) == (2, 3, 0.5, -1.0)
    assert chat_with(logprobs=True).logprobs == 0
    assert chat_with().logprobs is None
    assert chat_with(response_format={"type": "text"}).schema is None
    assert json.loads(chat_with(response_format={"type": "json_object"}).schema) == {"type": "object"}
    (completion,) = completion_request(b'{"prompt": "a", "logprobs": 2}', "toy", ALL)
    assert completion.logprobs == 2


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {}}, "response_format"),
        ({"logprobs": True, "top_logprobs": 20, "n": 16}, "logprobs"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 5}}}}, "response_format"),
    ],
)
def test_a_wrong_wish_is_named(given: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        chat_with(**given)
    assert error_body(caught.value)["error"]["param"] == param


def test_who_does_not_follow_says_who_does() -> None:
    with pytest.raises(InvalidOptionError, match="followed by the engine openvino") as caught:
        chat(response_format={"type": "json_object"})
    assert "toy does not follow 'response_format'" in caught.value.message
    with pytest.raises(InvalidOptionError, match="engine torch"):
        completion_request(b'{"prompt": "a", "logprobs": 2}', "toy", frozenset({"logprobs"}))
    with pytest.raises(InvalidOptionError, match="16 answers to 17 prompts"):
        completion_request(json.dumps({"prompt": ["a"] * 17, "n": 16}).encode(), "toy")


def test_an_unknown_parameter_names_the_engine() -> None:
    with pytest.raises(InvalidOptionError, match="engine toy does not follow 'best_of'"):
        chat(best_of=2)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"3", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInputError):
        chat_request(body, "toy")


def test_one_text_is_a_list_of_one() -> None:
    assert classify_request(b'{"input": "a", "model": "m"}', "toy") == ["a"]
    assert classify_request(b'{"input": ["a", "b"]}', "toy") == ["a", "b"]


@pytest.mark.parametrize(
    "body", [b"{}", b'{"input": []}', b'{"input": [1]}', b'{"input": null}', b'{"input": "a", "top_k": 3}']
)
def test_a_wrong_classification_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidOptionError):
        classify_request(body, "toy")


def test_too_many_texts_are_refused() -> None:
    with pytest.raises(InvalidOptionError, match="5000 texts"):
        classify_request(json.dumps({"input": ["a"] * 5000}).encode(), "toy")


def test_the_engines_that_a_hint_names_are_those_that_follow() -> None:
    backends: dict[str, type[Backend]] = {
        "torch": TorchChat,
        "openvino": OpenVinoBackend,
        "llamacpp": LlamaBackend,
        "vllm": VllmBackend,
    }
    for name, told in FOLLOWED_BY.items():
        named = {engine for engine in backends if engine in told}
        assert named == {engine for engine, backend in backends.items() if name in backend.follows}, name
