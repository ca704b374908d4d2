"""Nearly equal texts are found, stay on one side, and are refused where a given split parts them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_os import plugins
from llm_os.errors import LeakError
from llm_os.spec.attempts import Report
from llm_os.tasks.context import Context
from llm_os.tasks.datasets.sentic_data import read, select
from llm_os.tasks.preparation.near import groups, near_pairs, normal_form, shingles, similarity

STORY = "the old harbour lay quiet under a thin grey fog while gulls cried over the nets number"


def prepare(root: Path, task: str, **options: Any) -> tuple[dict[str, Any], list[str]]:
    reports: list[Report] = []
    for name in ("output", "checkpoints", "scratch"):
        (root / name).mkdir(parents=True)
    context = Context(
        inputs={},
        output=root / "output",
        checkpoints=root / "checkpoints",
        scratch=root / "scratch",
        on_report=reports.append,
    )
    plugin = plugins.load("task", task)
    plugin.run(context, plugin.Options.model_validate(options))
    meta = json.loads((root / "output" / "artifact.json").read_text())["meta"]
    return meta, [str(report.values["text"]) for report in reports if report.kind == "message"]


def rows(root: Path, split: str) -> list[dict[str, Any]]:
    text = (root / "output" / split / "rows.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_group_of_nearly_equal_real_texts_is_found(language: str) -> None:
    found, _ = select(read(language), 2)
    forms = [normal_form(str(row["text"])) for row in found[:300]]
    forms += [form[: len(form) // 2] + form[len(form) // 2 + 2 + i % 9 :] for i, form in enumerate(forms)]
    sets = [shingles(form) for form in forms]
    true = [(i, j, s) for j in range(len(sets)) for i in range(j) if (s := similarity(sets[i], sets[j])) >= 0.8]
    said = list(near_pairs(len(forms), forms.__getitem__, 0.8))
    assert {(i, j) for i, j, _ in said} <= {(i, j) for i, j, _ in true}
    assert len(true) > 100
    wanted, found_groups = groups(len(forms), iter(true)), groups(len(forms), iter(said))
    assert sum(a != b for a, b in zip(wanted, found_groups, strict=True)) <= 0.02 * len(true)
    assert len(said) == len(forms) - len(set(found_groups)), "each group is linked once"


def test_texts_of_one_template_take_a_pair_each_and_not_one_for_every_two() -> None:
    forms = [f"order {i} was delivered to the customer in good condition and nothing was broken" for i in range(3000)]
    pairs = list(near_pairs(len(forms), forms.__getitem__, 0.8))
    assert len(pairs) == 2999
    assert set(groups(len(forms), iter(pairs))) == {0}


def test_groups_follow_chains() -> None:
    assert list(groups(5, iter([(3, 4, 1.0), (1, 3, 1.0)]))) == [0, 1, 2, 1, 1]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_near_pair_of_the_shipped_data_is_on_both_sides(shipped: Callable[[str], Path], language: str) -> None:
    sides = [[normal_form(row["text"]) for row in rows(shipped(language), split)] for split in ("train", "test")]
    border, forms = len(sides[0]), [*sides[0], *sides[1]]
    pairs = list(near_pairs(len(forms), forms.__getitem__, 0.8))
    assert pairs
    assert not [pair for pair in pairs if (pair[0] < border) != (pair[1] < border)]


def written(path: Path, texts: list[str]) -> str:
    path.write_text("text,label\n" + "".join(f"{t},{'good' if i % 2 else 'bad'}\n" for i, t in enumerate(texts)))
    return str(path)


def test_a_leak_over_a_given_split_is_refused_dropped_or_kept_as_asked(tmp_path: Path) -> None:
    def words(n: int) -> str:
        return " ".join(str(n * 7919 + i * i) for i in range(12))

    train = written(tmp_path / "train.csv", [words(i) for i in range(20)] + [STORY + " 1"])
    test = written(tmp_path / "test.csv", [words(i) for i in range(100, 110)] + [STORY + " 2", words(3).upper()])
    with pytest.raises(LeakError, match=r"2 training rows .*'the old harbour.*\(training\) and 'the old harbour"):
        prepare(tmp_path / "a", "datasets/table", path=train, test=test)
    meta, _ = prepare(tmp_path / "b", "datasets/table", path=train, test=test, leaks="drop")
    assert (meta["splits"]["train"]["rows"], meta["splits"]["test"]["rows"]) == (19, 12)
    assert meta["left_out"] == {"training rows like a test row": 2}
    meta, _ = prepare(tmp_path / "c", "datasets/table", path=train, test=test, leaks="keep")
    assert meta["splits"]["train"]["rows"] == 21
    meta, _ = prepare(tmp_path / "d", "datasets/table", path=train, test=test, leaks="drop", near_duplicates=None)
    assert meta["splits"]["train"]["rows"] == 20
