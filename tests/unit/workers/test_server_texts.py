"""Text grows by whole characters and ends before a stop text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.workers.texts import ByteText, Detokenizer, StopTexts, table_of


def _bytes(ids: object) -> str:
    return bytes(ids).decode("utf-8", errors="replace")  # type: ignore[call-overload]


@given(st.text(max_size=40))
def test_bytes_as_tokens_give_the_text_back(text: str) -> None:
    decoder = Detokenizer(_bytes)
    parts = [decoder.feed([byte]) for byte in text.encode()]
    if "\ufffd" not in text:
        assert all("\ufffd" not in part for part in parts)
        assert "".join(parts) + decoder.feed([], last=True) == text


def test_half_a_character_comes_out_at_the_end_only() -> None:
    decoder = Detokenizer(_bytes)
    assert decoder.feed("é".encode()[:1]) == ""
    assert decoder.feed([], last=True) == "\ufffd"


def test_a_space_that_depends_on_the_token_before_is_kept() -> None:
    words = ["Hello", "world", "again"]
    decoder = Detokenizer(lambda ids: " ".join(words[i] for i in ids))
    assert [decoder.feed([i]) for i in range(3)] == ["Hello", " world", " again"]


BYTES = {byte: bytes([byte]) for byte in range(256)}


@given(st.text(max_size=40))
def test_a_table_of_bytes_gives_the_text_back_in_whole_characters(text: str) -> None:
    decoder = ByteText(BYTES)
    parts = [decoder.feed([byte]) for byte in text.encode()]
    assert "".join(parts) + decoder.feed([], last=True) == text
    assert "\ufffd" in text or all("\ufffd" not in part for part in parts)


def test_half_a_character_and_tokens_that_no_table_has() -> None:
    decoder = ByteText(BYTES)
    assert decoder.feed("é".encode()[:1]) == ""
    assert decoder.feed([999]) == ""
    assert decoder.feed([], last=True) == "\ufffd"


WORDS = {0: b"<end>", 1: b"Hello", 2: b" w\xc3\xb6rld", 3: "€".encode()[:2], 4: "€".encode()[2:], 5: b"\n"}


def _engine(ids: Sequence[int]) -> str:
    """As engines do it: no special tokens, no halves of characters."""
    return b"".join(WORDS[token] for token in ids if token).decode(errors="ignore")


def test_the_table_is_the_vocabulary_without_what_the_engine_leaves_out() -> None:
    table = table_of(WORDS, {token: _engine([token]) for token in WORDS}, _engine)
    assert table == WORDS | {0: b""}


def test_there_is_no_table_where_a_token_alone_says_something_else() -> None:
    marked = {1: "▁Hello".encode(), 2: "▁world".encode()}
    assert table_of(marked, {1: "Hello", 2: "world"}, lambda ids: " ".join("Hello" for _ in ids)) is None


def test_there_is_no_table_where_tokens_together_say_something_else() -> None:
    words = {1: b"Hello", 2: b"world"}
    assert table_of(words, {1: "Hello", 2: "world"}, lambda ids: " ".join(words[one].decode() for one in ids)) is None


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_the_text_ends_before_the_stop_text_however_it_is_cut(size: int) -> None:
    text, stops = "one two three STOP four", StopTexts(["STOP", "never"])
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    out = "".join(stops.feed(part, last=part is parts[-1]) for part in parts)
    assert out == "one two three "
    assert stops.stopped


def test_what_only_began_like_a_stop_text_is_sent_in_the_end() -> None:
    stops = StopTexts(["STOP"])
    assert stops.feed("a ST") == "a "
    assert stops.feed("AR") == "STAR"
    assert stops.feed(" S") == " "
    assert stops.feed("", last=True) == "S"
    assert not stops.stopped


def test_the_first_of_two_stop_texts_counts() -> None:
    assert StopTexts(["c", "b"]).feed("abc") == "a"


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_no_stop_text_ever_gets_out_and_nothing_else_is_lost(text: str, stops: list[str]) -> None:
    filter_ = StopTexts(stops)
    out = "".join(filter_.feed(letter) for letter in text) + filter_.feed("", last=True)
    assert not any(stop in out for stop in stops)
    assert text.startswith(out)
    assert filter_.stopped or out == text
