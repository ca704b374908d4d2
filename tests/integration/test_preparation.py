"""Steps through a real kernel: served again from the cache, prepared anew where something changed, in the lineage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_os.tasks.datasets.sentic_data import read, select
from llm_os.testing.place import Place

pytestmark = [pytest.mark.net, pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = """
import json, llm_os
from pathlib import Path

def prepared(copies):
    steps = ["clean", "deduplicate", ("augment", {"copies": copies, "lexicon": "own.csv"})]
    return llm_os.load_data("reviews.csv", steps=steps)

train, test = prepared(1)
again = prepared(1)[0]
other = prepared(2)[0]
Path("own.csv").write_text("film,motion picture\\n")
changed = prepared(1)[0]
model = llm_os.load_model("transformer")
encoded = train.prepare(("encode", {"model": model}))
model.train(encoded, epochs=1, early_stopping=False, max_length=64)
print(json.dumps({
    "digests": [part.digest for part in (train, again, other, changed)],
    "steps": [dict(step) for step in encoded.steps],
    "ids": encoded[0]["input_ids"][:1],
    "lineage": [dict(step) for step in model.lineage.preparation],
    "sizes": [len(train), len(other)],
}))
"""


@pytest.fixture
def home(tmp_path: Path, place: Place, stock: Callable[[str, Place], None]) -> Place:
    stock("transformer", place)
    rows = [row for row in select(read("en"), 2)[0] if '"' not in str(row["text"])][::130]
    lines = ["text,label", *(f'"{row["text"]}",{row["label"]}' for row in [*rows, *rows[:5]])]
    (tmp_path / "reviews.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "own.csv").write_text("film,movie\n")
    return place


def test_steps_are_cached_by_what_they_are_and_enter_the_lineage(home: Place) -> None:
    assert home.cli("up").returncode == 0
    done = home.script(SCRIPT)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    first, again, other, changed = said["digests"]
    assert first == again
    assert len({first, other, changed}) == 3
    jobs = json.loads(home.cli("jobs", "--json").stdout)
    cached = [job["cached"] for job in jobs if job["spec"]["task"] == "datasets/table"]
    assert sorted(cached) == [False, False, False, True]
    assert said["sizes"][0] < said["sizes"][1]
    names = [step["step"] for step in said["steps"]]
    assert names == ["clean", "deduplicate", "augment", "encode"]
    assert said["lineage"] == said["steps"]
    assert said["steps"][1]["rows_in"] - said["steps"][1]["rows_out"] >= 5
    assert said["steps"][2]["content"]["lexicon"]
    assert said["steps"][3]["options"]["model"] == "transformer@1"
    assert said["ids"] == [101]
    bad = home.cli("data", "reviews.csv", "--step", "claen")
    assert bad.returncode == 3
    assert "There is no step 'claen'. Did you mean 'clean'?" in " ".join(bad.stderr.split())
