"""Classification under load beside offline batches: `python benchmarks/serving/classification.py [--json]`.

A real kernel, gateway and workers with MiniLM under a fresh head, on torch and on openvino_encoders. In each round and
for each engine: texts in sorted batches in a process of its own (the best batch size), 64 callers in a closed loop
through the gateway, one caller, and an open loop (Poisson) at half of what the 64 reached. Rounds are interleaved,
figures are medians. A request of the open loop is compared with what the same text takes alone (median of all rounds):
texts differ, and a long one takes several times what a short one takes with nobody before it. Work is processor time
of a text or request, which other work on the machine hardly changes; the share by work is what the share of offline
would be if nothing else limited it. Engines serve in the precision that `auto` chose at the beginning, or in the one
that is given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import uvloop
from load import Callers, Seen

from llm_os.testing.home_bed import Home

CLIENTS = 64
SIZES = (8, 16, 32, 64)
WAYS = {"torch": "dtype", "openvino_encoders": "precision"}
BARS = {"share of offline": 0.9, "p95 in closed loop": 1.5, "p95 in open loop": 3.0}


def classifier(folder: Path) -> None:
    """MiniLM with a fresh head of two labels: the work of a tuned one."""
    import torch

    from llm_os.models import sources
    from llm_os.models.load import load_transformer

    (plain := folder.with_name("plain")).mkdir()
    sources.fetch("transformer", plain)
    torch.manual_seed(0)
    names = {0: "negative", 1: "positive"}
    made = load_transformer(plain, "text-classification", fresh=True, num_labels=2, id2label=names)
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)


def texts(count: int, tokens: int, model: Path) -> list[str]:
    """English made of the check texts' sentences, of so many tokens; 0: of 10 to 120 words, most short (log-normal)."""
    from llm_os.models.load import load_classifier
    from llm_os.tasks.evaluation.prompts import OURS

    rows = [json.loads(line) for line in OURS.read_text(encoding="utf-8").splitlines()]
    words = " ".join(row["text"] for row in rows if "text" in row and row["text"].isascii()).split()
    rng = random.Random(0)

    def some(size: int) -> str:
        at = rng.randrange(len(words) - size)
        return " ".join(words[at : at + size])

    if not tokens:
        return [some(min(120, max(10, round(rng.lognormvariate(3.5, 0.6))))) for _ in range(count)]
    reads, found = load_classifier(model).read, list[str]()
    while len(found) < count:
        text = some(tokens)  # more than enough: a word is a token at least
        while text and len(reads([text])[0]) > tokens:
            text = text.rpartition(" ")[0]
        if text and len(reads([text])[0]) == tokens:
            found.append(text)
    return found


def offline(pipe: Connection, engine: str, folder: Path, precision: str, threads: int, some: list[str]) -> None:
    """A process that answers each message with texts a second by batch size; the first with its precision."""
    import torch

    from llm_os.models.load import load_classifier
    from llm_os.workers import openvino_encoders
    from llm_os.workers.reading import streams_of
    from llm_os.workers.torch import choose

    torch.set_num_threads(threads)
    runnable = load_classifier(folder)
    lanes = streams_of(None, threads, runnable.max_length)
    ways = (1, lanes) if engine == "torch" else (lanes,)  # PyTorch on all threads, and side by side as it serves
    if engine == "torch":
        runnable, why = choose(runnable, precision)
        precision = why.partition(":")[0]
    else:
        with tempfile.TemporaryDirectory() as kept:
            graph = openvino_encoders.Graphs(runnable.model, "logits", Path(kept), "model", threads, lanes)
            chosen = graph.chosen(runnable, precision)
        runnable.model, precision, why = chosen.model, chosen.precision, chosen.why
    tokens = sum(map(len, runnable.read(some)))
    for side_by_side in ways:  # first calls compile
        batched(runnable, some, SIZES[0], side_by_side)
    pipe.send({"precision": precision, "why": why, "tokens": tokens / len(some)})
    while pipe.recv():
        found = {}
        for size in SIZES:
            for side_by_side in ways:
                torch.set_num_threads(max(1, threads // side_by_side))
                begun, spent = time.perf_counter(), time.process_time()
                batched(runnable, some, size, side_by_side)
                seconds, processor = time.perf_counter() - begun, time.process_time() - spent
                found[size] = max(found.get(size, (0.0, 0.0)), (len(some) / seconds, processor / len(some)))
        pipe.send(found)


def batched(runnable: Any, some: list[str], size: int, lanes: int) -> None:
    """The texts in sorted batches of `size`, `lanes` of them side by side: next to nothing is padding."""
    ids = sorted(runnable.read(some), key=len)
    with ThreadPoolExecutor(lanes) as threads:
        list(threads.map(runnable.scores, [ids[at : at + size] for at in range(0, len(ids), size)]))


class Bench:
    """Both engines in one home, and a process each for offline batches."""

    def __init__(self, folder: Path, given: argparse.Namespace) -> None:
        self._home = Home(folder)
        self._model = folder / "model"
        self._given = given
        self._texts: list[str] = []
        self._pipes: dict[str, Connection] = {}
        self._callers: dict[str, Callers] = {}
        self.setting: dict[str, Any] = {}

    async def begin(self) -> None:
        classifier(self._model)
        self._texts = texts(self._given.texts, self._given.tokens, self._model)
        context = multiprocessing.get_context("spawn")
        for engine in self._given.engines:
            self._pipes[engine], other = context.Pipe()
            asked = getattr(self._given, engine)
            threads = os.cpu_count() or 1
            arguments = (other, engine, self._model, asked, threads, self._texts)
            context.Process(target=offline, args=arguments, daemon=True).start()
            self.setting[engine] = await asyncio.to_thread(self._pipes[engine].recv)
        await self._home.start()
        job = await self._home.post(
            "/v1/jobs",
            {
                "spec": {"task": "sources/fetch", "options": {"source": str(self._model)}, "name": "minilm"},
                "background": True,
            },
        )
        while (await self._home.get(f"/v1/jobs/{job['id']}", wait=5))["state"] != "succeeded":
            pass
        for engine in self._given.engines:
            options = {WAYS[engine]: self.setting[engine]["precision"]}
            name = engine.replace("_", "-")
            spec = {"name": name, "model": "minilm", "engine": engine, "options": options}
            created = await self._home.post("/v1/deployments", {"spec": spec, "keep": True})

            async def ready(name: str = name) -> bool:
                return (await self._home.get(f"/v1/deployments/{name}"))["state"] == "ready"

            await self._home.until(ready, 300)
            url = (await self._home.get("/v1/status"))["gateway"].removesuffix("/v1")
            self._callers[engine] = Callers(url, created["key"], name, self._texts)

    async def end(self) -> None:
        for pipe in self._pipes.values():
            pipe.send(False)
        await self._home.down()

    def _spent(self, program: str) -> float:
        """Processor seconds of this home's process that runs this module."""
        home, total = str(self._home.folder), 0.0
        for process in psutil.process_iter():
            try:
                line, environ = " ".join(process.cmdline()), process.environ()
                if (
                    f"-m {program}" in line
                    and "stub.py" not in line
                    and (home in line or environ.get("LLM_OS_HOME", "").startswith(home))
                ):
                    total += sum(process.cpu_times()[:2])
            except psutil.Error:
                continue
        return total

    def _processes(self, engine: str) -> dict[str, float]:
        return {"worker": self._spent(f"llm_os.workers.{engine}"), "gateway": self._spent("llm_os.server.gateway")}

    async def once(self, engine: str, number: int) -> tuple[dict[str, Any], Seen, Seen]:
        """All figures of one engine in one round, and what one caller and the open loop saw."""
        self._pipes[engine].send(True)
        batches = await asyncio.to_thread(self._pipes[engine].recv)
        best = max(batches, key=lambda size: batches[size][0])
        callers, seconds = self._callers[engine], self._given.seconds
        alone = await callers.closed(1, seconds)
        before, answered = self._processes(engine), callers.answered
        closed = await callers.closed(CLIENTS, seconds)
        after = self._processes(engine)
        served = await callers.open(closed.rate / 2, 2 * seconds, number)
        asked = callers.answered - answered  # with those before and after what was counted
        work = {name: (after[name] - spent) / asked * 1000 for name, spent in before.items()}
        work["callers"] = closed.processor / len(closed.latencies) * 1000
        figures = {
            "offline": batches[best][0],
            "batch": best,
            "offline ms of work": batches[best][1] * 1000,
            "closed": closed.rate,
            "share of offline": closed.rate / batches[best][0],
            "p95 in closed loop": closed.quantile(0.95) / (CLIENTS / closed.rate),
            "alone ms": alone.quantile(0.5) * 1000,
            "alone p95 ms": alone.quantile(0.95) * 1000,
            "open p95 ms": served.quantile(0.95) * 1000,
            "open p95 to median alone": served.quantile(0.95) / alone.quantile(0.5),
            "callers' share of a processor": closed.processor / seconds,
            **{f"{name} ms of work": spent for name, spent in work.items()},
            "share by work": batches[best][1] * 1000 / sum(work.values()),
        }
        return figures, alone, served


def slowdowns(alone: Sequence[Seen], served: Seen) -> list[float]:
    """Latency of each request of an open loop ÷ that of the same text alone, smallest first."""
    own: dict[int, list[float]] = {}
    for one in alone:
        for text, seconds in zip(one.texts, one.latencies, strict=True):
            own.setdefault(text, []).append(seconds)
    usual = {text: statistics.median(seconds) for text, seconds in own.items()}
    pairs = zip(served.texts, served.latencies, strict=True)
    return sorted(seconds / usual[text] for text, seconds in pairs if text in usual)


def judged(medians: dict[str, float]) -> dict[str, str]:
    """For each bar `met` or `missed`."""
    least = "share of offline"
    met = {name: (medians[name] >= bar if name == least else medians[name] <= bar) for name, bar in BARS.items()}
    return {name: "met" if is_met else "missed" for name, is_met in met.items()}


async def measure(given: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="llm-os-classification-") as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        bench = Bench(Path(folder), given)
        try:
            await bench.begin()
            rounds: dict[str, list[tuple[dict[str, Any], Seen, Seen]]] = {engine: [] for engine in given.engines}
            for number in range(given.rounds):
                for engine in given.engines[:: 1 if number % 2 else -1]:
                    rounds[engine].append(await bench.once(engine, number))
        finally:
            await bench.end()
    found: dict[str, Any] = {}
    for engine, results in rounds.items():
        seen = [figures for figures, _, _ in results]
        for figures, _, served in results:
            ratios = slowdowns([alone for _, alone, _ in results], served)
            figures["p95 in open loop"] = ratios[int(0.95 * len(ratios))]
            figures["share of it seen alone"] = len(ratios) / len(served.latencies)
        medians = {name: round(statistics.median(one[name] for one in seen), 3) for name in seen[0]}
        spreads = {
            f"spread of the {name}": [round(pick(one[name] for one in seen), 3) for pick in (min, max)] for name in BARS
        }
        found[engine] = {**bench.setting[engine], **medians, **spreads, "bars": judged(medians)}
    best = max(one["offline"] for one in found.values())
    for one in found.values():
        one["share of the best engine's offline"] = round(one["closed"] / best, 3)
    return {"load average": [round(value, 1) for value in os.getloadavg()], "rounds": given.rounds, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each loop")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=0, help="of each text; 0: 10 to 120 words, as they come")
    parser.add_argument("--engines", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--torch", default="auto", help="its precision")
    parser.add_argument("--openvino-encoders", default="auto", help="its precision")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.tokens and not 8 <= given.tokens <= 200:
        parser.error(f"--tokens {given.tokens}: between 8 and 200, or 0")
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as the drivers set it: offline batches must not spin, either
    found = uvloop.run(measure(given))
    if given.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        for line in [f"{key}: {one}" for key, one in value.items()] if isinstance(value, dict) else [value]:
            print(f"{name}: {line}")


if __name__ == "__main__":
    main()
