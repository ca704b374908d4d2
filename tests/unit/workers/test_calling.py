"""Calls of tools in what models say: found however the text is cut, and nothing else is taken for one."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.workers.backend import Piece
from llm_os.workers.calling import FORMS, HERMES, LLAMA, MISTRAL, Calls, Form, description, form_of, heard, plain
from llm_os.workers.requests import ChatRequest
from llm_os.workers.tools import Tool

NAMES = ("weather", "time")
CITY = {"name": "weather", "arguments": {"city": "Paris"}}


def parted(form: Form, parts: list[str], most: int = 128) -> tuple[str, list[tuple[str, Any]]]:
    """All text and all calls of an answer that comes in these parts."""
    parser, said = Calls(form, NAMES, most=most), ""
    calls: list[tuple[str, Any]] = []
    for part in parts:
        text, found = parser.feed(part)
        said, calls = said + text, calls + [(call.name, json.loads(call.arguments)) for call in found]
    text, found = parser.feed("", last=True)
    return said + text, calls + [(call.name, json.loads(call.arguments)) for call in found]


@pytest.mark.parametrize(
    ("form", "text", "said", "calls"),
    [
        (HERMES, f"Let me see.\n<tool_call>\n{json.dumps(CITY)}\n</tool_call>\n", "Let me see.", [CITY]),
        (HERMES, f"<tool_call>{json.dumps([CITY, CITY])}</tool_call>", "", [CITY, CITY]),
        (HERMES, f"<tool_call>{json.dumps(CITY)}</tool_call>\n<tool_call>{json.dumps(CITY)}", "", [CITY, CITY]),
        (HERMES, f"<tool_call>{json.dumps(CITY)}</tool_call> so", " so", [CITY]),
        (HERMES, '<tool_call>{"name": "time"}</tool_call>', "", [{"name": "time", "arguments": {}}]),
        (HERMES, f"<tool_call>[CITY]{json.dumps(CITY)}</tool_call>", ..., []),
        (HERMES, f"a <tool_call>{json.dumps(CITY)[:-1]}</tool_call> b", ..., []),
        (HERMES, '<tool_call>{"name": "delete_all", "arguments": {}}</tool_call>', ..., []),
        (HERMES, '<tool_call>{"name": "time", "arguments": [1]}</tool_call>', ..., []),
        (HERMES, '<tool_call>{"name": "time", "arguments": {"a": NaN}}</tool_call>', ..., []),
        (HERMES, '<tool_call>{"name": "time", "arguments": {"a": "\\ud83d"}}</tool_call>', ..., []),
        (HERMES, f" {json.dumps(CITY)}\n", "", [CITY]),
        (MISTRAL, json.dumps(CITY), "", [CITY]),
        (HERMES, '{"name": "time"}', ..., []),
        (HERMES, f"{json.dumps(CITY)} is a call", ..., []),
        (HERMES, f"Call {json.dumps(CITY)}", ..., []),
        (HERMES, f"{{}} <tool_call>{json.dumps(CITY)}</tool_call>", "{}", [CITY]),
        (HERMES, "1 < 2 <tool", ..., []),
        (LLAMA, '{"name": "weather", "parameters": {"city": "Paris"}}', "", [CITY]),
        (LLAMA, ' <|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}', "", [CITY]),
        (LLAMA, '{"name": "time", "parameters": {}}; {"name": "time", "parameters": {}}', "", ["time", "time"]),
        (LLAMA, '{"name": "weather"}', ..., []),
        (LLAMA, '{"city": "Paris"} is JSON', ..., []),
        (LLAMA, 'Sure: {"name": "time", "parameters": {}}', ..., []),
        (MISTRAL, f"[TOOL_CALLS] {json.dumps([CITY, CITY])}", "", [CITY, CITY]),
        (MISTRAL, "[TOOL_CALLS] nothing", ..., []),
    ],
)
def test_calls_are_found_and_the_rest_is_text(form: Form, text: str, said: Any, calls: list[Any]) -> None:
    told, found = parted(form, [text])
    wanted = [(one, {}) if isinstance(one, str) else (one["name"], one["arguments"]) for one in calls]
    assert found == wanted
    assert told == (text if said is ... else said)


def test_the_mark_of_an_end_inside_a_text_ends_no_call() -> None:
    inside = {"name": "weather", "arguments": {"city": 'a </tool_call> "b"'}}
    assert parted(HERMES, [f"<tool_call>{json.dumps(inside)}</tool_call>"]) == ("", [("weather", inside["arguments"])])


def test_arguments_that_are_json_in_json_are_read() -> None:
    twice = {"name": "weather", "arguments": json.dumps(CITY["arguments"])}
    assert parted(HERMES, [f"<tool_call>{json.dumps(twice)}</tool_call>"])[1] == [("weather", {"city": "Paris"})]


def test_after_the_most_calls_all_is_dropped() -> None:
    one = f"<tool_call>{json.dumps(CITY)}</tool_call>"
    assert parted(HERMES, ["a", one, one, "b"], most=1) == ("a", [("weather", {"city": "Paris"})])
    assert len(parted(MISTRAL, [f"[TOOL_CALLS]{json.dumps([CITY, CITY])}"], most=1)[1]) == 1


def test_text_before_a_call_is_not_held_back_but_half_a_mark_is() -> None:
    parser = Calls(HERMES, NAMES)
    assert parser.feed("Let me see. <tool_")[0] == "Let me see."
    assert parser.feed("box>")[0] == " <tool_box>"
    assert parser.feed("<tool_call>{", last=False) == ("", ())
    assert parser.feed("", last=True) == ("<tool_call>{", ())


SNIPPETS = st.sampled_from(
    (
        *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<tool", "_call>", " ", "\n", '"', "{", "}"),
        *("[", "]", ",", ";", "\\", "word", '{"name": "time", "arguments": {}}', '{"name": "time", "parameters": {}}'),
        *(json.dumps(CITY), f"<tool_call>{json.dumps(CITY)}</tool_call>", '{"name": "other", "arguments": {}}'),
    )
)
ANSWERS = st.lists(st.one_of(SNIPPETS, st.text(max_size=4)), max_size=12)


@given(st.sampled_from(FORMS), ANSWERS, st.lists(st.integers(0, 200), max_size=8), st.sampled_from((1, 2, 128)))
def test_where_an_answer_is_cut_changes_nothing(form: Form, parts: list[str], cuts: list[int], most: int) -> None:
    text = "".join(parts)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(places)]
    whole = parted(form, [text], most)
    assert parted(form, pieces, most) == whole
    assert parted(form, list(text), most) == whole
    if not whole[1]:
        assert whole[0] == text, "what holds no call is text to the letter"


@given(st.sampled_from(FORMS), st.lists(st.sampled_from(NAMES), min_size=1, max_size=4), st.text("ab \n", max_size=8))
def test_what_a_grammar_writes_is_read_again(form: Form, names: list[str], words: str) -> None:
    text, arguments = "\n", json.dumps({"city": 'a "b" </tool_call> \n'})
    for name in names if form.end else names[:1]:
        before, after = form.around(name)
        assert before.startswith(form.trigger)
        text += f"{before}{arguments}{after}\n"
    lead = "" if form.bare else words
    said, calls = parted(form, [lead + text])
    assert [name for name, _ in calls] == (names if form.end else names[:1])
    assert all(found == json.loads(arguments) for _, found in calls)
    assert said == lead.rstrip()


@pytest.mark.parametrize(
    ("template", "form", "native"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", HERMES, False),
        ("{{ tools | tojson }} <tool_call></tool_call>", HERMES, True),
        ("{{ tools }} <tool_call><function=x></tool_call>", HERMES, False),
        ('{{ tools }} {"name": x, "parameters": y}', LLAMA, True),
        ("{{ tools }} <|python_tag|>", LLAMA, True),
        ("[AVAILABLE_TOOLS]{{ tools }} [TOOL_CALLS]", MISTRAL, True),
        ("{{ tools }} in a form of its own", HERMES, False),
        ("<tool_call> without being told of them", HERMES, False),
    ],
)
def test_the_template_says_how_its_model_calls(template: str, form: Form, native: bool) -> None:
    assert form_of(template) == (form, native)


WEATHER = Tool("weather", "Of a city.", {"type": "object", "properties": {"city": {"type": "string"}}})
CALL = {"id": "1", "type": "function", "function": CITY}


def test_a_template_that_knows_no_tools_gets_texts() -> None:
    said = plain(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
            {"role": "tool", "content": "sunny", "tool_call_id": "1", "name": "weather"},
            {"role": "tool", "content": "mild", "tool_call_id": "1", "name": "weather"},
            {"role": "user", "content": "So?"},
            {"role": "assistant", "content": "Sunny."},
            {"role": "user", "content": "Thanks."},
        ],
        [WEATHER],
    )
    assert [one["role"] for one in said] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert all(set(one) == {"role", "content"} for one in said)
    assert said[0]["content"] == f"Be brief.\n\n{description([WEATHER])}"
    assert parted(HERMES, [said[2]["content"]])[1] == [("weather", {"city": "Paris"})] * 2
    results = "<tool_response>\nsunny\n</tool_response>\n<tool_response>\nmild\n</tool_response>\nSo?"
    assert said[3]["content"] == results
    assert said[5]["content"] == "Thanks."


def test_what_has_nothing_of_tools_stays_as_it_is() -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": ""}]
    assert plain(talk, []) == talk
    assert plain(talk, [WEATHER])[1:] == talk


async def said_by(parts: list[str], finish: str) -> AsyncGenerator[Piece, None]:
    for number, part in enumerate(parts, start=1):
        yield Piece(part, 5, number, finish if number == len(parts) else None)


@pytest.mark.parametrize(
    ("parts", "finish", "parallel", "told"),
    [
        (["a", "b"], "stop", True, ("ab", 0, "stop")),
        (["a ", f"<tool_call>{json.dumps(CITY)}</tool_call>", ""], "stop", True, ("a", 1, "tool_calls")),
        (["a ", f"<tool_call>{json.dumps(CITY)}</tool_call>", " b"], "length", True, ("a b", 1, "length")),
        ([f"<tool_call>{json.dumps([CITY, CITY])}</tool_call>", "b"], "stop", False, ("", 1, "tool_calls")),
        (["<tool_call>", json.dumps(CITY)[:9]], "length", True, ("<tool_call>" + json.dumps(CITY)[:9], 0, "length")),
    ],
)
async def test_an_answer_with_calls_says_why_it_ended(
    parts: list[str], finish: str, parallel: bool, told: tuple[str, int, str]
) -> None:
    request = ChatRequest(tools=(WEATHER,), parallel_calls=parallel)
    pieces = [piece async for piece in heard(said_by(parts, finish), request, HERMES)]
    text, calls = "".join(piece.text for piece in pieces), [call for piece in pieces for call in piece.calls]
    assert (text, len(calls), pieces[-1].finish) == told
    assert all(piece.finish is None for piece in pieces[:-1])
    assert not pieces[-1].calls, "the end comes after the calls"
