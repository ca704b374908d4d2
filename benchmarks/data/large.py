"""Prepares a file larger than the memory it may take, and says how much it took.

    python benchmarks/data/large.py --gib 1

The rows are real: rated texts of sentic_data, some joined to one, each with a number so that no two are equal.
The limit beside it: reading the same file line by line as JSON, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llm_os import plugins
from llm_os.tasks.context import Context
from llm_os.tasks.datasets import sentic_data

JOINED = 8
"""Texts a row: about 1,000 characters."""


def write(path: Path, size: int) -> int:
    """JSON lines of about `size` bytes; how many."""
    texts, _ = sentic_data.select(sentic_data.read("en"), 2)
    shuffle = random.Random(1)
    count = written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            chosen = shuffle.sample(texts, JOINED)
            row = {"text": " ".join(str(one["text"]) for one in chosen) + f" {count}", "label": chosen[0]["label"]}
            written += file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def prepare(path: Path, folder: Path) -> None:
    for name in ("output", "checkpoints", "scratch"):
        (folder / name).mkdir()
    context = Context(
        inputs={}, output=folder / "output", checkpoints=folder / "checkpoints", scratch=folder / "scratch"
    )
    task = plugins.load("task", "datasets/table")
    task.run(context, task.Options(path=str(path)))


def read(path: Path) -> None:
    with path.open("rb") as file:
        for line in file:
            json.loads(line)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--one", choices=["prepare", "read"], help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory(dir=options.path.parent) as folder:
            begun = time.perf_counter()
            prepare(options.path, Path(folder)) if options.one == "prepare" else read(options.path)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(json.dumps({"seconds": time.perf_counter() - begun, "peak": peak}))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        count = write(path, int(options.gib * 2**30))
        print(f"{count:,} rows, {path.stat().st_size / 2**30:.2f} GiB")
        for one in ("read", "prepare"):
            command = [sys.executable, __file__, "--one", one, "--path", str(path)]
            seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            print(f"{one:<8} {seen['seconds']:6.0f} s, peak {seen['peak'] / 2**20:6.0f} MiB")


if __name__ == "__main__":
    main()
