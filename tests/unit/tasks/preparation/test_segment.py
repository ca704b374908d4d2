"""Words stand apart, in Chinese too, and none is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from .stepping import Stepping, real, texts


def test_chinese_words_are_parted_and_english_ones_lose_their_commas(tmp_path: Path) -> None:
    rows = Stepping.at(tmp_path).run("segment", texts("这部电影不好看。", "Not good, really."))
    assert [row["text"] for row in rows] == ["这部 电影 不 好看 。", "Not good , really ."]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_real_rows_keep_every_sign(tmp_path: Path, language: str) -> None:
    rows = real(language, 300)
    segmented = Stepping.at(tmp_path, language).run("segment", rows)
    for before, after in zip(rows, segmented, strict=True):
        assert "".join(after["text"].split()) == "".join(before["text"].split())
        assert after["label"] == before["label"]


def test_punctuation_and_capitals_go_where_asked(tmp_path: Path) -> None:
    stepping = Stepping.at(tmp_path, "en")
    rows = stepping.run("segment", texts("Not GOOD, really.", "?!"), punctuation=False, lowercase=True)
    assert [row["text"] for row in rows] == ["not good really", "? !"]


def test_words_can_go_into_a_column_of_their_own(tmp_path: Path) -> None:
    rows = Stepping.at(tmp_path, "zh").run("segment", texts("不好看"), column="words")
    assert rows == [{"text": "不好看", "label": "a", "words": ["不", "好看"]}]
