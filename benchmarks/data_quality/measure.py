"""What the quality report costs, and how many planted faults of labels and texts it finds; peer: cleanlab.

    python benchmarks/data_quality/measure.py [--rounds 5] [--languages en zh] [--json]

The peer is asked for only here (`pip install cleanlab==2.9.0 termcolor`); where it is not installed it is left out.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh")
SHARE = 0.05
"""Of the labels that are turned round."""


def context(root: Path, inputs: dict[str, Any]) -> Any:
    from llm_os.tasks.context import Context

    for name in ("output", "checkpoints", "scratch"):
        (root / name).mkdir(parents=True)
    return Context(inputs=inputs, output=root / "output", checkpoints=root / "checkpoints", scratch=root / "scratch")


def prepare(language: str, root: Path) -> Any:
    """The whole of sentic_data, as `load_data` prepares it."""
    from llm_os import plugins
    from llm_os.spec.artifacts import ArtifactFacts
    from llm_os.tasks.context import InputFolder

    task = plugins.load("task", "datasets/sentic_data")
    task.run(context(root, {}), task.Options(language=language))
    meta = json.loads((root / "output" / "artifact.json").read_text())["meta"]
    facts = ArtifactFacts(digest="sha256:" + "0" * 64, kind="dataset", size=1, meta=meta)
    return InputFolder(root / "output", facts)


def one_report(folder: Path, options: dict[str, Any]) -> None:
    """Run in a process of its own, so that its peak memory is that of a report and of nothing else."""
    from llm_os import plugins
    from llm_os.spec.artifacts import ArtifactFacts
    from llm_os.tasks.context import InputFolder

    meta = json.loads((folder / "artifact.json").read_text())["meta"]
    data = InputFolder(folder, ArtifactFacts(digest="sha256:" + "0" * 64, kind="dataset", size=1, meta=meta))
    task = plugins.load("task", "datasets/report")
    with tempfile.TemporaryDirectory() as root:
        begun, cpu = time.perf_counter(), time.process_time()
        task.run(context(Path(root) / "run", {"data": data}), task.Options(**options))
        used = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu, "memory": peak_memory()}
        print(json.dumps(used))


def peak_memory() -> int:
    """Bytes of this program. Not `ru_maxrss`, which begins with what the parent had before the program was loaded."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status does not say VmHWM")


def costs(folder: Path, rounds: int) -> dict[str, Any]:
    """Medians over rounds, of the whole report and of the one without a look at labels, in turn."""
    found: dict[str, list[dict[str, float]]] = {"whole": [], "without labels": []}
    given = ({}, {"labels": False})
    for _ in range(rounds):
        for name, options in zip(found, given, strict=True):
            command = [sys.executable, __file__, "--one", str(folder), json.dumps(options)]
            found[name].append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return {
        name: {
            what: {"median": statistics.median(values), "low": min(values), "high": max(values)}
            for what in ("seconds", "cpu", "memory")
            for values in [[one[what] for one in runs]]
        }
        for name, runs in found.items()
    }


def turned(rows: list[dict[str, Any]], seed: int) -> tuple[list[str], set[int]]:
    """Labels of which a share is turned round, and which."""
    wrong = set(random.Random(seed).sample(range(len(rows)), round(SHARE * len(rows))))
    other = {"positive": "negative", "negative": "positive"}
    return [other[row["label"]] if i in wrong else row["label"] for i, row in enumerate(rows)], wrong


def figures(order: list[int], wrong: set[int]) -> dict[str, float]:
    """Of a ranking of the flagged rows, most doubtful first."""
    k = len(wrong)
    return {
        "flagged": len(order),
        "recall of flagged": len(wrong & set(order)) / k,
        "precision of flagged": len(wrong & set(order)) / max(1, len(order)),
        "recall at k": len(wrong & set(order[:k])) / k,
        "precision of the first 100": len(wrong & set(order[:100])) / 100,
    }


def planted(data: Any, seeds: int) -> dict[str, Any]:
    """Recall of wrong labels, ours and the peer's, on the same out-of-sample probabilities."""
    import numpy

    from llm_os.spec.quality import RowRef
    from llm_os.tasks.quality import labels

    lines = [line for split in ("train", "test") for line in (data.path / split / "rows.jsonl").open(encoding="utf-8")]
    rows = [json.loads(line) for line in lines]
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "cleanlab": []}
    for seed in range(seeds):
        given, wrong = turned(rows, seed)
        sheet = labels.Sheet()
        for number, (row, label) in enumerate(zip(rows, given, strict=True)):
            sheet.add(RowRef(split="train", row=number), row["text"], label, "", row["text"])
        doubts = labels.classes(sheet, len(rows), lambda _step, _total: None)
        assert doubts is not None
        runs["ours"].append(figures([doubt.at.row for doubt in doubts.rows], wrong))
        ids = numpy.asarray([int(label == "positive") for label in given])
        features, _ = labels.vectors([row["text"] for row in rows])
        chances = labels.probabilities(features, ids, sheet.unit, 2, lambda _step, _total: None)
        order = peer(ids, chances)
        if order is not None:
            runs["cleanlab"].append(figures(order, wrong))
    return {
        name: {figure: statistics.median(one[figure] for one in found) for figure in found[0]}
        for name, found in runs.items()
        if found
    }


def peer(ids: Any, chances: Any) -> list[int] | None:
    """Rows that cleanlab flags by its default (prune by noise rate), ranked by its normalised margin."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from cleanlab.filter import find_label_issues
    except ImportError:
        return None
    return [int(i) for i in find_label_issues(ids, chances, return_indices_ranked_by="normalized_margin", n_jobs=1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--languages", nargs="+", default=LANGUAGES, choices=LANGUAGES)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "OPTIONS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one_report(Path(given.one[0]), json.loads(given.one[1]))
        return
    found: dict[str, Any] = {}
    for language in given.languages:
        with tempfile.TemporaryDirectory() as root:
            data = prepare(language, Path(root) / "data")
            found[language] = {"labels": planted(data, given.rounds), "cost": costs(data.path, given.rounds)}
    if given.json:
        print(json.dumps(found, indent=1))
        return
    for language, parts in found.items():
        for name, cost in parts["cost"].items():
            shown = ", ".join(f"{w} {c['median']:,.1f} ({c['low']:,.1f} to {c['high']:,.1f})" for w, c in cost.items())
            print(f"{language} {name}: {shown}")
        for name, found_figures in parts["labels"].items():
            print(
                f"{language} {name}: " + ", ".join(f"{figure} {value:.3f}" for figure, value in found_figures.items())
            )


if __name__ == "__main__":
    main()
