"""Classes become equal, or nearly so, and the same seed draws the same rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_os import plugins
from llm_os.errors import DataError

from .stepping import Stepping, real


def skewed(tmp_path: Path) -> list[dict[str, object]]:
    rows = real("en", 400)
    return [row for i, row in enumerate(rows) if row["label"] == "positive" or i % 5 == 0]


def test_rare_rows_are_repeated_until_classes_are_equal(tmp_path: Path) -> None:
    rows, stepping = skewed(tmp_path), Stepping.at(tmp_path)
    made = stepping.run("balance", rows)
    before, after = (Counter(str(row["label"]) for row in some) for some in (rows, made))
    assert set(after.values()) == {max(before.values())}
    assert stepping.notes == {"repeated": sum(after.values()) - len(rows), "left out": 0}
    assert {str(row["text"]) for row in made} == {str(row["text"]) for row in rows}
    times = Counter(str(row["text"]) for row in made if row["label"] == "negative").values()
    assert max(times) - min(times) <= 1


def test_common_rows_are_left_out(tmp_path: Path) -> None:
    rows = skewed(tmp_path)
    made = Stepping.at(tmp_path).run("balance", rows, method="undersample", ratio=0.5)
    after = Counter(row["label"] for row in made)
    assert after["positive"] == 2 * after["negative"]
    assert after["negative"] == sum(row["label"] == "negative" for row in rows)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40), st.floats(0.1, 1), st.integers(0, 5))
def test_the_ratio_holds_and_the_seed_decides(tmp_path: Path, labels: list[str], ratio: float, seed: int) -> None:
    rows = [{"text": str(i), "label": label} for i, label in enumerate(labels)]
    for method in ("oversample", "undersample"):
        made = Stepping.at(tmp_path, seed=seed).run("balance", rows, method=method, ratio=ratio)
        sizes = Counter(row["label"] for row in made).values()
        assert {row["label"] for row in made} == set(labels)
        assert min(sizes) >= ratio * max(sizes) - (1 if method == "undersample" else 0)
        assert made == Stepping.at(tmp_path, seed=seed).run("balance", rows, method=method, ratio=ratio)


def test_data_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class in the column 'label'"):
        Stepping.at(tmp_path).run("balance", [{"text": "a", "label": 0.5}])


def test_training_rows_alone_are_changed() -> None:
    for name in ("balance", "augment", "word_vectors", "pack"):
        assert plugins.load("step", name).training_only
