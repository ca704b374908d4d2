"""Reports made on the spot, without a model: rows, probabilities, and the folder that `publish` fills."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from tiny import Bench, given

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.tasks.context import InputFolder
from llm_os.tasks.evaluation.classification import classified
from llm_os.tasks.evaluation.judging import EvaluationOptions, publish

LABELS = ["negative", "positive"]


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"text": f"text number {i} " * (1 + i % 20), "label": LABELS[i % 2], "domain": ("movie", "tweet")[i % 3 == 0]}
        for i in range(count)
    ]


def report(
    root: Path, judged: list[dict[str, Any]], skill: float, digit: str = "1", spoiled: int = 0, **options: Any
) -> Bench:
    """The evaluation of a classifier that is right with probability `skill`, but for `spoiled` rows it had right."""
    random = np.random.default_rng(int(100 * skill))
    true = np.array([LABELS.index(row["label"]) for row in judged])
    right = random.random(len(judged)) < skill
    right[np.flatnonzero(right)[:spoiled]] = False
    sure = 0.5 + 0.5 * random.random(len(judged))
    positive = np.where(right == (true == 1), sure, 1 - sure)
    inputs = {"model": given(root, "model", {}, digit), "data": given(root, "dataset", {"name": "made"}, "3")}
    bench = Bench(root, inputs)
    publish(
        bench.context, EvaluationOptions(**options), classified(judged, np.stack([1 - positive, positive], 1), LABELS)
    )
    return bench


def as_input(bench: Bench) -> InputFolder:
    """The report as the input of another task."""
    meta: Mapping[str, Any] = json.loads((bench.output / "artifact.json").read_text())["meta"]
    digest = "sha256:" + f"{abs(hash(bench.root)):064x}"[:64]
    facts = ArtifactFacts.model_validate({"digest": digest, "kind": "report", "size": 1, "meta": meta})
    return InputFolder(bench.output, facts)
