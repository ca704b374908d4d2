"""Slices hold every row once, by columns, length and language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.errors import ColumnNotFoundError
from llm_os.tasks.evaluation.slices import by_script, divide, languages

ROWS = [{"text": "x" * (i * 7), "label": "a", "domain": ("movie", "tweet")[i % 2], "id": f"{i}"} for i in range(60)]
TEXTS = [row["text"] for row in ROWS]


def test_auto_takes_columns_with_few_values_and_length() -> None:
    found = divide(ROWS, TEXTS, ["auto"], ("text", "label"))
    assert list(found) == ["domain", "length"]
    assert found["domain"]["movie"] == list(range(0, 60, 2))
    assert list(found["length"]) == ["100 to 199 characters", "200 to 499 characters", "(other)"]


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ColumnNotFoundError, match="'domian'") as caught:
        divide(ROWS, TEXTS, ["domian"], ())
    assert "domain" in caught.value.hint


@given(st.lists(st.sampled_from(["a", "b", "c", "", "长"]), min_size=1, max_size=60), st.data())
def test_every_row_is_in_exactly_one_slice(values: list[str], data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text(max_size=300), min_size=len(values), max_size=len(values)))
    rows = [{"text": text, "group": value} for text, value in zip(texts, values, strict=True)]
    for parts in divide(rows, texts, ["group", "length"], ("text",)).values():
        assert sorted(index for part in parts.values() for index in part) == list(range(len(rows)))


def test_languages_are_told_apart() -> None:
    texts = [
        "运行有点慢，最好装个DOS",
        "a fine film with great actors",
        "これはとても良い本",
        "아주 좋은 영화",
        "§ 12",
    ]
    assert languages(texts) == ["zh", "en", "ja", "ko", "unknown"]
    assert by_script("ok 好") is not None
    assert by_script("this is mostly English 好") is None
