"""Starts an engine's worker as a launcher would and speaks to it; knows engines by their interface only."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from llm_os import programs
from llm_os.drivers.engine import Engine
from llm_os.models.formats import inspect
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import AdapterInput, AttemptSpec, Control, Input, Report, ServeCall
from llm_os.spec.base import Json
from llm_os.spec.resources import Capacity

PATIENCE = 120.0
"""Seconds until a worker that says nothing counts as not starting; machines that test are busy."""


@dataclass(frozen=True, slots=True)
class Served:
    """A worker that is ready, or that has ended before it was.

    Attributes:
        socket: where it answers.
        facts: what is known of its model.
    """

    folder: Path
    socket: Path
    process: subprocess.Popen[bytes]
    facts: ArtifactFacts

    def reports(self) -> list[Report]:
        path = self.folder / "reports.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [Report.model_validate_json(line) for line in lines]

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    async def get(self, path: str) -> tuple[int, str]:
        """(status, text)."""
        async with self._session() as session, session.get(f"http://worker{path}") as answer:
            return answer.status, await answer.text()

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """(status, JSON)."""
        async with self._session() as session, session.post(f"http://worker{path}", data=json.dumps(body)) as answer:
            return answer.status, await answer.json(content_type=None)

    async def events(self, path: str, body: Any) -> AsyncGenerator[Any, None]:
        """The JSON of each event of a stream, `[DONE]` as that text."""
        async with self._session() as session, session.post(f"http://worker{path}", data=json.dumps(body)) as answer:
            assert answer.status == 200, await answer.text()
            async for line in answer.content:
                if line.startswith(b"data: "):
                    text = line[6:].strip().decode()
                    yield text if text == "[DONE]" else json.loads(text)

    async def hold(self, adapters: Mapping[str, Path], number: int = 1) -> Any:
        """Have it hold these adapters (name -> folder), as the kernel would; what it tells of them then.

        Args:
            number: of their versions: `NAME@1`.
        """
        before = len(self.reports())
        held = tuple(
            AdapterInput(name=name, version=f"{name}@{number}", path=str(path)) for name, path in adapters.items()
        )
        beside = self.folder / ".control.json"
        beside.write_text(Control(adapters=held).model_dump_json())
        beside.replace(self.folder / "control.json")
        async with asyncio.timeout(PATIENCE):
            while len(self.reports()) == before:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)
        return dict(self.reports()[-1].values)

    def peak_memory(self) -> int:
        """Most resident bytes so far, of the worker and of the programs it started, each at its own worst moment."""
        return sum(_peak(process.pid) for process in _family(self.process.pid))

    async def ended(self, seconds: float = PATIENCE) -> int:
        """The exit code."""
        return await asyncio.to_thread(self.process.wait, seconds)

    def _session(self) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(self.socket)), timeout=timeout)


def _family(pid: int) -> list[psutil.Process]:
    worker = psutil.Process(pid)
    return [worker, *worker.children(recursive=True)]


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def facts_of(model: Path) -> ArtifactFacts:
    """What the kernel would know of this model."""
    size = sum(file.stat().st_size for file in model.iterdir())
    return ArtifactFacts(digest="sha256:" + "0" * 64, kind="model", size=size, meta=inspect(model))


def lay_out(engine: Engine, model: Path, folder: Path, options: Mapping[str, Json], socket: Path) -> AttemptSpec:
    """Write `spec.json` as the kernel does."""
    facts = facts_of(model)
    chosen = engine.Options.model_validate(dict(options))
    granted = Capacity(cpus=float(os.cpu_count() or 1), memory=64 * 2**30)
    process = engine.process(chosen, facts, engine.footprint(chosen, facts, granted))
    names = {"attempt": str(folder), "python": programs.interpreter(process.environment), "socket": str(socket)}
    spec = AttemptSpec(
        attempt=folder.name,
        owner="served",
        token=1,
        argv=tuple(part.format(**names) for part in process.argv),
        env=process.env,
        threads=min(2, os.cpu_count() or 1),
        cwd=str(folder),
        stop=process.stop,
        serve=ServeCall(
            engine=engine.name,
            deployment="served",
            model=Input(path=str(model), facts=facts),
            version="model@1",
            task=str(facts.meta["task"]),
            options=chosen.model_dump(mode="json"),
            socket=str(socket),
        ),
    )
    (folder / "spec.json").write_text(spec.model_dump_json())
    return spec


@asynccontextmanager
async def started(engine: Engine, model: Path, **options: Json) -> AsyncIterator[Served]:
    """A worker of `engine` that has reported something or has ended; it is ended at the end, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="engine-") as name:
        folder = Path(name)
        socket = folder / "sockets" / "worker.sock"
        spec = lay_out(engine, model, folder, options, socket)
        with (folder / "log").open("wb") as log:
            process = start(spec.argv, dict(spec.env), spec.threads, log)
        try:
            served = Served(folder, socket, process, facts_of(model))
            deadline = time.monotonic() + PATIENCE
            while process.poll() is None and not served.reports():
                assert time.monotonic() < deadline, f"{engine.name} says nothing; its log:\n{served.log()}"
                await asyncio.sleep(0.05)
            yield served
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)


def start(argv: Sequence[str], env: Mapping[str, str], threads: int, log: Any) -> subprocess.Popen[bytes]:
    """The worker's program, with its output in `log`."""
    limits = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **limits, **env})
