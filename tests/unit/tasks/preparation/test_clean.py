"""Cleaning takes out what is no text, and nothing else."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_os.tasks.preparation.clean import CleanOptions, clean

from .stepping import Stepping, real, texts

DEFAULT = CleanOptions(html=True, spaces=True)


@pytest.mark.parametrize(
    ("dirty", "cleaned"),
    [
        ("One<br/>two <b>bo</b>ld", "One\ntwo bold"),
        ("<p>Fish &amp; chips</p><p>twice</p>", "Fish & chips\ntwice"),
        ("<div title='a > b'>in</div>", "in"),
        ("a<script>var x = '<p>1</p>';</script> b<style>p {}</style>", "a b"),
        ("seen<!-- never -->so", "seenso"),
        ("&lt;b&gt; is bold", "<b> is bold"),
        ("<i>&amp;lt;</i>", "&lt;"),
        ("3 < 4 and 5 > 2, I <3 it", "3 < 4 and 5 > 2, I <3 it"),
        ("<user> said hi to <anyone>", "<user> said hi to <anyone>"),
        ("cafe\u0301", "caf\u00e9"),
        (" a \u3000 b\u00a0c \r\n\r\n  d ", "a b c\nd"),
        ("a\x00b\x07c", "abc"),
    ],
)
def test_what_is_no_text_goes_and_words_stay(dirty: str, cleaned: str) -> None:
    assert clean(dirty, DEFAULT) == cleaned


def test_full_width_letters_become_plain_where_asked() -> None:
    assert clean("ＡＢＣ１２３", CleanOptions(unicode="NFKC", html=True, spaces=True)) == "ABC123"
    assert clean("ＡＢＣ１２３", DEFAULT) == "ＡＢＣ１２３"


def test_each_part_can_be_left_out() -> None:
    kept = CleanOptions(html=False, spaces=False, unicode="none")
    assert clean("<b>a</b>  &amp; e\u0301\n\n ", kept) == "<b>a</b>  &amp; e\u0301\n\n "


@settings(deadline=None)
@given(st.text(max_size=60))
def test_cleaned_text_is_in_one_form_and_stays_as_it_is(text: str) -> None:
    options = CleanOptions(html=False, spaces=True)
    once = clean(text, options)
    assert once == unicodedata.normalize("NFC", once).strip()
    assert clean(once, options) == once


def test_rows_of_which_nothing_is_left_are_dropped_and_counted(tmp_path: Path) -> None:
    stepping = Stepping.at(tmp_path)
    rows = stepping.run("clean", texts("good", "<p></p>", " fine "))
    assert [row["text"] for row in rows] == ["good", "fine"]
    assert stepping.notes == {"changed": 2, "dropped": 1}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_real_rows_lose_no_word(tmp_path: Path, language: str) -> None:
    rows = [row for row in real(language, 2000) if "&" not in row["text"] and "<" not in row["text"]]
    cleaned = Stepping.at(tmp_path).run("clean", rows)
    assert [row["text"].split() for row in cleaned] == [row["text"].split() for row in rows]
    assert [row["label"] for row in cleaned] == [row["label"] for row in rows]


def test_messages_are_cleaned_too(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "<b>Hi</b>"}, {"role": "assistant", "content": "Hello"}]}
    assert Stepping.at(tmp_path).run("clean", [row]) == [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    ]
