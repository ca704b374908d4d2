"""A backend of a real engine in the test's own process, ready to be asked."""

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import AttemptSpec, Input, ServeCall
from llm_os.workers.backend import Backend


@asynccontextmanager
async def loaded(folder: Path, model: Path, *, engine: str = "openvino", **options: Any) -> AsyncIterator[Backend]:
    facts = ArtifactFacts(digest="sha256:" + "0" * 64, kind="model", size=1, meta={})
    call = ServeCall(
        engine=engine,
        deployment="chat",
        model=Input(path=str(model), facts=facts),
        version="smollm2@1",
        task="text-generation",
        options=options,
        socket="unused",
    )
    spec = AttemptSpec(attempt="a", owner="o", token=1, argv=(), env={}, threads=2, cwd=str(folder))
    backend: Backend = importlib.import_module(f"llm_os.workers.{engine}").load(call, spec)
    try:
        await backend.begin()
        yield backend
    finally:
        await backend.end()
