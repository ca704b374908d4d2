"""What every engine must do, as checks that run against its worker; knows engines by their interface only.

Pure checks take an engine and a model's facts. Served checks take a worker that is ready (see `testing.engine_bed`):

    async with started(plugins.load("engine", name), model) as served:
        for check in served_checks(engine, task): await check(served)
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import Awaitable, Callable
from typing import Any

from llm_os.drivers.device import Available, Unavailable
from llm_os.drivers.engine import Engine
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import EXIT_STOPPED
from llm_os.spec.resources import Capacity
from llm_os.testing.conformance.abilities import ABILITIES, CHAT, COMPLETIONS, QUESTION, chat_body
from llm_os.testing.engine_bed import Served

LONG = [{"role": "user", "content": "Write a very long story about the sea and the sailors who love it."}]

Pure = Callable[[Engine, ArtifactFacts], None]
Check = Callable[[Served], Awaitable[None]]


def probe_says_what_is_there_or_why_not(engine: Engine, _: ArtifactFacts) -> None:
    answer = engine.probe()
    if isinstance(answer, Available):
        assert answer.version, "an available engine names its version"
    else:
        assert isinstance(answer, Unavailable)
        assert answer.reason, "an unavailable engine says why"
        assert answer.hint, "and what to do"


def footprint_is_pure_and_larger_than_the_weights(engine: Engine, facts: ArtifactFacts) -> None:
    options, granted = engine.Options(), Capacity(cpus=2, memory=2**34)
    first = engine.footprint(options, facts, granted)
    assert first == engine.footprint(options, facts, granted)
    assert first.cpus > 0
    assert first.memory > 16 * 2**20, "memory is in bytes"


def process_names_the_attempt_folder(engine: Engine, facts: ArtifactFacts) -> None:
    options = engine.Options()
    process = engine.process(options, facts, engine.footprint(options, facts, Capacity(cpus=2, memory=2**34)))
    assert process.argv[0] == "{python}"
    assert "{attempt}" in process.argv


def candidates_are_few_and_the_same_at_each_call(engine: Engine, facts: ArtifactFacts) -> None:
    for gib in (64, 4):
        granted = Capacity(cpus=8, memory=gib * 2**30)
        found = engine.candidates(facts, granted)
        assert found == engine.candidates(facts, granted)
        assert len(found) <= 4, "each costs whoever deploys some seconds"
        assert len({options.model_dump_json() for options in found}) == len(found)
        assert all(type(options) is engine.Options for options in found)
    nowhere = engine.candidates(facts, Capacity(cpus=8, memory=64 * 2**30), "no such precision")
    assert nowhere == (), "a precision that it cannot serve in is no candidate"


PURE_CHECKS: tuple[Pure, ...] = (
    probe_says_what_is_there_or_why_not,
    footprint_is_pure_and_larger_than_the_weights,
    process_names_the_attempt_folder,
    candidates_are_few_and_the_same_at_each_call,
)


async def it_reports_where_it_answers(served: Served) -> None:
    reports = served.reports()
    assert [report.kind for report in reports] == ["ready"], f"{reports}\n{served.log()}"
    assert reports[0].values["endpoint"] == f"unix:{served.socket}"


async def only_its_user_can_open_the_socket(served: Served) -> None:
    assert stat.S_IMODE(served.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(served.socket.parent.stat().st_mode) == 0o700


async def it_is_healthy_and_counts(served: Served) -> None:
    status, _ = await served.get("/health")
    assert status == 200
    status, text = await served.get("/metrics")
    assert status == 200
    assert "llm_os_worker_requests_running 0" in text


async def a_request_that_is_no_json_is_refused(served: Served) -> None:
    half: dict[str, Any] = {"input": "\ud83d", "messages": [{"role": "user", "content": "\ud83d"}], "prompt": "\ud83d"}
    for path, name in ((CHAT, "messages"), ("/classify", "input"), (COMPLETIONS, "prompt")):
        for given in ([1], {name: half[name]}):
            status, body = await served.post(path, given)
            assert status == 400, body
            assert body["error"]["message"]


async def texts_are_classified_in_their_order(served: Served) -> None:
    texts = ["short", "a much longer text about a film that nobody liked", "middle of the road"]
    status, together = await served.post("/classify", {"input": texts})
    assert status == 200, together
    assert [item["index"] for item in together["data"]] == [0, 1, 2]
    assert together["usage"]["prompt_tokens"] > 0
    for text, item in zip(texts, together["data"], strict=True):
        _, alone = await served.post("/classify", {"input": text})
        for label, score in alone["data"][0]["scores"].items():
            assert abs(score - item["scores"][label]) < 0.02, "the batch changes the answer"


async def scores_are_shares_and_the_label_is_the_best(served: Served) -> None:
    _, body = await served.post("/classify", {"input": "good"})
    item = body["data"][0]
    assert abs(sum(item["scores"].values()) - 1) < 0.01
    assert item["label"] == max(item["scores"], key=item["scores"].get)
    assert item["score"] == item["scores"][item["label"]]
    assert set(item["scores"]) == set(served.facts.meta["labels"] or ())  # type: ignore[arg-type]


async def many_callers_at_once_get_their_own_answers(served: Served) -> None:
    texts = [f"text number {n}" for n in range(24)]
    answers = await asyncio.gather(*(served.post("/classify", {"input": text}) for text in texts))
    _, together = await served.post("/classify", {"input": texts})
    for (status, body), item in zip(answers, together["data"], strict=True):
        assert status == 200, body
        assert abs(body["data"][0]["scores"][item["label"]] - item["score"]) < 0.02, "it is somebody else's answer"


async def an_empty_list_or_a_wrong_type_is_refused(served: Served) -> None:
    for wrong in ([], 3, ["a", None]):
        status, body = await served.post("/classify", {"input": wrong})
        assert (status, body["error"]["param"]) == (400, "input")


CLASSIFIER_CHECKS: tuple[Check, ...] = (
    texts_are_classified_in_their_order,
    scores_are_shares_and_the_label_is_the_best,
    many_callers_at_once_get_their_own_answers,
    an_empty_list_or_a_wrong_type_is_refused,
)


async def _text(served: Served, **more: Any) -> str:
    status, body = await served.post(CHAT, chat_body(**more))
    assert status == 200, body
    return str(body["choices"][0]["message"]["content"])


async def a_chat_is_answered_and_counted(served: Served) -> None:
    status, body = await served.post(CHAT, chat_body())
    assert status == 200, body
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"]
    assert body["choices"][0]["finish_reason"] == "stop"
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def a_stream_says_the_same_as_the_whole(served: Served) -> None:
    whole = await _text(served)
    body = chat_body(stream=True, stream_options={"include_usage": True})
    events = [event async for event in served.events(CHAT, body)]
    assert events[-1] == "[DONE]"
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["completion_tokens"] > 0
    chunks = [event["choices"][0] for event in events[:-2]]
    assert chunks[0]["delta"]["role"] == "assistant"
    assert [chunk["finish_reason"] for chunk in chunks][-1] == "stop"
    assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == whole
    assert len(chunks) > 1, "the first words do not wait for the last ones"


async def max_tokens_cuts_and_says_length(served: Served) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        body = {key: value for key, value in chat_body().items() if key != "max_tokens"}
        status, answer = await served.post(CHAT, body | {name: 2})
        assert status == 200, answer
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] == 2


async def a_stop_text_ends_the_answer_before_it(served: Served) -> None:
    whole = await _text(served)
    word = whole.split()[2]
    status, answer = await served.post(CHAT, chat_body(stop=[word]))
    assert status == 200, answer
    assert answer["choices"][0]["message"]["content"] == whole[: whole.index(word)]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["stop_reason"] == word


async def a_seed_repeats_the_answer(served: Served) -> None:
    first, second = [await _text(served, temperature=0.8, top_p=0.9, seed=7) for _ in range(2)]
    assert first == second


async def a_tiny_temperature_is_greedy(served: Served) -> None:
    assert await _text(served, temperature=1e-40) == await _text(served)


async def an_unknown_parameter_is_refused_by_name(served: Served) -> None:
    status, body = await served.post(COMPLETIONS, {"model": "served", "prompt": "x", "echo": True})
    assert (status, body["error"]["param"]) == (400, "echo")
    status, body = await served.post(CHAT, chat_body(best_of=3))
    assert (status, body["error"]["param"]) == (400, "best_of")
    assert "engine" in body["error"]["message"]


async def eight_chats_at_once_are_all_answered(served: Served) -> None:
    answers = await asyncio.gather(*(served.post(CHAT, chat_body(max_tokens=8)) for _ in range(8)))
    texts = {body["choices"][0]["message"]["content"] for _, body in answers}
    assert all(status == 200 for status, _ in answers)
    assert all(texts)


async def a_caller_who_leaves_stops_the_work(served: Served) -> None:
    events = served.events(CHAT, chat_body(messages=LONG, max_tokens=4000, stream=True))
    await anext(events)
    await events.aclose()
    for _ in range(200):
        if "llm_os_worker_requests_running 0" in (await served.get("/metrics"))[1]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the request still runs 10 s after its caller has left")


async def a_prompt_is_gone_on_with_as_it_is(served: Served) -> None:
    asked = {"model": "served", "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8}
    status, body = await served.post(COMPLETIONS, asked)
    assert status == 200, body
    assert body["object"] == "text_completion"
    assert body["choices"][0]["text"]
    assert body["choices"][0]["finish_reason"] in {"stop", "length"}
    events = [event async for event in served.events(COMPLETIONS, asked | {"stream": True})]
    assert "".join(event["choices"][0]["text"] for event in events[:-1]) == body["choices"][0]["text"]


async def several_prompts_are_answered_in_their_order(served: Served) -> None:
    prompts = ["The capital of France is", "One, two, three, four,", "The capital of France is"]
    asked = {"model": "served", "prompt": prompts, "temperature": 0, "max_tokens": 4}
    status, body = await served.post(COMPLETIONS, asked)
    assert status == 200, body
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    first, _, third = (choice["text"] for choice in body["choices"])
    assert first == third
    _, alone = await served.post(COMPLETIONS, asked | {"prompt": prompts[0]})
    assert alone["choices"][0]["text"] == first
    assert body["usage"]["prompt_tokens"] > alone["usage"]["prompt_tokens"]


async def tokens_are_told_and_turned_back(served: Served) -> None:
    text = "The capital of France is Paris."
    status, told = await served.post("/tokenize", {"model": "served", "prompt": text})
    assert status == 200, told
    assert told["count"] == len(told["tokens"]) > 3
    assert told["max_model_len"] >= 128
    status, back = await served.post("/detokenize", {"model": "served", "tokens": told["tokens"]})
    assert status == 200, back
    assert text in back["prompt"]
    _, chat = await served.post("/tokenize", {"model": "served", "messages": QUESTION})
    _, answer = await served.post(CHAT, chat_body(max_tokens=1))
    assert chat["count"] == answer["usage"]["prompt_tokens"]
    asked = {"model": "served", "prompt": told["tokens"], "temperature": 0, "max_tokens": 2}
    _, from_ids = await served.post(COMPLETIONS, asked)
    assert from_ids["usage"]["prompt_tokens"] == told["count"]


async def a_wrong_prompt_or_token_is_refused_by_name(served: Served) -> None:
    prompts: list[Any] = [[], "", 3, ["a", 4], [[]], [10**9]]
    for prompt in prompts:
        status, body = await served.post(COMPLETIONS, {"model": "served", "prompt": prompt})
        assert (status, body["error"]["param"]) == (400, "prompt"), prompt
    wrong: list[Any] = [[], "a", [-1], [True], [10**9]]
    for tokens in wrong:
        status, body = await served.post("/detokenize", {"model": "served", "tokens": tokens})
        assert (status, body["error"]["param"]) == (400, "tokens"), tokens
    status, body = await served.post("/tokenize", {"model": "served"})
    assert (status, body["error"]["param"]) == (400, "prompt")
    ask = {"model": "served", "prompt": ["a", "b"], "stream": True}
    status, body = await served.post(COMPLETIONS, ask)
    assert (status, body["error"]["param"]) == (400, "prompt")


CHAT_CHECKS: tuple[Check, ...] = (
    a_chat_is_answered_and_counted,
    a_stream_says_the_same_as_the_whole,
    max_tokens_cuts_and_says_length,
    a_stop_text_ends_the_answer_before_it,
    a_seed_repeats_the_answer,
    a_tiny_temperature_is_greedy,
    an_unknown_parameter_is_refused_by_name,
    *ABILITIES,
    eight_chats_at_once_are_all_answered,
    a_prompt_is_gone_on_with_as_it_is,
    several_prompts_are_answered_in_their_order,
    tokens_are_told_and_turned_back,
    a_wrong_prompt_or_token_is_refused_by_name,
    a_caller_who_leaves_stops_the_work,
)


async def memory_stays_within_the_footprint(served: Served, engine: Engine) -> None:
    granted = Capacity(cpus=2, memory=2**34)
    promised = engine.footprint(engine.Options(), served.facts, granted).memory
    peak = served.peak_memory()
    assert peak <= promised, f"it used {peak / 2**20:.0f} MiB, {promised / 2**20:.0f} were promised"


async def asked_to_stop_it_ends_in_good_order(served: Served) -> None:
    os.kill(served.process.pid, signal.SIGTERM)
    assert await served.ended(30) == EXIT_STOPPED, served.log()
    assert not served.socket.exists()


def served_checks(engine: Engine, task: str) -> tuple[Check, ...]:
    """All checks for an engine that serves a model of this task, without its gaps; the last one ends the worker."""

    async def memory(served: Served) -> None:
        await memory_stays_within_the_footprint(served, engine)

    begin = (it_reports_where_it_answers, only_its_user_can_open_the_socket, it_is_healthy_and_counts)
    middle = CHAT_CHECKS if task == "text-generation" else CLASSIFIER_CHECKS
    checks = (*begin, a_request_that_is_no_json_is_refused, *middle, memory, asked_to_stop_it_ends_in_good_order)
    return tuple(check for check in checks if check.__name__ not in engine.gaps)
