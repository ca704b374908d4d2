"""The kernel is killed with -9 at random moments while jobs run and a model serves. `LLM_OS_KILLS` sets how often."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from llm_os.testing.home_bed import Callers, Home, running

pytestmark = pytest.mark.slow


KILLS = int(os.environ.get("LLM_OS_KILLS", "25"))
JOBS = 4
STEPS = 40


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    async with running(tmp_path) as home:
        yield home


async def submit(home: Home) -> str:
    spec = {"task": "testing/steps", "options": {"steps": STEPS, "seconds": 0.05, "cpus": 0.2}}
    job: dict[str, Any] = await home.post("/v1/jobs", {"spec": spec, "background": True})
    return str(job["id"])


async def kill_and_restart(home: Home, chance: random.Random) -> None:
    await asyncio.sleep(chance.uniform(0.0, 0.8))
    await home.kill_kernel()
    await asyncio.sleep(chance.uniform(0.0, 0.3))
    await home.start()


@pytest.mark.timeout(60 + 12 * KILLS)
async def test_jobs_and_services_survive_every_kill_of_the_kernel(home: Home) -> None:
    chance = random.Random(KILLS)
    await home.load("toy", "ToyForSequenceClassification")
    url, key = await home.deploy("mood", "toy")
    replica = (await home.get("/v1/deployments/mood"))["replicas"][0]["attempt"]
    callers = Callers(url, key, "mood", number=2)
    jobs = [await submit(home) for _ in range(JOBS)]
    try:
        for _ in range(KILLS):
            await kill_and_restart(home, chance)
            found = [await home.get(f"/v1/jobs/{job}") for job in jobs]
            if sum(job["state"] in {"queued", "running"} for job in found) < JOBS:
                jobs.append(await submit(home))

        async def all_ended() -> bool:
            states = [(await home.get(f"/v1/jobs/{job}"))["state"] for job in jobs]
            return all(state in {"succeeded", "failed", "cancelled"} for state in states)

        await home.until(all_ended, 120)
        await callers.until_more(20)
    finally:
        await callers.close()
    assert set(callers.statuses) == {200}, callers.statuses
    await nothing_was_lost_or_done_twice(home, jobs)
    deployment = await home.get("/v1/deployments/mood")
    assert [r["attempt"] for r in deployment["replicas"]] == [replica], "the replica was started anew"


async def nothing_was_lost_or_done_twice(home: Home, jobs: list[str]) -> None:
    events: list[dict[str, Any]] = []
    while page := await home.get("/v1/events", since=events[-1]["seq"] if events else 0, limit=1000):
        events += page
    told = Counter((event["kind"], event["subject"]) for event in events)
    for job in jobs:
        record = await home.get(f"/v1/jobs/{job}")
        assert record["state"] == "succeeded", record["error"]
        assert record["attempts"] == 1, "a job was started again although only the kernel had died"
        assert told["job.succeeded", job] == 1
        assert told["job.started", job] == 1
        folder = home.settings.artifacts / "trees" / record["result"]["artifact"].removeprefix("sha256:")
        assert (folder / "steps.txt").read_text().split("\n")[:-1] == [f"step {i}" for i in range(1, STEPS + 1)]
    assert not [event for event in events if event["kind"] == "orphan.ended"]


async def test_a_killed_worker_goes_on_from_its_checkpoint(home: Home) -> None:
    job = await submit(home)

    async def counted() -> bool:
        record = await home.get(f"/v1/jobs/{job}")
        return bool(record["progress"].get("step", 0) >= 5)

    await home.until(counted)
    record = await home.get(f"/v1/jobs/{job}")
    stub = json.loads((home.settings.attempts / record["attempt"] / "process.json").read_bytes())["pid"]
    os.kill(stub, 9)

    async def ended() -> bool:
        return bool((await home.get(f"/v1/jobs/{job}"))["state"] == "succeeded")

    await home.until(ended, 60)
    record = await home.get(f"/v1/jobs/{job}")
    assert record["attempts"] == 2
    folder = home.settings.artifacts / "trees" / record["result"]["artifact"].removeprefix("sha256:")
    assert (folder / "steps.txt").read_text().split("\n")[:-1] == [f"step {i}" for i in range(1, STEPS + 1)]
