"""A burst of requests with a common cold beginning: through the gateway, and at the engine without us.

    python benchmarks/serving/shared_prefix.py [--rounds 5] [--requests 32] [--tokens 600] [--whole] [--json]

One engine worker (openvino, SmolLM2-135M) and one gateway before it; and openvino-genai alone, in a process of its own
with the same weights and settings and twice the cache, which is given a burst as a whole. Each round
sends six bursts, in an order that turns from round to round: prompts that share `--tokens` tokens which nobody has sent
before, and prompts as long that share nothing; each through the gateway, straight at the worker's socket, and to the
engine alone. Answers have 8 tokens. A burst takes until its last answer is whole; beside it stands for how many seconds
processors worked for the engine, which other work on the machine hardly changes. Ratios are formed inside a round.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import psutil
from alone import engine_alone

from llm_os import plugins
from llm_os.models import sources
from llm_os.models.widen import in_8_bits
from llm_os.spec.routing import Endpoint
from llm_os.testing.engine_bed import Served, started
from llm_os.testing.gateway_bed import USER, GatewayBed, a_route

CHAT = "/v1/chat/completions"
WORDS = (
    "river",
    "stone",
    "window",
    "garden",
    "paper",
    "metal",
    "summer",
    "letter",
    "bridge",
    "market",
    "forest",
    "silver",
)
BURSTS = list(itertools.product(("shared", "apart"), ("gateway", "straight", "alone")))
NEW = 8


class Took(NamedTuple):
    """Seconds of a burst, and those that processors worked for the engine meanwhile."""

    seconds: float
    work: float


def a_text(tokens: int, draw: random.Random) -> str:
    """A text of about so many tokens that no other one begins like."""
    return " ".join(draw.choice(WORDS) for _ in range(int(tokens * 0.9)))


def bodies(kind: str, requests: int, tokens: int, draw: random.Random, *, stream: bool) -> list[dict[str, Any]]:
    common = a_text(tokens, draw)
    found = []
    for number in range(requests):
        system = common if kind == "shared" else a_text(tokens, draw)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": f"Question {number}: why?"}]
        found.append({"model": "chat", "messages": messages, "max_tokens": NEW, "temperature": 0, "stream": stream})
    return found


async def burst(session: aiohttp.ClientSession, url: str, asked: list[dict[str, Any]], engine: psutil.Process) -> Took:
    """Ask all at once, until all are answered."""

    async def ask(body: dict[str, Any]) -> None:
        async with session.post(url + CHAT, json=body) as answer:
            text = await answer.text()
            assert answer.status == 200, text

    begun, worked = time.perf_counter(), sum(engine.cpu_times()[:2])
    await asyncio.gather(*(ask(body) for body in asked))
    return Took(time.perf_counter() - begun, sum(engine.cpu_times()[:2]) - worked)


async def measure(model: Path, options: argparse.Namespace) -> dict[str, Any]:
    draw, stream = random.Random(options.seed), not options.whole
    bursts = [burst for burst in BURSTS if burst[0] in options.kinds.split(",")]
    seen: dict[str, list[Took]] = {f"{kind} {way}": [] for kind, way in bursts}
    with tempfile.TemporaryDirectory() as folder:
        bed = GatewayBed(Path(folder) / "home")
        async with started(plugins.load("engine", "openvino"), model) as served:
            route = a_route("chat").model_copy(
                update={
                    "endpoints": (Endpoint(attempt="a", url=f"unix:{served.socket}"),),
                    "shares_prefixes": True,
                    "cache_tokens": 16384,
                }
            )
            bed.route(route)
            engine = psutil.Process(served.process.pid)
            await bed.start()
            try:
                file = in_8_bits(next(model.glob("*.gguf")), Path(folder), served.facts.digest)
                async with sessions(served) as ways, engine_alone(file) as bare:
                    urls = {"gateway": bed.url, "straight": "http://worker"}

                    async def took(way: str, asked: list[dict[str, Any]]) -> Took:
                        if way == "alone":
                            return Took(*(await bare(asked))[:2])
                        return await burst(ways[way], urls[way], asked, engine)

                    for way in (*urls, "alone"):  # once unmeasured: connections, first allocations
                        await took(way, bodies("apart", 2, 50, draw, stream=stream))
                    for number in range(options.rounds):
                        for kind, way in turned(bursts, number):
                            asked = bodies(kind, options.requests, options.tokens, draw, stream=stream)
                            seen[f"{kind} {way}"].append(await took(way, asked))
            finally:
                await bed.close()
    return {"seen": seen, "ratios": {kind: ratios(seen, kind) for kind in options.kinds.split(",")}}


@asynccontextmanager
async def sessions(served: Served) -> AsyncIterator[dict[str, aiohttp.ClientSession]]:
    """One client for each way."""
    patient, headers = aiohttp.ClientTimeout(total=None), {"authorization": f"Bearer {USER}"}
    there, wire = aiohttp.TCPConnector(limit=0), aiohttp.UnixConnector(path=str(served.socket), limit=0)
    async with (
        aiohttp.ClientSession(connector=there, headers=headers, timeout=patient) as gateway,
        aiohttp.ClientSession(connector=wire, timeout=patient) as straight,
    ):
        yield {"gateway": gateway, "straight": straight}


def turned(bursts: list[tuple[str, str]], number: int) -> list[tuple[str, str]]:
    """The bursts of a round, in its order."""
    first = number % len(bursts)
    return bursts[first:] + bursts[:first]


def ratios(seen: dict[str, list[Took]], kind: str) -> dict[str, tuple[float, float, float]]:
    """How many times the gateway's seconds, and work, the others' are: median, least, most."""
    found = {}
    for way in ("straight", "alone"):
        pairs = list(zip(seen[f"{kind} {way}"], seen[f"{kind} gateway"], strict=True))
        found[f"seconds: {way} / gateway"] = [other.seconds / through.seconds for other, through in pairs]
        found[f"work: {way} / gateway"] = [other.work / through.work for other, through in pairs]
    return {name: (statistics.median(values), min(values), max(values)) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder with a GGUF; none: smollm2 is fetched")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=32, help="in a burst")
    parser.add_argument("--tokens", type=int, default=600, help="of the common beginning, about")
    parser.add_argument("--kinds", default="shared,apart", help="of bursts")
    parser.add_argument("--whole", action="store_true", help="answers that are no streams")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = asked.model
        if model is None:
            model = Path(folder) / "smollm2"
            model.mkdir()
            sources.fetch("smollm2", model)
        found = asyncio.run(measure(model, asked))
    if asked.json:
        print(json.dumps(found | {"load_average": os.getloadavg()}, indent=1))
        return
    print(f"{asked.rounds} rounds, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors at the end")
    for name, took in found["seen"].items():
        seconds, work = [one.seconds for one in took], [one.work for one in took]
        print(
            f"  {name:16} {statistics.median(seconds):6.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
            f"{statistics.median(work):6.2f} s of work ({min(work):.2f} to {max(work):.2f})"
        )
    for kind, ratio in found["ratios"].items():
        for what, (median, least, most) in ratio.items():
            print(f"  {kind}, {what} {median:.2f} ({least:.2f} to {most:.2f})")


if __name__ == "__main__":
    main()
