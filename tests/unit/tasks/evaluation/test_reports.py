"""A report holds what it says, its pictures are drawn, and two of them are compared row by row."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from reports import Bench, as_input, given, report, rows

from llm_os.client.evaluations import Comparison, Evaluation, comparison, evaluation, method_for
from llm_os.errors import DataError, InvalidInputError, UnsupportedModelError
from llm_os.spec.jobs import Job, JobSpec, JobState
from llm_os.spec.resources import Capacity
from llm_os.tasks.evaluation.compare import Compare, CompareOptions
from llm_os.tasks.evaluation.judging import read_metrics

GRANTED = Capacity(cpus=2, memory=2**33)


def job(result: dict[str, Any]) -> Job:
    spec = JobSpec(task="evaluation/classification")
    return Job(
        id="job-1",
        spec=spec,
        state=JobState.SUCCEEDED,
        session=None,
        result={**result, "artifact": "sha256:" + "0" * 64, "usage": {}},
        created_at=0.0,
    )


def judged(bench: Bench, version: str = "x@1") -> Evaluation:
    return evaluation(job(bench.result), version)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Bench]:
    root = tmp_path_factory.mktemp("reports")
    return report(root / "a", rows(400), 0.9), report(root / "b", rows(400), 0.7, "2")


def test_a_report_is_whole_and_says_the_same_everywhere(pair: tuple[Bench, Bench]) -> None:
    bench = pair[0]
    whole = json.loads((bench.output / "report.json").read_text())
    told = [json.loads(line) for line in (bench.output / "rows.jsonl").read_text().splitlines()]
    right = sum(row["true"] == row["said"] for row in told) / len(told)
    assert whole["accuracy"] == whole["metrics"]["accuracy"]["value"] == right
    assert read_metrics(bench.output)["accuracy"].value() == right
    low, high = whole["metrics"]["accuracy"]["low"], whole["metrics"]["accuracy"]["high"]
    assert low < right < high
    assert 0.03 < high - low < 0.09
    assert whole["slices"]["domain"]["movie"]["count"] + whole["slices"]["domain"]["tweet"]["count"] == 400
    assert bench.result["rows"] == whole["rows"]


def test_pictures_are_drawn(pair: tuple[Bench, Bench]) -> None:
    from PIL import Image

    for name in ("confusion.png", "reliability.png", "slices.png"):
        with Image.open(pair[0].output / name) as picture:
            shades = picture.convert("L").getextrema()
            assert min(picture.size) > 150
            assert shades[0] < 100 < 240 < shades[1]


def test_labels_that_no_font_can_draw_become_numbers() -> None:
    from llm_os.tasks.evaluation.pictures import fonts, shown, shown_lines

    assert shown(["good", "very long name of a class indeed"]) == ["good", "very long name of a c…"]
    if len(fonts()) == 1:
        assert shown(["好", "bad"]) == ["class 0", "bad"]
        assert shown_lines(["domain: 书"]) == ["domain: ?"]


def test_what_is_printed_keeps_its_form(pair: tuple[Bench, Bench]) -> None:
    found = judged(pair[0])
    assert str(found) == f"Model evaluation:\nAccuracy: {found.accuracy:.4f}\nLoss: {found.loss:.4f}"
    assert found.intervals["accuracy"][0] < found.accuracy < found.intervals["accuracy"][1]  # type: ignore[operator]
    assert found.ece == found.metrics["ece"] > 0
    assert found.f1 is not None
    assert found.f1["macro"] == pytest.approx(found.metrics["macro_f1"])
    json.dumps(found.to_dict())


def test_the_whole_description_shows_every_part(pair: tuple[Bench, Bench]) -> None:
    text = judged(pair[0]).describe()
    for part in ("Calibration error (ECE)", "95 % interval", "true \\ said", "macro", "domain", "BCa bootstrap", "█"):
        assert part in text


def compared(root: Path, a: Bench, b: Bench, **options: Any) -> Comparison:
    bench = Bench(root, {"a": as_input(a), "b": as_input(b)})
    task = Compare()
    facts = {role: folder.facts for role, folder in bench.context.inputs.items()}
    task.resources(CompareOptions(**options), facts, GRANTED)
    task.run(bench.context, CompareOptions(**options))
    return comparison(job(bench.result), judged(a, "x@2"), judged(b, "x@1"))


def test_a_clear_difference_is_a_sentence_that_names_the_better_side(tmp_path: Path, pair: tuple[Bench, Bench]) -> None:
    found = compared(tmp_path, *pair)
    assert found.better == "x@2"
    main = found.differences["accuracy"]
    assert main.test == "McNemar, exact"
    lines = str(found).splitlines()
    assert lines[0] == "A: x@2, B: x@1, 400 rows of made/test"
    points = f"{100 * main.difference:.0f}"
    assert lines[3].startswith(f"A is better by {points} points of accuracy (95 % interval ")
    assert lines[3].endswith("), p < 0.001 (McNemar, exact).")
    assert list(found.differences)[:2] == ["accuracy", "loss"]
    assert "Calibration error" in found.describe()


def test_like_models_are_not_told_apart(tmp_path: Path, pair: tuple[Bench, Bench]) -> None:
    found = compared(tmp_path, pair[0], pair[0], metrics=("accuracy",))
    assert found.better is None
    assert str(found).endswith("Both are alike in accuracy (95 % interval 0 to 0), p = 1.000 (McNemar, exact).")


def test_a_side_is_better_only_where_interval_and_test_agree(tmp_path: Path, pair: tuple[Bench, Bench]) -> None:
    five = report(tmp_path / "five", rows(400), 0.9, spoiled=5)
    main = compared(tmp_path / "few", pair[0], five, metrics=("accuracy",)).differences["accuracy"]
    assert main.low > 0
    assert main.p == pytest.approx(2 / 2**5)  # above 0.05: McNemar's test has five rows to go by
    assert main.better is None
    assert main.sentence("accuracy", 0.95).startswith("No difference is certain: A is ahead by 1.3 points of accuracy")
    ten = report(tmp_path / "ten", rows(400), 0.9, spoiled=10)
    assert compared(tmp_path / "more", pair[0], ten, metrics=("accuracy",)).better == "x@2"


def test_other_rows_and_other_kinds_are_refused(tmp_path: Path, pair: tuple[Bench, Bench]) -> None:
    other = report(tmp_path / "other", rows(300), 0.9)
    facts = {"a": as_input(pair[0]).facts, "b": as_input(other).facts}
    with pytest.raises(DataError, match="different rows"):
        Compare().resources(CompareOptions(), facts, GRANTED)
    changed = [{**row, "text": row["text"] + "."} for row in rows(400)]
    facts = {"a": as_input(pair[0]).facts, "b": as_input(report(tmp_path / "changed", changed, 0.9)).facts}
    with pytest.raises(DataError, match="different rows"):
        Compare().resources(CompareOptions(), facts, GRANTED)
    with pytest.raises(InvalidInputError, match="not a report"):
        Compare().resources(CompareOptions(), {**facts, "b": given(tmp_path, "model", {}, "1").facts}, GRANTED)


def test_how_a_model_is_judged_follows_from_model_and_data() -> None:
    assert method_for("text-classification", "classification") == "classification"
    with pytest.raises(UnsupportedModelError, match="no head") as caught:
        method_for("feature-extraction", "classification")
    assert "model.train" in caught.value.hint
    with pytest.raises(UnsupportedModelError, match="text-generation model cannot") as caught:
        method_for("text-generation", "tokens")
    assert "chat" in caught.value.hint
