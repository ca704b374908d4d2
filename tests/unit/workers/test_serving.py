"""What an engine worker makes of what it was granted."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import EXIT_STOPPED, AttemptSpec, Input, ServeCall
from llm_os.workers.fake import FakeBackend
from llm_os.workers.serving import Reports, serve, threads_of


@pytest.mark.parametrize(
    ("asked", "granted", "used"),
    [({}, 4, 4), ({"threads": None}, 4, 4), ({"threads": 2}, 4, 2), ({"threads": 8}, 4, 4)],
)
def test_an_engine_computes_on_what_it_asked_for_of_what_it_is_granted(
    asked: dict[str, int | None], granted: int, used: int
) -> None:
    spec = AttemptSpec(attempt="att-1", owner="x", token=1, argv=("x",), env={}, threads=granted, cwd="/")
    assert threads_of(asked, spec) == used


class Slow(FakeBackend):
    """Begins for ever."""

    ended = False

    async def begin(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    async def end(self) -> None:
        self.ended = True


async def test_a_start_that_takes_long_is_broken_off_when_it_shall_stop(tmp_path: Path) -> None:
    model = Input(path=str(tmp_path), facts=ArtifactFacts(digest="sha256:" + "0" * 64, kind="model", size=1))
    call = ServeCall(
        engine="fake", deployment="chat", model=model, version="m@1", task="text-generation", options={},
        socket=str(tmp_path / "w.sock"),
    )  # fmt: skip
    backend, mask = Slow(call), os.umask(0o077)
    try:
        async with asyncio.timeout(10):
            spec = AttemptSpec.model_construct(cwd=str(tmp_path))
            assert await serve(spec, call, backend, Reports(tmp_path)) == EXIT_STOPPED
    finally:
        os.umask(mask)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
    assert backend.ended
