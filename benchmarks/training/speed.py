"""Speed of training: our task against transformers.Trainer with its defaults and against a fixed strong loop.

    python benchmarks/training/speed.py --rows 3000 --rounds 5
    python benchmarks/training/speed.py --variants ours,ours-fused,ours-mixed --rounds 5      # what each gain is worth

Each run is a process of its own; rounds are interleaved; ratios are of medians. On a machine that others use too, CPU
seconds with one thread (`--threads 1`) are the figure that holds; wall seconds stand beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from plain import accuracy, run
from prepared import context, inputs

from llm_os import plugins
from llm_os.tasks.training.batches import read_rows
from llm_os.tasks.training.precision import choose_precision

WIDTH, INNER, LAYERS = 384, 1536, 6
Spent = dict[str, float]


def ours(cache: Path, rows: int, test: int, threads: int, without: str) -> Spent:
    """One epoch of training/full as it comes. `without`: a gain that is taken away again, or a precision to take."""
    from llm_os.tasks.training import loop

    if without == "fused":  # the fused kernel of attention
        loop.quick_attention = lambda *_: None  # type: ignore[assignment]
    elif without == "mixed":  # batches of mixed lengths
        loop.epoch_batches = mixed_batches
    spent: Spent = {}
    epoch = loop.Loop._epoch

    def timed(self: Any, saved: float) -> float:
        begun, cpu = time.perf_counter(), time.process_time()
        answer = epoch(self, saved)
        spent.update(seconds=time.perf_counter() - begun, cpu=time.process_time() - cpu, tokens=sum(self._lengths))
        return answer

    loop.Loop._epoch = timed  # type: ignore[method-assign]
    task = plugins.load("task", "training/full")
    with tempfile.TemporaryDirectory() as folder:
        bench = context(Path(folder), inputs(cache), threads)
        precision = without if without in ("fp32", "bf16") else "auto"
        options = task.Options(epochs=1, early_stopping=False, stop=rows, checkpoint_every=1e9, precision=precision)
        task.run(bench, options)
        return {**spent, "accuracy": judged(bench.output, cache, test)}


def mixed_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    order = list(range(len(lengths)))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]


def judged(folder: Path, cache: Path, test: int) -> float:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    data = inputs(cache)["data"]
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    rows = read_rows(data.path, "test", 0, test) if test else []
    return accuracy(model, AutoTokenizer.from_pretrained(folder), rows, list(data.facts.meta["labels"]))


def trainer(cache: Path, rows: int, test: int) -> Spent:
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
        begun, cpu = time.perf_counter(), time.process_time()
        peer.train()
        spent = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}
    shown = read_rows(given["data"].path, "test", 0, test) if test else []
    right = accuracy(peer.model, tokenizer, shown, labels)
    return {**spent, "tokens": sum(map(len, encoded["input_ids"])), "accuracy": right}


def with_lightning(cache: Path, rows: int, test: int) -> Spent:
    """lightning.Trainer with what its guide shows: batch 32, shuffled, AdamW. Needs it on PYTHONPATH.

    Its precision is the one that our own measurement finds the faster here.
    """
    import lightning
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    given = inputs(cache)
    labels = list(given["data"].facts.meta["labels"])
    train = read_rows(given["data"].path, "train", 0, rows)
    tokenizer = AutoTokenizer.from_pretrained(given["model"].path)
    tokens = tokenizer([row["text"] for row in train], truncation=True, max_length=256)["input_ids"]

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModelForSequenceClassification.from_pretrained(given["model"].path, num_labels=len(labels))

        def training_step(self, batch: Any, _: int) -> Any:
            return self.model(**batch).loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=5e-5)

    def collate(indices: list[int]) -> Any:
        batch = tokenizer.pad({"input_ids": [tokens[i] for i in indices]}, return_tensors="pt")
        return {**batch, "labels": torch.tensor([labels.index(train[i]["label"]) for i in indices])}

    loader = torch.utils.data.DataLoader(range(len(train)), batch_size=32, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]
    precision = "bf16-mixed" if choose_precision()[0] == "bf16" else "32-true"
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    peer = lightning.Trainer(max_epochs=1, accelerator="cpu", precision=precision, **dict.fromkeys(off, False))
    module = Classifier()
    begun, cpu = time.perf_counter(), time.process_time()
    peer.fit(module, loader)
    spent = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}
    shown = read_rows(given["data"].path, "test", 0, test) if test else []
    return {**spent, "tokens": sum(map(len, tokens)), "accuracy": accuracy(module.model, tokenizer, shown, labels)}


def with_ludwig(cache: Path, rows: int, test: int, python: str) -> Spent:
    """Ludwig, by the Python of its own environment; tokens are counted here."""
    import csv

    from transformers import AutoTokenizer

    given = inputs(cache)
    taken = {split: read_rows(given["data"].path, split, 0, n) for split, n in (("train", rows), ("test", test or 1))}
    with tempfile.TemporaryDirectory() as folder:
        for split, these in taken.items():
            with (Path(folder) / f"{split}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([("text", "label"), *((row["text"], row["label"]) for row in these)])
        files = [str(Path(folder) / f"{split}.csv") for split in taken]
        command = [python, str(Path(__file__).with_name("with_ludwig.py")), str(given["model"].path), *files]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    spent: Spent = json.loads(done.stdout.strip().splitlines()[-1])
    tokenizer = AutoTokenizer.from_pretrained(given["model"].path)
    encoded = tokenizer([row["text"] for row in taken["train"]], truncation=True, max_length=256)["input_ids"]
    return {**spent, "tokens": sum(map(len, encoded))}


def plain(cache: Path, rows: int, test: int, precision: str) -> Spent:
    given = inputs(cache)
    train = read_rows(given["data"].path, "train", 0, rows)
    shown = read_rows(given["data"].path, "test", 0, test) if test else []
    return run(given["model"].path, train, shown, list(given["data"].facts.meta["labels"]), precision)


def gemm() -> Spent:
    """GFLOP/s (of wall and of CPU time) of the products of a layer (768 tokens), in fp32 and bf16: the best of some."""
    import torch

    rates: Spent = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        shapes = [(WIDTH, WIDTH)] * 4 + [(INNER, WIDTH), (WIDTH, INNER)]
        pairs = [(torch.randn(768, k, dtype=dtype), torch.randn(n, k, dtype=dtype)) for n, k in shapes]
        work = sum(2 * 768 * n * k for n, k in shapes)
        for clock in (time.perf_counter, time.process_time):
            best = float("inf")
            for _ in range(25):
                begun = clock()
                for a, w in pairs:
                    torch.nn.functional.linear(a, w)
                best = min(best, clock() - begun)
            rates[name if clock is time.perf_counter else f"{name}-cpu"] = work / best / 1e9
    return rates


def one(variant: str, cache: Path, rows: int, test: int, threads: int, python: str) -> dict[str, Any]:
    import torch

    torch.set_num_threads(threads)
    name, _, what = variant.partition("-")
    if name == "gemm":
        return gemm()
    if name == "ours":
        return ours(cache, rows, test, threads, what)
    if name == "plain":
        return plain(cache, rows, test, what)
    if name == "ludwig":
        return with_ludwig(cache, rows, test, python)
    return trainer(cache, rows, test) if name == "trainer" else with_lightning(cache, rows, test)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--test", type=int, default=800, help="Rows to judge each model by; 0: none.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variants", default="ours,plain-fp32,plain-bf16,plain-masters,trainer")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "llm-os-benchmark-training")
    parser.add_argument("--ludwig", default=sys.executable, metavar="PYTHON", help="Of an environment with ludwig.")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        given = (options.cache, options.rows, options.test, options.threads, options.ludwig)
        print(json.dumps(one(options.one, *given)))
        return
    inputs(options.cache)
    variants = ("gemm", *options.variants.split(","))
    seen: dict[str, list[Spent]] = {variant: [] for variant in variants}
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    for turn in range(options.rounds):
        for variant in variants:
            command = [sys.executable, __file__, "--one", variant, "--rows", str(options.rows)]
            command += ["--threads", str(options.threads), "--test", str(options.test), "--cache", str(options.cache)]
            command += ["--ludwig", options.ludwig]
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                raise SystemExit(f"{variant}: {done.stderr[-2000:]}")
            seen[variant].append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(turn + 1, variant, seen[variant][-1], file=sys.stderr, flush=True)
    for clock in ("cpu", "seconds"):
        report(seen, clock, variants[1])


def report(seen: dict[str, list[Spent]], clock: str, first: str) -> None:
    """Speeds by one clock, and the ratio of the first variant's median to each."""
    print(f"by {'CPU' if clock == 'cpu' else 'wall'} seconds:")
    speeds = {v: [r["tokens"] / r[clock] for r in runs] for v, runs in seen.items() if v != "gemm"}
    our = statistics.median(speeds[first])
    for variant, values in speeds.items():
        right = statistics.median(r["accuracy"] for r in seen[variant])
        print(
            f"  {variant:<14} {statistics.median(values):7.0f} tokens/s ({min(values):.0f} to {max(values):.0f}), "
            f"accuracy {right:.3f}, {first} / it {our / statistics.median(values):.2f}"
        )
    linear = LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER)
    suffix = "-cpu" if clock == "cpu" else ""
    rates = {name: statistics.median(r[name + suffix] for r in seen["gemm"]) for name in ("fp32", "bf16")}
    used = 6 * linear * our / 1e9
    print(
        f"  matrix products of {first}: {used:.0f} GFLOP/s over all its time, "
        f"alone {rates['bf16']:.0f} in bf16 and {rates['fp32']:.0f} in fp32"
    )


if __name__ == "__main__":
    main()
