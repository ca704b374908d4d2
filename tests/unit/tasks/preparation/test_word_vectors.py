"""Vectors lie where a model can read them, row by id, and know what the texts say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import load_file

from llm_os.errors import DataError
from llm_os.tasks.preparation.vocabulary import Vocabulary

from .stepping import Stepping, real, texts


def made(folder: Path) -> tuple[list[str], numpy.ndarray]:
    vocabulary = Vocabulary.load(folder / "encoding")
    assert vocabulary is not None
    return list(vocabulary.words), load_file(folder / "encoding" / "vectors.safetensors")["vectors"]


def test_word2vec_learns_from_the_texts_and_rows_pass(tmp_path: Path) -> None:
    rows, stepping = real("en", 1500), Stepping.at(tmp_path, "en")
    assert stepping.run("word_vectors", rows, size=16, epochs=2) == rows
    words, vectors = made(tmp_path)
    assert vectors.shape == (len(words), 16)
    assert vectors.dtype == numpy.float32
    assert not vectors[0].any()
    assert stepping.notes == {"words": len(words), "words with a vector": len(words) - 2}
    facts = json.loads((tmp_path / "encoding" / "encoding.json").read_text())
    assert facts["vectors"] == {"source": "word2vec", "size": 16, "known": len(words) - 2}


def test_the_same_seed_gives_the_same_vectors_in_chinese_too(tmp_path: Path) -> None:
    rows = Stepping.at(tmp_path).run("segment", real("zh", 200))
    digests = set()
    for name in ("one", "two"):
        Stepping.at(tmp_path / name, "zh").run("word_vectors", rows, size=8, epochs=1)
        digests.add(hashlib.sha256((tmp_path / name / "encoding" / "vectors.safetensors").read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("first", ["", "3 2\n"])
def test_a_file_gives_the_vectors_of_the_words_it_knows(tmp_path: Path, first: str) -> None:
    (tmp_path / "v.txt").write_text(f"{first}good 1 2\nfilm 3 4\nelsewhere 5 6\n")
    Stepping.at(tmp_path).run("word_vectors", texts("Good film", "odd"), min_count=1, source=str(tmp_path / "v.txt"))
    words, vectors = made(tmp_path)
    assert words == ["[PAD]", "[UNK]", "film", "good", "odd"]
    assert vectors[3].tolist() == [1, 2]
    assert vectors[2].tolist() == [3, 4]


def test_encoding_uses_the_vocabulary_of_the_vectors(tmp_path: Path) -> None:
    stepping = Stepping.at(tmp_path).split("train")
    rows = stepping.run("word_vectors", texts("b a", "b"), min_count=1, size=4)
    encoded = stepping.run("encode", rows, min_count=2)
    assert [row["input_ids"] for row in encoded] == [[2, 3], [2]]


def test_bad_vectors_are_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("good 1 2\nfilm 3\n")
    with pytest.raises(DataError, match=r"Line 2 of 'v\.txt' has 1 numbers, those before have 2"):
        Stepping.at(tmp_path).run("word_vectors", texts("good"), min_count=1, source=str(tmp_path / "v.txt"))
    with pytest.raises(DataError, match="no word vectors"):
        Stepping.at(tmp_path).run("word_vectors", texts("good"), min_count=1, source="fasttext")
    (tmp_path / "w.txt").write_text("other 1 2\n")
    with pytest.raises(DataError, match="None of the words has a vector"):
        Stepping.at(tmp_path).run("word_vectors", texts("good"), min_count=1, source=str(tmp_path / "w.txt"))
