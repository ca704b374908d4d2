"""Stop words go; negations, and texts of nothing else, stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_os.errors import DataError

from .stepping import Stepping, real, texts


@pytest.mark.parametrize(
    ("language", "before", "after"),
    [
        ("en", "It is not one of the films I wanted to watch.", "not films watch."),
        ("en", "I didn’t watch the film, it was dull.", "didn’t watch film, dull."),
        ("en", "I enjoy it.  They did (too)!", "enjoy. ()!"),
        ("zh", "这部电影的音乐不好听", "这部电影音乐不好听"),
        ("zh", "电影 的 音乐 不 好听", "电影 音乐 不 好听"),
        ("unknown", "The music of the film", "music film"),
    ],
)
def test_stop_words_go_and_negations_stay(tmp_path: Path, language: str, before: str, after: str) -> None:
    assert Stepping.at(tmp_path, language).run("stop_words", texts(before)) == texts(after)


def test_a_text_of_stop_words_alone_stays(tmp_path: Path) -> None:
    stepping = Stepping.at(tmp_path, "en")
    assert stepping.run("stop_words", texts("it is what it was")) == texts("it is what it was")
    assert stepping.notes["only stop words"] == 1


def test_own_words_join_the_list_or_leave_it(tmp_path: Path) -> None:
    stepping = Stepping.at(tmp_path, "en")
    rows = stepping.run("stop_words", texts("The Film was not dull"), add=["film"], keep=["was"], negations=False)
    assert rows == texts("was dull")


def test_a_language_without_a_list_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no list of stop words for the language 'xx'"):
        Stepping.at(tmp_path, "xx").run("stop_words", texts("a"))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_real_rows_become_shorter_and_none_is_lost(tmp_path: Path, language: str) -> None:
    rows = real(language, 300)
    filtered = Stepping.at(tmp_path, language).run("stop_words", rows)
    assert len(filtered) == len(rows)
    assert all(row["text"].strip() for row in filtered)
    assert sum(len(row["text"]) for row in filtered) < 0.9 * sum(len(row["text"]) for row in rows)
