"""Ids follow from the training rows alone, and the tokenizer on disk gives the same ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_os.errors import DataError, UnsupportedModelError
from llm_os.tasks.preparation.vocabulary import Vocabulary

from .stepping import Stepping, real, texts


def test_the_test_split_learns_no_word(tmp_path: Path) -> None:
    stepping = Stepping.at(tmp_path, "en")
    train = stepping.split("train").run("encode", texts("good film", "good book"), min_count=1)
    test = stepping.split("test").run("encode", texts("Good play"))
    assert (tmp_path / "encoding" / "vocabulary.txt").read_text() == "[PAD]\n[UNK]\ngood\nbook\nfilm\n"
    assert [row["input_ids"] for row in train] == [[2, 4], [2, 3]]
    assert test == [{"text": "Good play", "label": "a", "input_ids": [2, 1]}]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_transformers_reads_the_tokenizer_and_gives_the_same_ids(tmp_path: Path, language: str) -> None:
    from tokenizers import Tokenizer

    stepping = Stepping.at(tmp_path, language)
    rows = stepping.run("segment", real(language, 200))
    encoded = stepping.split("train").run("encode", rows, max_length=1000)
    tokenizer = Tokenizer.from_file(str(tmp_path / "encoding" / "tokenizer.json"))
    vocabulary = Vocabulary.load(tmp_path / "encoding")
    assert vocabulary is not None
    assert tokenizer.get_vocab_size() == len(vocabulary.words)
    for row in encoded:
        assert tokenizer.encode(row["text"]).ids == row["input_ids"]
    facts = json.loads((tmp_path / "encoding" / "encoding.json").read_text())
    assert facts == {"words": len(vocabulary.words), "lowercase": True, "pad": 0, "unknown": 1}


def test_ids_are_cut_and_counted(tmp_path: Path) -> None:
    stepping = Stepping.at(tmp_path).split("train")
    rows = stepping.run("encode", texts("a a a b", "a"), max_length=3, min_count=2)
    assert [row["input_ids"] for row in rows] == [[2, 2, 2], [2]]
    assert stepping.notes == {"ids": 4, "unknown": 0, "cut": 1}


def test_chinese_that_is_not_cut_into_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not cut into words"):
        Stepping.at(tmp_path).split("train").run("encode", real("zh", 50))


def test_rows_without_a_text_and_jobs_without_the_model_are_refused(tmp_path: Path) -> None:
    stepping = Stepping.at(tmp_path).split("train")
    with pytest.raises(DataError, match="no text to encode"):
        stepping.run("encode", [{"messages": []}])
    with pytest.raises(UnsupportedModelError, match="'smollm2' was not given"):
        stepping.run("encode", texts("a"), model="smollm2")
    with pytest.raises(UnsupportedModelError, match=r"has no tokenizer\.json"):
        Stepping.at(tmp_path, tokenizer=tmp_path).run("encode", texts("a"), model="smollm2")


def test_a_models_own_tokenizer_is_used(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    vocabulary = Vocabulary(["[PAD]", "[UNK]", "good", "film"], lowercase=True)
    vocabulary.save(tmp_path / "model")
    rows = Stepping.at(tmp_path, tokenizer=tmp_path / "model").run("encode", texts("Film good"), model="tiny@1")
    assert rows[0]["input_ids"] == [3, 2]
    assert (tmp_path / "encoding" / "tokenizer.json").exists()
