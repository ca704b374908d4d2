"""How fast the engines answer through their workers: `python benchmarks/serving/measure.py [--model FOLDER]`.

Chat through the openvino worker: one caller, then eight at once, 128 new tokens each, greedy. Beside it the memory
bandwidth of this machine at this moment, which bounds what one caller can get: each token reads all weights once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from llm_os import plugins
from llm_os.models import sources
from llm_os.testing.conformance.engine import CHAT
from llm_os.testing.engine_bed import Served, started

NEW = 128
PROMPTS = tuple(
    f"Write a long story about {thing}."
    for thing in ("the sea", "a train", "a lost dog", "winter", "a garden", "an old clock", "two sisters", "the moon")
)


def bandwidth(mebibytes: int = 512, runs: int = 5) -> float:
    """Bytes a second that all threads together read from memory, the best of some runs."""
    import torch

    block = torch.ones(mebibytes * 2**18, dtype=torch.float32)
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        block.sum()
        times.append(time.perf_counter() - begun)
    return block.numel() * 4 / min(times)


async def one(served: Served, prompt: str) -> dict[str, float]:
    """Time to the first text and tokens a second after it, of one streamed answer."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}], "max_tokens": NEW, "temperature": 0}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    begun, first, tokens = time.perf_counter(), None, 0
    async for event in served.events(CHAT, body):
        first = first or time.perf_counter()
        if isinstance(event, dict) and event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
    ended = time.perf_counter()
    assert first is not None
    return {"first": first - begun, "tokens": tokens, "rate": (tokens - 1) / (ended - first), "seconds": ended - begun}


async def at_once(served: Served, callers: int) -> float:
    """Tokens a second over all callers."""
    begun = time.perf_counter()
    answers = await asyncio.gather(*(one(served, PROMPTS[n % len(PROMPTS)]) for n in range(callers)))
    return sum(answer["tokens"] for answer in answers) / (time.perf_counter() - begun)


async def measure(model: Path, runs: int) -> dict[str, Any]:
    begun = time.perf_counter()
    async with started(plugins.load("engine", "openvino"), model) as served:
        ready = time.perf_counter() - begun
        alone = [await one(served, PROMPTS[n % len(PROMPTS)]) for n in range(runs)]
        eight = [await at_once(served, 8) for _ in range(runs)]
        peak = served.peak_memory()
    return {
        "ready_seconds": round(ready, 1),
        "peak_mib": peak // 2**20,
        "first_text_seconds": round(statistics.median(answer["first"] for answer in alone), 3),
        "one_caller_tokens_per_second": round(statistics.median(answer["rate"] for answer in alone), 1),
        "one_caller_best": round(max(answer["rate"] for answer in alone), 1),
        "eight_callers_tokens_per_second": round(statistics.median(eight), 1),
        "eight_callers_best": round(max(eight), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="folder with a GGUF; none: smollm2 is fetched")
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = asked.model
        if model is None:
            model = Path(folder) / "smollm2"
            model.mkdir()
            sources.fetch("smollm2", model)
        weights = sum(file.stat().st_size for file in model.glob("*.gguf"))
        before = bandwidth()
        figures = asyncio.run(measure(model, asked.runs))
        after = bandwidth()
    figures |= {
        "load_average": [round(value, 1) for value in os.getloadavg()],
        "bandwidth_gb_per_second": [round(before / 1e9, 1), round(after / 1e9, 1)],
        "bound_tokens_per_second": round(max(before, after) / weights),
        "share_of_bound": round(figures["one_caller_best"] / (max(before, after) / weights), 2),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
