"""How a model wants to be asked, as its folder says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_os.errors import ModelError
from llm_os.models import settings
from llm_os.models.settings import FILE, NONE, GenerationSettings


def said(folder: Path, text: Any) -> GenerationSettings:
    (folder / FILE).write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return settings.read(folder)


def test_a_folder_without_the_file_and_a_single_file_say_nothing(tmp_path: Path) -> None:
    assert settings.read(tmp_path) == NONE
    (tmp_path / "model.gguf").write_bytes(b"")
    assert settings.read(tmp_path / "model.gguf") == NONE
    assert NONE.told() == {}


def test_what_is_said_is_read_and_told(tmp_path: Path) -> None:
    given = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.05, "max_new_tokens": 512}
    found = said(tmp_path, {**given, "do_sample": True, "eos_token_id": [7, 9], "transformers_version": "5"})
    assert found.told() == {**given, "eos_token_id": [7, 9]}
    assert said(tmp_path, {"eos_token_id": 3}).eos == (3,)


def test_limits_larger_than_an_engine_takes_are_the_largest(tmp_path: Path) -> None:
    found = said(tmp_path, {"top_k": 10**30, "max_new_tokens": 10**30})
    assert found.top_k == found.max_new_tokens == 2**31 - 1


def test_who_does_not_want_to_be_drawn_from_is_asked_for_the_likeliest(tmp_path: Path) -> None:
    assert said(tmp_path, {"do_sample": False, "temperature": 0.7}).temperature == 0.0
    assert said(tmp_path, {"temperature": 0.7}).temperature == 0.7


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ({"repetition_penalty": 1e-300}, "repetition_penalty"),
        ({"eos_token_id": 2**40}, "eos_token_id"),
        ([1], "list"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"eos_token_id": ["a"]}, "eos_token_id"),
    ],
)
def test_a_broken_file_is_told_by_name(tmp_path: Path, text: Any, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        said(tmp_path, text)


def test_a_version_hands_on_what_its_parent_says_and_keeps_its_own_where_it_says_nothing(tmp_path: Path) -> None:
    parent, child = tmp_path / "parent", tmp_path / "child"
    parent.mkdir()
    child.mkdir()
    said(child, {"eos_token_id": 1})
    settings.hand_on(parent, child)
    assert settings.read(child).eos == (1,)
    said(parent, {"temperature": 0.3, "eos_token_id": 2})
    settings.hand_on(parent, child)
    assert settings.read(child) == settings.read(parent)
