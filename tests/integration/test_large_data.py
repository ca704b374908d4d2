"""A file is prepared in memory that does not grow with it; a gigabyte of it is in benchmarks/data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from llm_os.tasks.datasets import sentic_data

SCRIPT = """
import resource, sys
from pathlib import Path
from llm_os import plugins
from llm_os.tasks.context import Context
folder = Path(sys.argv[1])
paths = {name: folder / name for name in ("output", "checkpoints", "scratch")}
for path in paths.values():
    path.mkdir()
task = plugins.load("task", "datasets/table")
task.run(Context(inputs={}, **paths), task.Options(path=sys.argv[2], near_duplicates=None))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(folder: Path, size: int) -> int:
    """Bytes resident at most while rows of about `size` bytes are prepared."""
    folder.mkdir()
    texts, _ = sentic_data.select(sentic_data.read("en"), 2)
    path, written, number = folder / "rows.jsonl", 0, 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            picked = [texts[(number * 7 + i) % len(texts)] for i in range(16)]
            row = {"text": f"{number} " + " ".join(str(one["text"]) for one in picked), "label": picked[0]["label"]}
            written += file.write(json.dumps(row) + "\n")
            number += 1
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(folder), str(path)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    splits = json.loads((folder / "output" / "artifact.json").read_text())["meta"]["splits"]
    assert sum(split["rows"] for split in splits.values()) == number
    return int(done.stdout.split()[-1]) * 1024


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    small, large = peak(tmp_path / "small", 2 * 2**20), peak(tmp_path / "large", 26 * 2**20)
    assert large - small < 8 * 2**20
