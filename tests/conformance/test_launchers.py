"""Every launcher keeps the launcher contract: `local` with real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from llm_os import plugins
from llm_os.settings import Settings
from llm_os.testing.conformance.launcher import CHECKS, Bed, ProcessBed


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[ProcessBed]:
    settings = Settings(home=tmp_path)
    bed = ProcessBed(lambda: plugins.load("launcher", "local")(settings), settings.attempts)
    yield bed
    await bed.clear()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_local_launcher(check: Callable[[Bed], Awaitable[None]], local: ProcessBed) -> None:
    await check(local)
