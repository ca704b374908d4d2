"""Tokens a second through the gateway beside the engine without it: `python benchmarks/serving/throughput.py`.

A real kernel, gateway and openvino worker with SmolLM2; streams of `--tokens` new tokens, greedy, one, eight and
thirty-two at once. `direct` asks the worker's own socket; `alone` is openvino-genai in a process of its own, which is
handed a burst as a whole, with the weights that the worker has. Rounds are interleaved, and which way goes first
alternates. The ratios' 95 % intervals are a bootstrap over rounds. `--engine llamacpp` measures that one, without
`alone`; `--load MODEL` another model of the catalogue.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from alone import Ask, engine_alone

from llm_os.testing.home_bed import Home

Way = Callable[[int, int], Awaitable[float]]
"""(streams, tokens of an answer) -> tokens a second."""
STREAMS = (1, 8, 32)
READY_WITHIN = 600.0
"""Seconds: the model is fetched, converted, and compared with its reference first."""
THINGS = ("the sea", "a train", "a lost dog", "winter", "a garden", "an old clock", "two sisters", "the moon")


def body(model: str, number: int, tokens: int) -> dict[str, Any]:
    """The question of one stream."""
    prompt = f"Write story number {number} about {THINGS[number % len(THINGS)]}."
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
    return asked | {"max_tokens": tokens, "stream": True, "stream_options": {"include_usage": True}}


async def stream(session: aiohttp.ClientSession, url: str, model: str, number: int, tokens: int) -> int:
    """Tokens of one answer."""
    got = 0
    async with session.post(f"{url}/v1/chat/completions", json=body(model, number, tokens)) as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            if b'"usage": {' in line or b'"usage":{' in line:
                got = json.loads(line[6:])["usage"]["completion_tokens"]
    return got


async def rate(session: aiohttp.ClientSession, url: str, model: str, streams: int, tokens: int) -> float:
    """Tokens a second over all streams."""
    begun = time.perf_counter()
    got = await asyncio.gather(*(stream(session, url, model, n, tokens) for n in range(streams)))
    return sum(got) / (time.perf_counter() - begun)


async def rate_alone(ask: Ask, streams: int, tokens: int) -> float:
    """The same of an engine without a server."""
    took = await ask([body("alone", number, tokens) for number in range(streams)])
    return took.tokens / took.seconds


def interval(pairs: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Ratio of medians with its 95 % interval."""
    rng = random.Random(0)

    def ratio(some: list[tuple[float, float]]) -> float:
        return statistics.median(a for a, _ in some) / statistics.median(b for _, b in some)

    drawn = sorted(ratio(rng.choices(pairs, k=len(pairs))) for _ in range(2000))
    return ratio(pairs), drawn[50], drawn[1949]


async def compared(ways: dict[str, Way], streams: int, rounds: int, tokens: int) -> dict[str, Any]:
    """Medians of all ways, and the ratio of the gateway to each of the others."""
    seen: list[dict[str, float]] = []
    names = list(ways)
    for number in range(rounds):
        first = number % len(names)
        seen.append({name: await ways[name](streams, tokens) for name in names[first:] + names[:first]})
    found: dict[str, Any] = {name: round(statistics.median(one[name] for one in seen), 1) for name in names}
    for name in names[1:]:
        ratio, low, high = interval([(one["gateway"], one[name]) for one in seen])
        found[f"gateway/{name}"] = {"ratio": round(ratio, 3), "interval": [round(low, 3), round(high, 3)]}
    return found


async def measure(model: str, engine: str, rounds: int, tokens: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="llm-os-throughput-") as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        home = Home(Path(folder))
        await home.start()
        try:
            spec = {"task": "sources/fetch", "options": {"source": model}, "name": model}
            job = await home.post("/v1/jobs", {"spec": spec, "background": True})
            while job["state"] != "succeeded":
                job = await home.get(f"/v1/jobs/{job['id']}", wait=5)
                assert job["state"] not in {"failed", "cancelled"}, job["error"]
            created = await home.post(
                "/v1/deployments", {"spec": {"name": "chat", "model": model, "engine": engine}, "keep": True}
            )
            await home.until_state("chat", "ready", READY_WITHIN)
            gateway = (await home.get("/v1/status"))["gateway"].removesuffix("/v1")
            (replica,) = (await home.get("/v1/deployments/chat"))["replicas"]
            async with AsyncExitStack() as stack:
                headers = {"authorization": f"Bearer {created['key']}"}
                through = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
                connector = aiohttp.UnixConnector(replica["endpoint"].removeprefix("unix:"), limit=0)
                direct = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
                ways: dict[str, Way] = {
                    "gateway": partial(rate, through, gateway, "chat"),
                    "direct": partial(rate, direct, "http://worker", "chat"),
                }
                if engine == "openvino":
                    (file,) = (home.settings.home / "run" / "widened").glob("*.gguf")
                    ways["alone"] = partial(rate_alone, await stack.enter_async_context(engine_alone(file)))
                for way in ways.values():
                    await way(8, tokens)
                return {f"{streams} streams": await compared(ways, streams, rounds, tokens) for streams in STREAMS}
        finally:
            await home.down()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", default="smollm2")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args()
    print(json.dumps(asyncio.run(measure(given.load, given.engine, given.rounds, given.tokens)), indent=1))


if __name__ == "__main__":
    main()
