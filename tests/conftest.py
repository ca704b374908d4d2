"""Fixtures that many tests share: real models, fetched once a machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from llm_os.models import sources

CACHE = Path.home() / ".cache" / "llm-os-tests"


@pytest.fixture(scope="session")
def sample_model() -> Callable[[str], Path]:
    """The folder of a catalogue model (`transformer`, `smollm2`), fetched at its first use; do not write into it."""

    def folder(name: str) -> Path:
        CACHE.mkdir(parents=True, exist_ok=True)
        target = CACHE / name
        with FileLock(CACHE / f"{name}.lock"):
            if not target.exists():
                beside = CACHE / f"{name}.part"
                shutil.rmtree(beside, ignore_errors=True)
                beside.mkdir()
                sources.fetch(name, beside)
                beside.rename(target)
        return target

    return folder
