"""describe() and `llm-os data show` through a real kernel: what they say, what they write, and what they never show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_os.tasks.datasets.sentic_data import read, select
from llm_os.testing.place import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RAW = ("jane.doe@example.org", "+1 202-456-1414", "4111 1111 1111 1111", "078-05-1120")


class Searched(Place):
    """One whose every byte is looked at."""

    def kept(self) -> str:
        """All that the home keeps beside the data itself: state, logs, attempts, and what events and jobs say."""
        parts = [self.cli(*words).stdout for words in (("events", "--json", "--limit", "1000"), ("jobs", "--json"))]
        assert all(parts)
        for path in self.home.rglob("*"):
            if path.is_file() and "artifacts" not in path.relative_to(self.home).parts:
                parts.append(path.read_bytes().decode("utf-8", "replace"))
        return "".join(parts)

    def artifacts(self) -> str:
        files = [path for path in (self.home / "artifacts").rglob("*") if path.is_file()]
        return "".join(path.read_bytes().decode("utf-8", "replace") for path in files)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Searched]:
    place = Searched(tmp_path)
    assert place.cli("up").returncode == 0
    try:
        yield place
    finally:
        place.cli("down")


def said_by(place: Place, text: str) -> str:
    """What a script says, errors too; it must succeed."""
    done = place.script("import llm_os\n" + text)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def reviews(folder: Path) -> list[dict[str, Any]]:
    """Real texts, of which every tenth holds personal data."""
    rows, _ = select(read("en")[:600], 2)
    found = [{"text": str(row["text"]), "label": str(row["label"]), "empty": None} for row in rows[:400]]
    for number, row in enumerate(found[::10]):
        row["text"] = f"{row['text']} Ask {RAW[number % 4]}."
    (folder / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return found


def test_describe_gives_the_report_of_a_split_and_of_a_slice(place: Searched) -> None:
    said = said_by(
        place,
        "train, test = llm_os.load_data('sentic_data', limit=300)\n"
        "report = train.describe()\n"
        "print(report)\n"
        "assert report['rows'] == len(train) == report.quality.rows, report['rows']\n"
        "assert sum(report['classes'].values()) == len(train)\n"
        "assert len(report.suspicious) > 0 and report.suspicious[0].at.split == 'train'\n"
        "row = train[report.suspicious[0].at.row]\n"
        "assert row['label'] == report.suspicious[0].label, row\n"
        "assert row['text'][:20] == report.suspicious[0].excerpt[:20]\n"
        "paths = report.save_pictures('pictures')\n"
        "assert [path.name for path in paths] == ['classes.png', 'languages.png', 'lengths.png', 'report.png']\n"
        "part = train[10:60].describe(labels=False)\n"
        "assert (part['rows'], part.quality.start) == (50, 10)\n"
        "assert train.describe(full=False)['rows'] == len(train)\n"
        "assert train.describe().artifact == report.artifact\n"
        "assert train.describe(whole=True).quality.split == 'all'\n",
    )
    assert "Classes" in said
    assert (place.folder / "pictures" / "report.png").read_bytes().startswith(b"\x89PNG")
    jobs = json.loads(place.cli("jobs", "--json").stdout)
    reports = [job for job in jobs if job["spec"]["task"] == "datasets/report"]
    assert sorted(job["cached"] for job in reports) == [False, False, False, True]


def test_data_show_says_it_in_a_terminal_and_as_json(place: Searched) -> None:
    rows = reviews(place.folder)
    done = place.cli("data", "show", "reviews.jsonl", "--pictures", "pictures")
    assert done.returncode == 0, done.stderr
    assert f"reviews: {len(rows)} rows (train 320, test 80)" in done.stdout
    assert "Personal data: 40 rows" in done.stdout
    assert "Columns without a value: 'empty'." in done.stdout
    assert "█" in done.stdout
    assert (place.folder / "pictures" / "report.png").exists()
    told = json.loads(place.cli("data", "show", "reviews.jsonl", "--split", "test", "--json").stdout)
    assert (told["split"], told["rows"]) == ("test", 80)
    assert place.cli("data", "show", "reviews.jsonl", "--fail-on", "error").returncode == 0
    assert place.cli("data", "show", "reviews.jsonl", "--fail-on", "warning").returncode == 1
    leaky = "".join(json.dumps(row) + "\n" for row in rows[:30])
    (place.folder / "test.jsonl").write_text(leaky)
    shown = place.cli("data", "show", "reviews.jsonl", "--test", "test.jsonl", "--fail-on", "error")
    assert (shown.returncode, "Leaks: 30 of the training rows" in shown.stdout) == (1, True), (
        shown.stdout + shown.stderr
    )
    refused = place.cli("data", "show", "reviews.jsonl", "--test", "test.jsonl", "--leaks", "refuse")
    assert refused.returncode not in (0, 1)
    assert "30 training rows have an equal or nearly equal text in the test" in refused.stderr
    assert place.cli("data", "reviews.jsonl", "--json").returncode == 0, "the short form prepares"
    assert not [value for value in RAW if value in shown.stdout + refused.stderr + place.kept()]


def test_personal_data_stays_in_the_data_and_redaction_takes_it_out_of_there(place: Searched) -> None:
    reviews(place.folder)
    said = said_by(
        place,
        "train, _ = llm_os.load_data('reviews.jsonl', redact=True)\n"
        "print(train.describe(whole=True), train.describe(full=False), train._facts.meta['steps'])\n"
        "assert train.describe(whole=True).personal.rows == 0\n",
    )
    assert "'email': 10" in said
    assert not [value for value in RAW if value in said + place.kept() + place.artifacts()]
    said = said_by(
        place,
        "train, _ = llm_os.load_data('reviews.jsonl')\n"
        "report = train.describe(whole=True)\n"
        "print(report, report.to_dict())\n"
        "assert report.personal.rows == 40\n"
        "report.save('saved')\n",
    )
    saved = "".join(path.read_bytes().decode("utf-8", "replace") for path in (place.folder / "saved").iterdir())
    assert not [value for value in RAW if value in said + place.kept() + saved]
    assert RAW[0] in place.artifacts(), "the data that was not redacted is as it came"
