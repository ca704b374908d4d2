"""Models from scratch beside a pre-trained one and TF-IDF, on one small slice of sentic_data English.

Run: python benchmarks/architectures/measure.py [--seeds 3] [--rows 4000] [--cache FOLDER]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from llm_os import plugins
from llm_os.models import sources
from llm_os.models.load import load_classifier
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.tasks.context import Context, InputFolder
from llm_os.tasks.training.batches import read_rows

NEW: dict[str, dict[str, Any]] = {
    "lstm": {"layers": 1, "width": 128},
    "gru": {"layers": 1, "width": 128},
    "transformer_encoder": {"layers": 2, "width": 128, "heads": 4},
}
EPOCHS = {"transformer": 3}
"""Most epochs; the others get 8. Early stopping decides."""


def context(root: Path, inputs: dict[str, InputFolder]) -> Context:
    """A context in folders of its own below `root`; no kernel."""
    folders = {name: root / name for name in ("output", "checkpoints", "scratch")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    return Context(inputs=inputs, threads=1, **folders)


def given(folder: Path, kind: str, meta: dict[str, Any], digit: str) -> InputFolder:
    facts = ArtifactFacts.model_validate({"digest": "sha256:" + digit * 64, "kind": kind, "size": 10**8, "meta": meta})
    return InputFolder(folder, facts)


def made(root: Path, task: str, output: str, inputs: dict[str, InputFolder], digit: str, **options: Any) -> InputFolder:
    """What a task put into its output folder."""
    found = plugins.load("task", task)
    found.run(context(root, inputs), found.Options.model_validate(options))
    meta = json.loads((root / "output" / "artifact.json").read_text())["meta"]
    return given(root / "output", output, meta, digit)


def accuracy(model: InputFolder, rows: list[dict[str, Any]]) -> float:
    classifier = load_classifier(model.path)
    said = [classifier.chosen(sure)[0] for sure in classifier.predict([str(row["text"]) for row in rows], 64)]
    return sum(one == row["label"] for one, row in zip(said, rows, strict=True)) / len(rows)


def tfidf(train: list[dict[str, Any]], test: list[dict[str, Any]]) -> float:
    """The peer of issue 3: word 1- and 2-grams, min_df 2, sublinear, logistic regression with C=4."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    reader = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    judge = LogisticRegression(C=4, max_iter=1000)
    judge.fit(reader.fit_transform([r["text"] for r in train]), [r["label"] for r in train])
    return float(judge.score(reader.transform([r["text"] for r in test]), [r["label"] for r in test]))


def run(root: Path, name: str, seed: int, data: InputFolder, pretrained: InputFolder) -> tuple[float, float, int]:
    """(accuracy, seconds of training, parameters) of one model with one seed."""
    model = pretrained
    if name in NEW:
        options = {"architecture": name, "vocabulary": 4000, "context": 64, "seed": seed, **NEW[name]}
        model = made(root / "new", "sources/new", "model", {"data": data}, "3", **options)
    begun = time.perf_counter()
    options = {"epochs": EPOCHS.get(name, 8), "seed": seed, "max_length": 64, "precision": "fp32"}
    tuned = made(root / "run", "training/full", "model", {"model": model, "data": data}, "4", **options)
    seconds = time.perf_counter() - begun
    rows = read_rows(data.path, "test")
    return accuracy(tuned, rows), seconds, int(str(tuned.facts.meta["parameters"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=[*NEW, "transformer"], choices=[*NEW, "transformer"])
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--cache", type=Path, help="folder of the fetched model `transformer`")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = made(root / "data", "datasets/sentic_data", "dataset", {}, "1", limit=asked.rows, test_size=0.5)
        fetched = asked.cache or root / "transformer"
        if not fetched.exists():
            fetched.mkdir()
            sources.fetch("transformer", fetched)
        from llm_os.models.formats import inspect

        pretrained = given(fetched, "model", dict(inspect(fetched)), "2")
        train, test = (read_rows(data.path, split) for split in ("train", "test"))
        print(f"{len(train)} training texts, {len(test)} test texts; TF-IDF {tfidf(train, test):.4f}", flush=True)
        seen: dict[str, list[tuple[float, float, int]]] = {name: [] for name in asked.models}
        for seed in range(asked.seeds):  # interleaved, so that what else runs on the machine hits all alike
            for name, results in seen.items():
                results.append(run(root / f"{name}-{seed}", name, seed, data, pretrained))
                print(f"seed {seed} {name}: {results[-1][0]:.4f} in {results[-1][1]:.0f} s", flush=True)
        for name, results in seen.items():
            scores = [score for score, _, _ in results]
            spread = f"{min(scores):.4f} to {max(scores):.4f}"
            seconds = statistics.median(s for _, s, _ in results)
            print(f"| {name} | {results[0][2]:,} | {statistics.median(scores):.4f} | {spread} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
