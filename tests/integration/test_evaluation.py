"""Train, judge, compare and hand out through a real kernel, with a model small enough to be made on the spot."""

from __future__ import annotations

import csv
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_os.testing.place import Place

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "tasks" / "training"))
from tiny import WORDS, tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Judged(Place):
    """A home with a kernel that stays, a tiny model and a table of reviews of two domains."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, more={"OMP_NUM_THREADS": "1"})
        tiny_model(folder / "tiny")
        self.data = folder / "reviews.csv"
        with self.data.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label", "domain"])
            writer.writerows(reviews(700))


def reviews(count: int) -> Iterator[tuple[str, str, str]]:
    """Texts whose label follows from one word; in tweets one in four labels is wrong."""
    draw = random.Random(1)
    seen = set()
    while len(seen) < count:
        word = draw.choice(WORDS[:6])
        others = [draw.choice(WORDS[6:]) for _ in range(draw.randint(4, 12))]
        text = " ".join([*others[:2], word, *others[2:]])
        if text in seen:
            continue
        seen.add(text)
        domain = draw.choice(["film", "tweet"])
        good = (word in WORDS[:3]) != (domain == "tweet" and draw.random() < 0.25)
        yield text, "positive" if good else "negative", domain


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    place = Judged(tmp_path_factory.mktemp("place"))
    place.said("up")
    try:
        for epochs in ("1", "6"):
            place.said(
                *("train", str(place.folder / "tiny"), str(place.data), "--epochs", epochs),
                *("--name", f"tuned-{epochs}"),
                *("--option", "learning_rate=0.003", "--option", "early_stopping=false"),
            )
        yield place
    finally:
        place.said("down")


def test_two_versions_are_compared_and_evaluations_reused(place: Judged) -> None:
    said = place.said("evaluate", "tuned-6", str(place.data), "--against", "tuned-1")
    lines = said.splitlines()
    assert lines[0].startswith("A: tuned-6@1, B: tuned-1@1, 140 rows of reviews/test")
    assert "points of accuracy (95 % interval" in said
    assert "(McNemar, exact)." in said
    before = [job for job in place.told("jobs", "--limit", "100") if job["spec"]["task"].startswith("evaluation/")]
    again = place.said("evaluate", "tuned-6", str(place.data), "--against", "tuned-1")
    after = [job for job in place.told("jobs", "--limit", "100") if job["spec"]["task"].startswith("evaluation/")]
    assert again == said
    assert len(after) == len(before) + 3
    assert all(job["cached"] for job in after[:3])


def test_the_print_form_stays_and_the_rest_is_there(place: Judged) -> None:
    script = f"""
import llm_os
model = llm_os.load_model("tuned-6")
_, test = llm_os.load_data({str(place.data)!r})
found = model.evaluate(test, slices=["domain"])
print(found.accuracy, found.intervals["accuracy"], found.ece, list(found.slices["domain"]))
print(found.save({str(place.folder / "report")!r}))
other = model.evaluate(test[:50])
"""
    done = place.script(script)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Model evaluation:"
    assert lines[1].startswith("Accuracy: 0.")
    assert lines[2].startswith("Loss: ")
    files = {path.name for path in (place.folder / "report").iterdir()}
    assert {"report.json", "rows.jsonl", "statistics.npz", "confusion.png", "reliability.png", "slices.png"} <= files
    report = json.loads((place.folder / "report" / "report.json").read_text())
    assert set(report["slices"]) == {"domain"}
    assert sum(part["count"] for part in report["slices"]["domain"].values()) == 140


def test_what_cannot_be_compared_or_sliced_is_refused_with_a_cure(place: Judged) -> None:
    words = ("evaluate", "tuned-6", str(place.data))
    done = place.cli(*words, "--slice", "domian")
    assert done.returncode != 0
    assert "There is no column 'domian'" in done.stderr
    assert "Did you mean 'domain'?" in done.stderr
    done = place.cli(*words, "--option", "resample=5")
    assert "has no option 'resample'" in done.stderr


def test_the_card_is_made_of_what_was_recorded(place: Judged) -> None:
    import yaml
    from huggingface_hub.repocard_data import ModelCardData, model_index_to_eval_results

    place.said("evaluate", "tuned-6", str(place.data), "--against", "tuned-1")
    place.said("models", "card", "tuned-6", "--output", str(place.folder / "CARD.md"))
    text = (place.folder / "CARD.md").read_text()
    facts = place.told("models", "card", "tuned-6")
    judged = place.told("evaluate", "tuned-6", str(place.data))
    (front,) = (part for part in text.split("---\n")[1:2])
    known = yaml.safe_load(front)
    name, results = model_index_to_eval_results(known["model-index"])
    assert name == "tuned-6@1"
    found = [one.metric_value for one in results if one.metric_type == "accuracy"]  # other tests judge slices, too
    assert any(accuracy == pytest.approx(judged["accuracy"], abs=1e-6) for accuracy in found)
    assert ModelCardData(**known).base_model == "tiny@1"
    assert facts["training"]["options"]["epochs"] == 6
    assert len(facts["training"]["history"]) == 6
    assert facts["data"]["data"]["splits"]["test"]["rows"] == 140
    against = [other for one in facts["evaluations"] for other in one["comparisons"]]
    assert against[0]["against"] == "tuned-1@1"
    assert re.search(r"Against tuned-1@1: accuracy \+0\.\d+ \(.*\), p < 0\.001 \(McNemar, exact\); certain\.", text)
    assert "held out from the data it was trained on" in text
    assert "licence of its weights is not stated" in text
    assert sum(line.startswith("On reviews/test it is worse where domain is tweet") for line in facts["limits"]) == 1
    assert str(place.folder) not in text
    base = place.said("models", "card", "tiny")
    assert "It has not been evaluated here" in base
    assert "## Training" not in base


def test_versions_are_listed_and_shown_as_before(place: Judged) -> None:
    assert place.told("models", "tuned-6")["lineage"]["task"] == "training/full"
    assert {version["card"] for version in place.told("models")} == {"tiny", "tuned-1", "tuned-6"}
