"""Packs hold every id of every text once, say where each begins, and leave labelled data alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_os.errors import DataError, InvalidOptionError
from llm_os.tasks.preparation.vocabulary import Vocabulary

from .stepping import Stepping, real, texts


@pytest.mark.parametrize("method", ["best_fit", "blocks"])
def test_every_real_text_is_in_a_pack_once(tmp_path: Path, method: str) -> None:
    stepping = Stepping.at(tmp_path, "en", kind="text").split("train")
    rows = stepping.run("encode", real("en", 300), max_length=1000)
    packed = stepping.run("pack", rows, length=64, method=method, window=100)
    assert all(len(row["input_ids"]) == row["boundaries"][-1] <= 64 for row in packed)
    assert sorted(i for row in packed for i in row["input_ids"]) == sorted(i for row in rows for i in row["input_ids"])
    assert stepping.notes["texts"] == 300
    assert stepping.notes["packs"] == len(packed) < 300
    if method == "best_fit":
        inside = {
            tuple(row["input_ids"][begin:end])
            for row in packed
            for begin, end in zip(row["boundaries"], row["boundaries"][1:], strict=False)
        }
        assert {tuple(row["input_ids"]) for row in rows if len(row["input_ids"]) <= 64} <= inside


def test_a_model_makes_the_ids_and_ends_each_text(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    Vocabulary(["[PAD]", "[UNK]", "a", "b"], lowercase=True).save(tmp_path / "model")
    stepping = Stepping.at(tmp_path, kind="text", tokenizer=tmp_path / "model")
    (row,) = stepping.run("pack", texts("a b", "b"), model="tiny@1", length=8, end_token="[PAD]")
    assert row == {
        "text": "[PAD]".join(["a b ", " b ", ""]).strip(),
        "input_ids": [2, 3, 0, 3, 0],
        "boundaries": [0, 3, 5],
    }
    with pytest.raises(InvalidOptionError, match="no token '<end>'"):
        stepping.run("pack", texts("a"), model="tiny@1", end_token="<end>")


def test_labelled_rows_and_rows_without_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'classification' cannot be packed"):
        Stepping.at(tmp_path).run("pack", texts("a"))
    with pytest.raises(DataError, match="no ids in the column 'input_ids'"):
        Stepping.at(tmp_path, kind="text").run("pack", texts("a"))


def test_what_packing_saved_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    stepping = Stepping.at(tmp_path, kind="text").split("train")
    stepping.bench.message = said.append
    rows = [{"text": "", "input_ids": [5] * size} for size in (2, 6, 3, 5, 8)]
    stepping.run("pack", rows, length=8)
    assert said == ["Packed 5 texts into 3 packs of 8: 0.0% is padding, against 40.0% with one text a row."]
