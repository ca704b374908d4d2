"""How soon a new adapter answers, and what mixing adapters in a batch costs: `python benchmarks/serving/adapters.py`.

A real kernel, gateway and torch worker with SmolLM2. First the time from "the adapter is registered" (its version is
in the list of models) to the first text of its first answer, while other streams run: the wish to the kernel, the
worker's reading, and the answer. Then tokens a second of `--streams` streams at once: of the model alone, of one
adapter for all, of `--adapters` adapters dealt out evenly, and of the same with the model itself among them; rounds are
interleaved, and the ratio's 95 % interval is a bootstrap over rounds.
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

import aiohttp
from throughput import interval, stream

from llm_os.models import sources
from llm_os.models.convert import gguf_to_safetensors
from llm_os.testing.adapters import write_adapter
from llm_os.testing.home_bed import Home

PATH = "/v1/deployments/chat"


def floats(folder: Path) -> Path:
    """SmolLM2 as safetensors, below `folder`."""
    packed, whole = folder / "packed", folder / "whole"
    packed.mkdir()
    whole.mkdir()
    sources.fetch("smollm2", packed)
    gguf_to_safetensors(packed, whole)
    return whole


async def first_text(session: aiohttp.ClientSession, url: str, model: str) -> float:
    """Seconds until the first text of an answer."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "stream": True}
    begun = time.perf_counter()
    async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            if line.startswith(b"data: {"):
                return time.perf_counter() - begun
    raise AssertionError("nothing was answered")


async def added(home: Home, session: aiohttp.ClientSession, url: str, version: str, busy: int) -> float:
    """Seconds from the wish to the first text, while so many streams run; it is removed afterwards."""
    running = [asyncio.create_task(stream(session, url, "chat", n, 64)) for n in range(busy)]
    await asyncio.sleep(0.5)
    begun = time.perf_counter()
    await home.post(f"{PATH}/adapters", {"version": version, "name": "new"})
    await first_text(session, url, "chat:new")
    took = time.perf_counter() - begun
    await home.call("DELETE", f"{PATH}/adapters/new")
    await asyncio.gather(*running)

    async def gone() -> bool:
        return all("new" not in replica["adapters"] for replica in (await home.get(PATH))["replicas"])

    await home.until(gone)
    return took


async def rate(session: aiohttp.ClientSession, url: str, models: list[str], streams: int, tokens: int) -> float:
    begun = time.perf_counter()
    got = await asyncio.gather(*(stream(session, url, models[n % len(models)], n, tokens) for n in range(streams)))
    return sum(got) / (time.perf_counter() - begun)


async def laid_out(home: Home, folder: Path, model: Path, asked: argparse.Namespace) -> str:
    """Model, adapters and deployment; the deployment's key."""
    await home.fetch(str(model), "base")
    base = (await home.get("/v1/models/base@1"))["manifest"]
    for number in range(asked.adapters + 1):
        # Weak, so that answers stay as long as they are: what is measured is arithmetic, not taste.
        made = write_adapter(
            folder / f"a{number}", model=model, base=base, rank=asked.rank, seed=number, strength=0.001
        )
        await home.fetch(str(made), f"a{number}")
    held = {f"a{number}": f"a{number}@1" for number in range(asked.adapters)}
    options = {"max_adapters": asked.adapters + 1, "max_adapter_rank": asked.rank, "dtype": "fp32"}
    spec = {"name": "chat", "model": "base@1", "engine": "torch", "options": options, "adapters": held}
    created = await home.post("/v1/deployments", {"spec": spec, "keep": True})
    await home.until(lambda: ready(home), seconds=300)
    return str(created["key"])


async def ready(home: Home) -> bool:
    return bool((await home.get(PATH))["state"] == "ready")


async def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    home = Home(folder)
    await home.start()
    try:
        key = await laid_out(home, folder, asked.model or floats(folder), asked)
        url = (await home.get("/v1/status"))["gateway"].removesuffix("/v1")
        names = [f"chat:a{number}" for number in range(asked.adapters)]
        kinds = {"model": ["chat"], "one": names[:1], "mixed": names, "mixed with model": ["chat", *names]}
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        waits: dict[str, list[float]] = {"idle": [], "busy": []}
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:
            for number in range(asked.rounds + 1):
                order = list(kinds)[number % 4 :] + list(kinds)[: number % 4]
                found = {kind: await rate(session, url, kinds[kind], asked.streams, asked.tokens) for kind in order}
                new = f"a{asked.adapters}@1"
                idle, busy = await added(home, session, url, new, 0), await added(home, session, url, new, 4)
                if number:  # the first round warms up
                    waits["idle"].append(idle)
                    waits["busy"].append(busy)
                    for kind, value in found.items():
                        rates[kind].append(value)
        return told(rates, waits, asked)
    finally:
        await home.down()


def told(rates: dict[str, list[float]], waits: dict[str, list[float]], asked: argparse.Namespace) -> dict[str, Any]:
    def ratio(one: str, other: str) -> list[float]:
        return [round(value, 3) for value in interval(list(zip(rates[one], rates[other], strict=True)))]

    return {
        "rounds": asked.rounds,
        "streams": asked.streams,
        "adapters": asked.adapters,
        "rank": asked.rank,
        "seconds_from_registered_to_first_text": {
            kind: {"median": round(statistics.median(each), 2), "worst": round(max(each), 2)}
            for kind, each in waits.items()
        },
        "tokens_per_second": {kind: round(statistics.median(each), 1) for kind, each in rates.items()},
        "mixed_over_one": ratio("mixed", "one"),
        "mixed_with_model_over_one": ratio("mixed with model", "one"),
        "one_over_model": ratio("one", "model"),
        "load_average": [round(value, 1) for value in os.getloadavg()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="folder with a model in safetensors; none: smollm2 is fetched")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    with tempfile.TemporaryDirectory(prefix="llm-os-adapters-") as folder:
        print(json.dumps(asyncio.run(measure(Path(folder), parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
