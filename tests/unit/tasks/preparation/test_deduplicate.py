"""Of equal and nearly equal texts one row stays."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_os.tasks.preparation.near import normal_form
from llm_os.tasks.preparation.step import GIVEN

from .stepping import Stepping, real, texts

LONG = "The plot is thin, the actors are tired, and the music never stops for a moment."


def test_equal_texts_go_whatever_their_case_and_spaces(tmp_path: Path) -> None:
    stepping = Stepping.at(tmp_path)
    rows = stepping.run("deduplicate", texts("A good film", "a  GOOD film", "A bad film"), threshold=None)
    assert [row["text"] for row in rows] == ["A good film", "A bad film"]
    assert stepping.notes["equal"] == 1


def test_nearly_equal_texts_go_at_the_threshold(tmp_path: Path) -> None:
    stepping = Stepping.at(tmp_path)
    given_rows = texts(LONG, LONG.replace("tired", "weary"), "Something else altogether, with other words in it.")
    assert len(stepping.run("deduplicate", given_rows, threshold=0.7)) == 2
    assert stepping.notes["nearly equal"] == 1
    assert len(stepping.run("deduplicate", given_rows, threshold=1)) == 3


def test_real_rows_with_copies_come_back_without_them(tmp_path: Path) -> None:
    for language in ("en", "zh"):
        rows = Stepping.at(tmp_path).run("deduplicate", real(language, 400))
        again = Stepping.at(tmp_path).run("deduplicate", [*rows, *rows[::3], *rows[::5]])
        assert again == rows


def test_conflicting_labels_drop_all_where_asked(tmp_path: Path) -> None:
    stepping = Stepping.at(tmp_path)
    rows = [{"text": "so so", "label": "good"}, {"text": "So so", "label": "bad"}, {"text": "fine", "label": "good"}]
    assert [row["text"] for row in stepping.run("deduplicate", rows, conflicts="drop")] == ["fine"]
    assert stepping.notes["conflicting labels"] == 1
    assert [row["label"] for row in stepping.run("deduplicate", rows)] == ["good", "good"]


def test_a_row_of_a_given_test_goes_before_training_rows(tmp_path: Path) -> None:
    rows = [{"text": "so so", "label": "a", GIVEN: "train"}, {"text": "so so", "label": "a", GIVEN: "test"}]
    assert [row[GIVEN] for row in Stepping.at(tmp_path).run("deduplicate", rows)] == ["test"]


def test_too_many_texts_are_compared_by_equality_only(tmp_path: Path) -> None:
    rows = texts(LONG, LONG.replace("tired", "weary"), LONG)
    assert len(Stepping.at(tmp_path).run("deduplicate", rows, threshold=0.7, most_texts=1)) == 2


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(alphabet="ab ", max_size=4), max_size=30))
def test_first_rows_stay_in_their_order(tmp_path: Path, words: list[str]) -> None:
    rows = Stepping.at(tmp_path).run("deduplicate", texts(*words), threshold=None)
    first: dict[str, str] = {}
    for word in words:
        first.setdefault(normal_form(word), word)
    assert [row["text"] for row in rows] == list(first.values())
    assert not list((tmp_path / "scratch").iterdir())
