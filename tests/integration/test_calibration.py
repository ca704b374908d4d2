"""From a command to the engine that is taken: a real kernel, and engines that another distribution brings.

One answers a single request fast and lets the others wait, one answers many at the same pace, one does not start. What
real engines are here are tried with them, and refuse a file that holds no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import pytest_asyncio

from llm_os.testing.home_bed import Home

pytestmark = pytest.mark.asyncio(loop_scope="module")

DRIVERS = """
from llm_os.drivers.device import Available
from llm_os.drivers.engine import Engine
from llm_os.drivers.engines.fake import FakeOptions
from llm_os.spec.processes import ProcessSpec
from llm_os.spec.resources import ResourceSpec


class Made(Engine):
    formats, tasks, Options = ("gguf",), ("text-generation",), FakeOptions

    def __init__(self, name, preference, program, **options):
        self.name, self.preference, self._program, self._options = name, preference, program, options

    def probe(self):
        return Available(version="1")

    def footprint(self, options, model, granted):
        return ResourceSpec(cpus=0.1, memory=128 * 2**20)

    def process(self, options, model, resources):
        return ProcessSpec(argv=("{python}", "-m", self._program, "{attempt}"), resources=resources)

    def candidates(self, model, granted, precision=None):
        return (FakeOptions(reply="word " * 40, **self._options),) if precision in (None, "int8") else ()
"""
PLUGINS = {
    "for_few": 'Made("for_few", 1, "made_turns", tokens_per_second=100)',
    "for_many": 'Made("for_many", 2, "llm_os.workers.fake", tokens_per_second=20)',
    "for_none": 'Made("for_none", 3, "llm_os.workers.fake", start_fails=True)',
}
TURNS = """
import asyncio
from llm_os.workers.fake import FakeBackend
from llm_os.workers.serving import main


class Turns(FakeBackend):
    turn = asyncio.Lock()

    async def _pieces(self, request):
        async with self.turn:
            async for piece in super()._pieces(request):
                yield piece


main(lambda call, spec: Turns(call))
"""


def install(folder: Path) -> None:
    """The distribution `made-engines`, as an installer leaves it."""
    notes = folder / "made_engines-1.dist-info"
    notes.mkdir(parents=True)
    (notes / "METADATA").write_text("Metadata-Version: 2.1\nName: made-engines\nVersion: 1\n")
    points = "".join(f"{name} = made_{name}\n" for name in PLUGINS)
    (notes / "entry_points.txt").write_text(f"[llm_os.engine]\n{points}")
    (folder / "made_drivers.py").write_text(DRIVERS)
    (folder / "made_turns.py").write_text(TURNS)
    for name, made in PLUGINS.items():
        (folder / f"made_{name}.py").write_text(f"from made_drivers import Made\nPLUGIN = {made}\n")


def write_toy(path: Path) -> None:
    """A GGUF file that names a chat model of 4 bits and holds none."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(512)
    writer.add_chat_template("{{ messages }}")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Home]:
    folder = tmp_path_factory.mktemp("calibration")
    install(folder / "site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder / "r"))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("LLM_OS_PLUGINS", "made-engines")
        patch.setenv("LLM_OS_CALIBRATE", "1")
        home = Home(folder)
        await home.start()
        try:
            write_toy(folder / "toy-Q4_0.gguf")
            options = {"source": str(folder / "toy-Q4_0.gguf")}
            await job(home, {"task": "sources/fetch", "options": options, "name": "toy"})
            yield home
        finally:
            await home.down()


async def job(home: Home, spec: dict[str, Any]) -> Any:
    found = await home.post("/v1/jobs", {"spec": spec, "background": True})

    async def ended() -> bool:
        nonlocal found
        found = await home.get(f"/v1/jobs/{found['id']}", wait=5)
        return found["state"] in {"succeeded", "failed", "cancelled"}

    await home.until(ended, 200)
    assert found["state"] == "succeeded", found["error"]
    return found


async def create(home: Home, name: str, **spec: Any) -> Any:
    body = {"spec": {"name": name, "model": "toy", "check": False, **spec}, "keep": True}
    return (await home.post("/v1/deployments", body))["deployment"]


async def test_from_the_command_to_two_engines_side_by_side(home: Home) -> None:
    before = await create(home, "before")
    assert before["history"][-1]["because"].endswith("nothing was measured on this machine")
    await home.post("/v1/deployments/before/stop")

    code, out, errors = await home.command("deploy", "toy", "--name", "chat", "--no-check", "--json")
    assert code == 0, errors
    told = json.loads(out)
    assert told["because"].startswith("for_few for few requests and for_many for many, side by side: for_few does ")
    assert "out of the question: " in told["because"]
    record = await home.get("/v1/deployments/chat")
    assert [member["engine"] for member in record["spec"]["members"]] == ["for_few", "for_many"]
    assert record["history"][-1]["because"] == told["because"]
    assert "Measuring " in errors

    code, out, errors = await home.command("calibrate", "toy", "--json")
    assert code == 0, errors
    found = json.loads(out)
    trials = {trial["member"]["engine"]: trial for trial in found["trials"]}
    assert {"for_few", "for_many", "for_none"} <= set(trials)
    assert "was told to fail at its start" in trials["for_none"]["error"]
    assert [speed["streams"] for speed in trials["for_few"]["speeds"]] == [1, 8, 32]
    jobs = [one for one in await home.get("/v1/jobs") if one["spec"]["task"] == "serving/calibration"]
    assert sum(one["state"] == "succeeded" for one in jobs) == 1, "what is known is not measured again"

    code, out, errors = await home.command("calibrate", "toy")
    assert code == 0, errors
    lines = out.splitlines()
    assert sum(line.startswith("*") for line in lines) == 2
    assert "side by side" in lines[-1]

    # An on-demand replica takes what is known for few requests.
    body = {"spec": {"name": "private-toy", "model": "toy"}, "keep": True, "private": True}
    first = (await home.post("/v1/deployments", body))["deployment"]
    assert (first["engine"], first["spec"]["members"]) == ("for_few", [])
    assert (await home.post("/v1/deployments", body))["deployment"]["id"] == first["id"]


async def test_a_precision_that_nobody_serves_is_refused_before_anything_is_written(home: Home) -> None:
    code, _, errors = await home.command("deploy", "toy", "--name", "odd", "--precision", "int3", "--no-check")
    assert code != 0
    assert "No engine here serves text-generation from gguf in int3" in errors
    refused = await home.refused("/v1/deployments/odd", method="GET")
    assert refused["code"] == "not_found"


async def test_one_that_is_cancelled_leaves_no_worker(home: Home) -> None:
    spec = {"task": "serving/calibration", "inputs": {"model": "toy"}}
    found = await home.post("/v1/jobs", {"spec": spec, "background": True, "again": True})

    async def running() -> bool:
        return "step" in (await home.get(f"/v1/jobs/{found['id']}"))["progress"]

    await home.until(running)
    attempt = (await home.get(f"/v1/jobs/{found['id']}"))["attempt"]
    await home.post(f"/v1/jobs/{found['id']}/cancel")

    async def ended() -> bool:
        return (await home.get(f"/v1/jobs/{found['id']}"))["state"] == "cancelled"

    await home.until(ended)
    mark = f"LLM_OS_ATTEMPT_FOLDER={home.settings.attempts / attempt}".encode()
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and mark in _environment(pid)]


def _environment(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
