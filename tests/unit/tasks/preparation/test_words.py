"""Words are cut without loss, and a language is told by its text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_os.tasks.preparation.words import detect, language_of, pieces, written_in_han

from .stepping import real

MIXED = st.text(alphabet=st.sampled_from("aB1 \n,.'’-_é我喜欢电影，。！😀の\u00a0"), max_size=40)


@settings(deadline=None)
@given(MIXED, st.sampled_from(["en", "zh", "unknown"]))
def test_the_pieces_joined_are_the_text(text: str, language: str) -> None:
    assert "".join(pieces(text, language)) == text


@pytest.mark.parametrize("language", ["en", "zh"])
def test_real_texts_are_cut_without_loss(language: str) -> None:
    for row in real(language, 300):
        assert "".join(pieces(row["text"], language)) == row["text"]


def test_chinese_is_cut_by_its_dictionary_and_english_where_letters_end() -> None:
    assert pieces("这部电影不好看。", "zh") == ["这部", "电影", "不", "好看", "。"]
    assert pieces("It isn't well-made, no.", "en") == ["It", " ", "isn't", " ", "well-made", ",", " ", "no", "."]


def test_the_language_of_real_rows_is_told() -> None:
    for language, least in (("en", 0.97), ("zh", 1.0)):
        rows = [row["text"] for row in real(language, 300) if len(row["text"]) >= 40]
        right = sum(detect(text).language == language for text in rows)
        assert right / len(rows) >= least


def test_what_was_said_goes_before_what_is_detected() -> None:
    assert language_of("Bonjour tout le monde, comment allez-vous?", "en") == "en"
    assert language_of("Bonjour tout le monde, comment allez-vous?") == "fr"
    assert language_of("好看") == "zh"
    assert detect("  ").language == "unknown"
    assert not written_in_han("東京の天気はいいですね")
    assert detect("東京の天気はとてもいいですね").language == "ja"
