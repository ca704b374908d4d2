"""`model.train(data)` through a real kernel: the method is chosen and said, and the history is exported afterwards."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "tasks" / "training"))
from tiny import sentences, tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = """
import sys, llm_os
folder = sys.argv[1]
model = llm_os.load_model(folder + "/model")
data, _ = llm_os.load_data(folder + "/data.csv", text="text", label="label")
job = model.train(data, epochs=1, batch_size=8, precision="fp32", background=True, name="mood")
result = job.wait()
print(job.why())
print([c["message"] for c in job._fetch().model_dump()["conditions"] if c["kind"] == "chosen"][0])
print(model.export_history("csv", folder + "/runs"))
print(model.export_history("tensorboard", folder + "/logs"))
print(model.curves(folder + "/curve.png"))
try:
    model.train(data, rnak=3)
except llm_os.errors.InvalidOptionError as error:
    print(error)
try:
    llm_os.load_model(folder + "/model").export_history("csv", folder + "/none")
except llm_os.errors.NotFoundError as error:
    print(error)
"""


def test_the_method_is_chosen_and_the_history_exported(tmp_path: Path, home: dict[str, str]) -> None:
    tiny_model(tmp_path / "model")
    with (tmp_path / "data.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["text", "label"])
        table.writeheader()
        table.writerows({**row, "text": f"{row['text']} {'very ' * (n // 24)}"} for n, row in enumerate(sentences(120)))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, env=home, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    _, chosen, table_folder, events, picture, unknown, foreign = done.stdout.strip().splitlines()
    assert chosen.startswith("method full: it needs ")
    assert "are granted" in chosen
    assert chosen in done.stderr  # said to whoever waits
    with (Path(table_folder) / "history.csv").open() as file:
        (epoch,) = csv.DictReader(file)
    assert float(epoch["loss"]) > 0
    assert Path(table_folder).name == "mood@1"
    assert any(file.name.startswith("events.out.tfevents") for file in Path(events).iterdir())
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    assert "no option 'rnak'" in unknown
    assert "Did you mean 'rank'" in unknown
    assert "was not trained here" in foreign
