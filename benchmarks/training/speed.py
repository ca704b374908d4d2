"""Speed of training: our task against transformers.Trainer with its defaults and against a fixed strong loop.

    python benchmarks/training/speed.py --rows 3000 --rounds 5

Each run is a process of its own; rounds are interleaved; ratios are of medians. Beside them: what the processor gives
in matrix products of the sizes of this model in the same minute.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from plain import accuracy, run
from prepared import context, inputs

from llm_os import plugins
from llm_os.tasks.training.batches import read_rows

TEST = 800
WIDTH, INNER, LAYERS = 384, 1536, 6


def ours(cache: Path, rows: int, threads: int) -> dict[str, float]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    task = plugins.load("task", "training/full")
    with tempfile.TemporaryDirectory() as folder:
        bench = context(Path(folder), inputs(cache), threads)
        options = task.Options(epochs=1, early_stopping=False, stop=rows, checkpoint_every=1e9)
        task.run(bench, options)
        history = json.loads((bench.output / "history.json").read_text())["epochs"]
        data = inputs(cache)["data"]
        model = AutoModelForSequenceClassification.from_pretrained(bench.output)
        tokenizer = AutoTokenizer.from_pretrained(bench.output)
        judged = accuracy(model, tokenizer, read_rows(data.path, "test", 0, TEST), list(data.facts.meta["labels"]))
        tokens = history[0]["tokens_per_second"] * history[0]["seconds"]
        return {"seconds": history[0]["seconds"], "tokens": tokens, "accuracy": judged}


def trainer(cache: Path, rows: int) -> dict[str, float]:
    """transformers.Trainer as it comes; only what writes to disk and to the screen is off."""
    import datasets
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    given = inputs(cache)
    labels = list(given["data"].facts.meta["labels"])
    train = read_rows(given["data"].path, "train", 0, rows)
    tokenizer = AutoTokenizer.from_pretrained(given["model"].path)
    encoded = tokenizer([row["text"] for row in train], truncation=True, max_length=256)
    table = datasets.Dataset.from_dict({**encoded, "labels": [labels.index(row["label"]) for row in train]})
    model = AutoModelForSequenceClassification.from_pretrained(given["model"].path, num_labels=len(labels))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_train_epochs=1, report_to="none", save_strategy="no", disable_tqdm=True
        )
        peer = Trainer(
            model=model, args=arguments, train_dataset=table, data_collator=DataCollatorWithPadding(tokenizer)
        )
        begun = time.perf_counter()
        peer.train()
        seconds = time.perf_counter() - begun
    judged = accuracy(peer.model, tokenizer, read_rows(given["data"].path, "test", 0, TEST), labels)
    return {"seconds": seconds, "tokens": sum(map(len, encoded["input_ids"])), "accuracy": judged}


def plain(cache: Path, rows: int, precision: str) -> dict[str, float]:
    given = inputs(cache)
    train, test = read_rows(given["data"].path, "train", 0, rows), read_rows(given["data"].path, "test", 0, TEST)
    return run(given["model"].path, train, test, list(given["data"].facts.meta["labels"]), precision)


def gemm() -> dict[str, float]:
    """GFLOP/s of the products of a layer (768 tokens), in fp32 and bf16: the best of some."""
    import torch

    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        shapes = [(WIDTH, WIDTH)] * 4 + [(INNER, WIDTH), (WIDTH, INNER)]
        pairs = [(torch.randn(768, k, dtype=dtype), torch.randn(n, k, dtype=dtype)) for n, k in shapes]
        work = sum(2 * 768 * n * k for n, k in shapes)
        best = float("inf")
        for _ in range(15):
            begun = time.perf_counter()
            for a, w in pairs:
                torch.nn.functional.linear(a, w)
            best = min(best, time.perf_counter() - begun)
        rates[name] = work / best / 1e9
    return rates


def one(variant: str, cache: Path, rows: int, threads: int) -> dict[str, Any]:
    import torch

    torch.set_num_threads(threads)
    if variant == "gemm":
        return gemm()
    if variant == "ours":
        return ours(cache, rows, threads)
    return trainer(cache, rows) if variant == "trainer" else plain(cache, rows, variant.removeprefix("plain-"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "llm-os-benchmark-training")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.cache, options.rows, options.threads)))
        return
    inputs(options.cache)
    variants = ("gemm", "ours", "plain-fp32", "plain-bf16", "trainer")
    seen: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    for turn in range(options.rounds):
        for variant in variants:
            command = [sys.executable, __file__, "--one", variant, "--rows", str(options.rows)]
            command += ["--threads", str(options.threads), "--cache", str(options.cache)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seen[variant].append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(turn + 1, variant, seen[variant][-1], file=sys.stderr, flush=True)
    report(seen)


def report(seen: dict[str, list[dict[str, float]]]) -> None:
    speeds = {v: [r["tokens"] / r["seconds"] for r in runs] for v, runs in seen.items() if v != "gemm"}
    our = statistics.median(speeds["ours"])
    for variant, values in speeds.items():
        judged = statistics.median(r["accuracy"] for r in seen[variant])
        print(
            f"{variant:<11} {statistics.median(values):7.0f} tokens/s ({min(values):.0f} to {max(values):.0f}), "
            f"accuracy {judged:.3f}, ours / it {our / statistics.median(values):.2f}"
        )
    linear = LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER)
    rates = {name: statistics.median(r[name] for r in seen["gemm"]) for name in ("fp32", "bf16")}
    used = 6 * linear * our / 1e9
    print(f"matrix products: {used:.0f} GFLOP/s of {rates['bf16']:.0f} in bf16 and {rates['fp32']:.0f} in fp32 alone")


if __name__ == "__main__":
    main()
