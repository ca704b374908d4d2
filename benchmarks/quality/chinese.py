"""Chinese reviews: a probe of a frozen language model with n-grams beside it, on five splits, beside TF-IDF.

    python benchmarks/quality/chinese.py --cache ~/chinese

All splits hold the same texts, so their features are computed once (about half an hour on two cores; a run that was cut
off goes on). What is learnt from them for each split is what `model.train(data, method="probe", ...)` learns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from llm_os import plugins
from llm_os.models import sources
from llm_os.models.convert import gguf_to_safetensors
from llm_os.tasks.applications import application
from llm_os.tasks.applications.text_classification import PLUGIN as CLASSIFIER
from llm_os.tasks.applications.text_classification import encode
from llm_os.tasks.training import features, linear, probe, probing
from llm_os.tasks.training.batches import hold_out, read_rows

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from prepared import context, given

SEEDS = (42, 43, 44, 45, 46)
PROMPT = "\n这条评论的情感是（正面还是负面）："


def data_of(cache: Path, seed: int) -> Any:
    folder = cache / f"chinese-{seed}"
    if not (folder / "output" / "artifact.json").exists():
        task = plugins.load("task", "datasets/sentic_data")
        task.run(context(folder, {}, 1), task.Options(language="zh", seed=seed))
    meta = json.loads((folder / "output" / "artifact.json").read_text())["meta"]
    return given(folder / "output", "dataset", meta, str(seed % 10))


def model_of(cache: Path, name: str) -> Any:
    """Float weights of a model of the catalogue."""
    folder = cache / f"{name}-float"
    if not (folder / "facts.json").exists():
        packed = cache / name
        packed.mkdir(parents=True, exist_ok=True)
        if not any(packed.glob("*.gguf")):
            sources.fetch(name, packed)
        (folder / "facts.json").write_text(json.dumps(gguf_to_safetensors(packed, folder)))
    return given(folder, "model", json.loads((folder / "facts.json").read_text()), "8")


def tfidf(train: list[dict[str, Any]], test: list[dict[str, Any]]) -> float:
    vectorizer = TfidfVectorizer(
        min_df=2, sublinear_tf=True, max_features=200_000, ngram_range=(1, 3), analyzer="char", lowercase=False
    )
    model = LogisticRegression(C=4, max_iter=2000)
    model.fit(vectorizer.fit_transform([row["text"] for row in train]), [row["label"] for row in train])
    return float(model.score(vectorizer.transform([row["text"] for row in test]), [row["label"] for row in test]))


def computed_once(options: probe.ProbeOptions, inputs: dict[str, Any], folder: Path, threads: int) -> Any:
    """(rows, model with their examples, their features) of both splits of a data set."""
    bench = context(folder, inputs, threads)
    unsplit = options.model_copy(update={"early_stopping": False})
    load = partial(CLASSIFIER.load, bench, options, layers=options.layers, prompt=options.prompt)
    _, prepared = application.prepare(bench, unsplit, load)
    data = inputs["data"]
    rows = [row for split in ("train", "test") for row in read_rows(data.path, split)]
    length = application.length_of(bench, options)
    prepared.train = encode(rows, prepared.tokenizer, data.facts.meta["labels"], length, options)
    return rows, prepared, features.compute(bench, options, prepared)


def one(options: probe.ProbeOptions, data: Any, known: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Figures of a split, and what was chosen."""
    rows, prepared, computed = known
    place = {row["text"]: number for number, row in enumerate(rows)}
    train, test = read_rows(data.path, "train"), read_rows(data.path, "test")
    texts, judged = ([place[row["text"]] for row in part] for part in (train, test))
    kept, held = hold_out(len(train), min(0.1, 1000 / len(train)), options.seed, [row["label"] for row in train])
    kept, held = [texts[i] for i in kept], [texts[i] for i in held]
    parts = features.Features(computed.train[kept], computed.train[held], computed.precision, computed.seconds)
    divided = replace(prepared, train=prepared.train.part(kept), valid=prepared.train.part(held))
    done = probing.learn(options, divided, parts, again=True)
    said = linear.outputs(done.head, computed.train[judged])
    labels = data.facts.meta["labels"]
    targets = linear.Targets([labels.index(row["label"]) for row in test], len(labels))
    figures = {"model_alone": linear.judge(said, targets)["accuracy"], "tfidf": tfidf(train, test)}
    if done.table is not None:
        said = said + done.table.outputs(prepared.train.part(judged).tokens)
    return {**linear.judge(said, targets), **figures}, done.because


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--model", default="qwen2.5-coder-0.5b")
    parser.add_argument("--layers", type=int, default=15)
    parser.add_argument("--ngrams", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    options = probe.ProbeOptions(layers=asked.layers, prompt=PROMPT, ngrams=asked.ngrams, checkpoint_every=60)
    sets = {seed: data_of(asked.cache, seed) for seed in SEEDS}
    inputs = {"model": model_of(asked.cache, asked.model), "data": sets[SEEDS[0]]}
    known = computed_once(options, inputs, asked.cache / f"features-{asked.layers}", asked.threads)
    found = []
    for seed, data in sets.items():
        figures, because = one(options, data, known)
        found.append(figures)
        print(json.dumps({"seed": seed, **figures}), *because, flush=True)
    ours = [row["accuracy"] for row in found]
    gains = [100 * (row["accuracy"] - row["tfidf"]) for row in found]
    print(f"{len(found)} splits: accuracy {statistics.mean(ours):.4f} (sd {statistics.stdev(ours):.4f}), ", end="")
    print(f"gain over TF-IDF {statistics.mean(gains):.1f} points ({min(gains):.1f} to {max(gains):.1f})")


if __name__ == "__main__":
    main()
