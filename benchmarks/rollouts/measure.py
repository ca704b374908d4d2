"""What callers notice of updates, kills and bad versions: `python benchmarks/rollouts/measure.py [--rounds N]`.

A real kernel, gateway and workers of the fake engine (its answers cost nothing, so what is seen is ours). Callers come
at fixed times (open loop), whether or not the ones before have their answers; a time is counted from when its request
was due. Four parts, each with the figure that it is held against:

updates   rolling updates one after the other, without a canary's wait; requests that failed, and their 99th percentile
          beside that of the same load without updates, interleaved
kill      SIGKILL of one of two replicas: failures, and seconds until both answer again
bad       an update to a version that fails every request: seconds until it was taken back, share of requests it touched
gateway   SIGKILL of the gateway: seconds until the next one answers
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import json
import os
import signal
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

import llm_os
from llm_os.testing.home_bed import Home

RATE = 50.0
"""Requests a second."""
AT_ONCE = {"canary": 0, "bake": 0, "watch": 0}


@dataclass
class Load:
    """Requests at fixed times until it is closed."""

    url: str
    key: str
    model: str
    statuses: Counter[Any] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    async def __aenter__(self) -> Load:
        self._session = aiohttp.ClientSession(headers={"authorization": f"Bearer {self.key}"})
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*self._asking)
        await self._session.close()

    async def _run(self) -> None:
        self._asking: set[asyncio.Task[None]] = set()
        due = time.perf_counter()
        while True:
            task = asyncio.create_task(self._ask(due))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
            due += 1 / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    async def _ask(self, due: float) -> None:
        try:
            body = {"model": self.model, "input": "a fine day"}
            async with self._session.post(f"{self.url}/classify", json=body) as answer:
                await answer.read()
                self.statuses[answer.status] += 1
        except aiohttp.ClientError as error:
            self.statuses[type(error).__name__] += 1
        self.seconds.append(time.perf_counter() - due)

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != 200)

    def p99(self) -> float:
        """Milliseconds."""
        return 1000 * statistics.quantiles(self.seconds, n=100)[98]


async def until(home: Home, name: str, fact: Any) -> float:
    """Seconds until this is true of the deployment."""
    begun = time.perf_counter()
    while not fact(await home.get(f"/v1/deployments/{name}")):  # noqa: ASYNC110 - another process rings no bell
        await asyncio.sleep(0.02)
    return time.perf_counter() - begun


async def updates(home: Home, rounds: int, each: int) -> dict[str, Any]:
    """`rounds` rounds, each of a quiet time and of `each` updates, which last as long."""
    url, key = await home.deploy("mood", "critic@1", replicas=2, update=AT_ONCE)
    quiet, busy, failed, total = [], [], 0, 0
    lasted: list[float] = []
    model = 1
    for _ in range(rounds):
        async with Load(url, key, "mood") as load:
            for _ in range(each):
                model = 3 - model
                await home.post("/v1/deployments/mood/update", {"model": f"critic@{model}"})
                done = lambda found: found["rollout"]["phase"] == "done"  # noqa: E731
                lasted.append(await until(home, "mood", done))
        busy.append(load.p99())
        failed, total = failed + load.failed, total + sum(load.statuses.values())
        async with Load(url, key, "mood") as load:
            end = time.perf_counter() + min(20.0, sum(lasted[-each:]))
            await until(home, "mood", lambda _: time.perf_counter() >= end)  # noqa: B023 - it asks as often as above
        quiet.append(load.p99())
    await home.post("/v1/deployments/mood/stop")
    return {
        "updates": rounds * each,
        "requests": total,
        "failed": failed,
        "p99_ms_updating": [round(one, 1) for one in busy],
        "p99_ms_quiet": [round(one, 1) for one in quiet],
        "p99_ratio": round(statistics.median(b / q for b, q in zip(busy, quiet, strict=True)), 2),
        "seconds_for_an_update": round(statistics.median(lasted), 2),
    }


async def kills(home: Home, rounds: int) -> dict[str, Any]:
    url, key = await home.deploy("sturdy", "critic@1", replicas=2)
    back, failed, total = [], 0, 0
    for _ in range(rounds):
        async with Load(url, key, "sturdy") as load:
            await asyncio.sleep(1)
            victim = (await home.get("/v1/deployments/sturdy"))["replicas"][0]["attempt"]
            kill(home, victim)
            whole = lambda found: (  # noqa: E731
                [r["state"] for r in found["replicas"]] == ["ready", "ready"]
                and victim not in {r["attempt"] for r in found["replicas"]}  # noqa: B023
            )
            back.append(await until(home, "sturdy", whole))
            await asyncio.sleep(1)
        failed, total = failed + load.failed, total + sum(load.statuses.values())
        await asyncio.sleep(5)
    await home.post("/v1/deployments/sturdy/stop")
    return {"kills": rounds, "requests": total, "failed": failed, "seconds_until_whole": [round(s, 2) for s in back]}


async def bad(home: Home, rounds: int) -> dict[str, Any]:
    url, key = await home.deploy("wary", "critic@1")
    took, touched, seen = [], [], 0
    for _ in range(rounds):
        async with Load(url, key, "wary") as load:
            await asyncio.sleep(1)
            await home.post("/v1/deployments/wary/update", {"model": "critic@2", "options": {"fails": True}})
            await until(home, "wary", lambda found: found["rollout"]["phase"] == "canary")
            before = sum(load.statuses.values())
            took.append(await until(home, "wary", lambda found: found["rollout"]["phase"] == "rolled_back"))
            meanwhile = sum(load.statuses.values()) - before
            told = (await home.get("/v1/deployments/wary"))["rollout"]["message"]
            touched.append(int(told.split()[0]) / max(1, meanwhile))
        seen += load.failed
    await home.post("/v1/deployments/wary/stop")
    return {
        "bad_versions": rounds,
        "seconds_until_taken_back": [round(one, 1) for one in took],
        "share_of_requests_it_got": [round(one, 4) for one in touched],
        "failures_that_callers_saw": seen,
    }


async def gateways(home: Home, rounds: int) -> dict[str, Any]:
    url, key = await home.deploy("there", "critic@1")
    down = []
    headers, body = {"authorization": f"Bearer {key}"}, {"model": "there", "input": "x"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for _ in range(rounds):
            await asyncio.sleep(12)  # the back-off of the kernel is over, and a gateway stands by
            kill(home, gateway_attempt(home))
            begun = time.perf_counter()
            while True:
                try:
                    async with session.post(f"{url}/classify", json=body) as answer:
                        if answer.status == 200:
                            break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.01)
            down.append(time.perf_counter() - begun)
    await home.post("/v1/deployments/there/stop")
    return {"kills": rounds, "seconds_until_the_next_answers": [round(one, 2) for one in down]}


def kill(home: Home, attempt: str) -> None:
    handle = json.loads((home.settings.run / "attempts" / attempt / "process.json").read_bytes())
    children = Path(f"/proc/{handle['pid']}/task/{handle['pid']}/children").read_text().split()
    os.kill(int(children[0]) if children else handle["pid"], signal.SIGKILL)


def gateway_attempt(home: Home) -> str:
    """The newest attempt that the gateway has, by its folder."""
    found = []
    for path in (home.settings.run / "attempts").glob("*/spec.json"):
        if json.loads(path.read_bytes())["owner"] == "gateway" and not (path.parent / "exit.json").exists():
            found.append(path.parent)
    return max(found, key=lambda folder: folder.stat().st_mtime).name


async def measure(rounds: int, each: int, parts: tuple[str, ...]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="llm-os-rollouts-") as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        home, found = Home(Path(folder)), dict[str, Any]()
        await home.start()
        try:
            for number in (1, 2):
                await home.load("critic", "ToyForSequenceClassification", number)
            if "updates" in parts:
                found["updates"] = await updates(home, rounds, each)
            if "kill" in parts:
                found["kill"] = await kills(home, rounds)
            if "bad" in parts:
                found["bad"] = await bad(home, rounds)
            if "gateway" in parts:
                found["gateway"] = await gateways(home, rounds)
        finally:
            await home.down()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--each", type=int, default=20, help="updates of a round")
    parser.add_argument("--parts", nargs="+", default=["updates", "kill", "bad", "gateway"])
    given = parser.parse_args()
    compileall.compile_dir(Path(llm_os.__file__).parent, quiet=2)  # as pip does: a checkout may keep no bytecode
    print(json.dumps(asyncio.run(measure(given.rounds, given.each, tuple(given.parts))), indent=1))


if __name__ == "__main__":
    main()
