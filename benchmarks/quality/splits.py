"""Accuracy of the tuned encoder on several splits, each beside TF-IDF with logistic regression on the same texts.

    python benchmarks/quality/splits.py --out splits.jsonl                       # English, ratings of at least 1.0
    python benchmarks/quality/splits.py --out half.jsonl --least 0.5
    python benchmarks/quality/splits.py --out lora.jsonl --method lora
    python benchmarks/quality/splits.py --out weak.jsonl --weak 0.2              # less clear ratings in training, too

Every split is written to `--out` when it is done, and is not run again: a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from llm_os import plugins
from llm_os.models.load import load_classifier
from llm_os.tasks.training.batches import read_rows

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from prepared import context, given, inputs

SEEDS = (42, 43, 44, 45, 46)


def split(cache: Path, seed: int, least: float, weak: float | None) -> Any:
    """The data set of a seed, as an input of a task."""
    folder = cache / f"splits-{least}-{weak}-{seed}"
    if not (folder / "output" / "artifact.json").exists():
        task = plugins.load("task", "datasets/sentic_data")
        task.run(context(folder, {}, 1), task.Options(seed=seed, least=least, weak=weak))
    meta = json.loads((folder / "output" / "artifact.json").read_text())["meta"]
    return given(folder / "output", "dataset", meta, str(seed % 10))


def peer(train: list[dict[str, Any]], test: list[dict[str, Any]]) -> float:
    vectorizer = TfidfVectorizer(min_df=2, sublinear_tf=True, max_features=200_000, ngram_range=(1, 2))
    model = LogisticRegression(C=4, max_iter=2000)
    model.fit(vectorizer.fit_transform([row["text"] for row in train]), [row["label"] for row in train])
    return float(model.score(vectorizer.transform([row["text"] for row in test]), [row["label"] for row in test]))


def one(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    data = split(options.cache, seed, options.least, options.weak)
    train, test = read_rows(data.path, "train"), read_rows(data.path, "test")
    task = plugins.load("task", f"training/{options.method}")
    more = {name: json.loads(value) for name, _, value in (text.partition("=") for text in options.option)}
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bench = context(Path(folder), {**inputs(options.cache), "data": data}, options.threads)
        task.run(bench, task.Options.model_validate({"epochs": 10, "seed": seed, "checkpoint_every": 1e9, **more}))
        seconds = time.perf_counter() - begun
        history = json.loads((bench.output / "history.json").read_text())["epochs"]
        model = load_classifier(bench.output)
    said = [model.labels[row.index(max(row))] for row in model.predict([row["text"] for row in test])]
    clear = [row for row in train if abs(row["score"]) >= options.least]
    right = sum(word == row["label"] for word, row in zip(said, test, strict=True)) / len(test)
    held = [round(entry["validation_accuracy"], 4) for entry in history]
    return {
        "seed": seed,
        "ours": right,
        "tfidf": max(peer(clear, test), peer(train, test)),
        "held_out": held,
        "seconds": round(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--least", type=float, default=1.0)
    parser.add_argument("--weak", type=float)
    parser.add_argument("--method", default="full")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="The first so many.")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "llm-os-benchmark-training")
    options = parser.parse_args()
    seen = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    for seed in SEEDS[: options.seeds]:
        if seed not in {row["seed"] for row in seen}:
            seen.append(one(options, seed))
            with options.out.open("a") as file:
                file.write(json.dumps(seen[-1]) + "\n")
            print(seen[-1], flush=True)
    ours, gains = [row["ours"] for row in seen], [row["ours"] - row["tfidf"] for row in seen]
    spread = statistics.stdev(ours) if len(ours) > 1 else 0.0
    print(f"{len(seen)} splits: accuracy {statistics.mean(ours):.4f} (sd {spread:.4f})", end=", ")
    print(
        f"gain over TF-IDF {100 * statistics.mean(gains):.1f} points ({100 * min(gains):.1f} to {100 * max(gains):.1f})"
    )


if __name__ == "__main__":
    main()
