"""Copies differ from their rows by swapped, missing or exchanged words, and by nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from llm_os.errors import DataError
from llm_os.tasks.preparation.lexicons import from_wordnet
from llm_os.tasks.preparation.words import NEGATIONS, is_word, pieces

from .stepping import Stepping, real, texts

WORDNET = str(Path(__file__).parent / "data" / "wordnet")


def words(text: str, language: str = "en") -> Counter[str]:
    return Counter(piece for piece in pieces(text, language) if is_word(piece))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_real_row_stays_and_its_copy_follows(tmp_path: Path, language: str) -> None:
    rows, stepping = real(language, 150), Stepping.at(tmp_path, language)
    made = stepping.run("augment", rows, copies=2)
    assert [row for row in made if row in rows] == rows
    assert len(made) == len(rows) + stepping.notes["copies"]
    assert stepping.notes["copies"] > 1.5 * len(rows)
    assert Counter(row["label"] for row in made).keys() == Counter(row["label"] for row in rows).keys()


def test_swapping_keeps_the_words_and_deleting_takes_some(tmp_path: Path) -> None:
    rows, stepping = real("en", 100), Stepping.at(tmp_path, "en")
    source = ""
    for row in stepping.run("augment", rows, swap=0.3, delete=0):
        if row in rows:
            source = row["text"]
        assert words(row["text"]) == words(source)
    for row in stepping.run("augment", rows, swap=0, delete=0.3):
        if row in rows:
            source = row["text"]
        assert words(row["text"]) <= words(source)
        assert words(row["text"])


def test_negations_are_never_touched(tmp_path: Path) -> None:
    for language, text in (
        ("en", "It was not a good film and nobody liked the end"),
        ("zh", "这部电影不好看没有意思浪费时间"),
    ):
        made = Stepping.at(tmp_path, language).run("augment", texts(text), copies=8, swap=0, delete=0.9)
        kept = [Counter(w for w in words(row["text"], language) if w in NEGATIONS[language]) for row in made]
        assert len(made) > 3
        assert all(count == kept[0] for count in kept)


def test_synonyms_come_from_wordnet(tmp_path: Path) -> None:
    rows = texts("Buy a big movie quickly")
    (_, copy) = Stepping.at(tmp_path, "en").run("augment", rows, swap=0, delete=0, synonyms=1, lexicon=WORDNET)
    known = from_wordnet(Path(WORDNET))
    assert known["movie"][:2] == ["film", "picture"]
    assert known["big"] == ["large"]
    first, *rest = copy["text"].split(" ", 3)
    assert (first, rest[:2]) == ("Purchase", ["a", "large"])
    assert any(rest[2].startswith(other) for other in known["movie"])


def test_synonyms_come_from_a_file_or_the_options(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("好看,精彩\n电影\t影片\n", encoding="utf-8")
    for lexicon in (str(path), {"好看": ["精彩"], "电影": ["影片"]}):
        made = Stepping.at(tmp_path, "zh").run(
            "augment", texts("电影好看"), swap=0, delete=0, synonyms=1, lexicon=lexicon
        )
        assert made[1]["text"] == "影片精彩"


def test_what_is_no_lexicon_is_said(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("alone\n")
    for lexicon, said in (
        (str(tmp_path / "one.csv"), "no line with two words"),
        ("thesaurus", "no lexicon 'thesaurus'"),
    ):
        with pytest.raises(DataError, match=said):
            Stepping.at(tmp_path).run("augment", texts("a"), lexicon=lexicon)
    with pytest.raises(DataError, match="no WordNet in"):
        from_wordnet(tmp_path)


def test_the_same_seed_makes_the_same_copies_wherever_a_row_stands(tmp_path: Path) -> None:
    rows = real("en", 60)
    one = Stepping.at(tmp_path, "en").run("augment", rows)
    other = Stepping.at(tmp_path, "en").run("augment", rows[::-1])
    assert sorted(row["text"] for row in one) == sorted(row["text"] for row in other)
    assert one != Stepping.at(tmp_path, "en", seed=7).run("augment", rows)


def test_a_text_of_one_word_gets_no_copy(tmp_path: Path) -> None:
    stepping = Stepping.at(tmp_path, "en")
    assert stepping.run("augment", texts("Great!")) == texts("Great!")
    assert stepping.notes == {"copies that were not new": 1}
