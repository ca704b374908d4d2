"""The matrix part of a training step alone: its rate beside the rate of the same products by themselves.

    python benchmarks/training/matrix.py --rounds 5

Steps of training/full run under torch's profiler, which knows the time and the work of each matrix product of the pass
forward and backward. Between them, in the same process, the products of the layers run alone in bf16. Attention's small
products (one head at a time) count as matrix part, too; casts, norms, dropout, GELU and the optimizer do not.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from prepared import context, inputs
from speed import INNER, WIDTH

from llm_os import plugins
from llm_os.tasks.training import loop

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
STEPS = 12
"""Steps of a round; batches of short and of long texts come mixed."""


def alone(tokens: int) -> float:
    """GFLOP/s of the products of a layer in bf16: the median of some."""
    shapes = [(WIDTH, WIDTH)] * 4 + [(INNER, WIDTH), (WIDTH, INNER)]
    pairs = [(torch.randn(tokens, k).bfloat16(), torch.randn(n, k).bfloat16()) for n, k in shapes]
    times = []
    for _ in range(40):
        begun = time.perf_counter()
        for a, w in pairs:
            torch.nn.functional.linear(a, w)
        times.append(time.perf_counter() - begun)
    return sum(2 * tokens * n * k for n, k in shapes) / statistics.median(times) / 1e9


def profiled(step: Any, times: int) -> tuple[dict[str, float], Counter[str]]:
    """Seconds and GFLOP of the matrix products of some steps, the steps' own seconds, and seconds by operator."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], with_flops=True) as profile:
        begun = time.perf_counter()
        for _ in range(times):
            step()
        whole = time.perf_counter() - begun
    found = {"seconds": 0.0, "work": 0.0, "whole": whole}
    by: Counter[str] = Counter()
    for event in profile.key_averages():
        by[event.key] += event.self_cpu_time_total / 1e6
        if event.key in PRODUCTS:
            found["seconds"] += event.self_cpu_time_total / 1e6
            found["work"] += event.flops / 1e9
    return found, by


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--operators", action="store_true", help="Show where the time goes.")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "llm-os-benchmark-training")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds: list[dict[str, float]] = []
    operators: Counter[str] = Counter()

    def measured(self: Any, saved: float) -> float:
        self._model.train()
        batches = iter(loop.epoch_batches(self._lengths, self._batch, 42, 0))

        def step() -> None:
            self._step(next(batches))
            self._progress.step += 1

        for _ in range(STEPS):
            step()
        for _ in range(options.rounds):
            before = alone(768)
            found, by = profiled(step, STEPS)
            operators.update(by)
            rounds.append({**found, "alone": (before + alone(768)) / 2})
        raise SystemExit

    loop.Loop._epoch = measured  # type: ignore[method-assign]
    task = plugins.load("task", "training/full")
    with tempfile.TemporaryDirectory() as folder:
        bench = context(Path(folder), inputs(options.cache), options.threads)
        with contextlib.suppress(SystemExit):
            task.run(bench, task.Options(epochs=1, early_stopping=False, checkpoint_every=1e9, precision="bf16"))
    shares = [100 * one["work"] / one["seconds"] / one["alone"] for one in rounds]
    rates = statistics.median(one["work"] / one["seconds"] for one in rounds)
    print(f"products alone {statistics.median(one['alone'] for one in rounds):.0f} GFLOP/s, in the steps {rates:.0f}")
    print(f"share of the rate: {statistics.median(shares):.0f} % ({min(shares):.0f} to {max(shares):.0f})")
    part = statistics.median(one["seconds"] / one["whole"] for one in rounds)
    print(f"products take {100 * part:.0f} % of the steps")
    for name, seconds in operators.most_common(15) if options.operators else ():
        print(f"  {100 * seconds / sum(operators.values()):5.1f} %  {name}")


if __name__ == "__main__":
    main()
