"""What an engine worker makes of what it was granted."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from llm_os.errors import CapacityError, DiskFullError, InternalError, LLMOSError
from llm_os.spec.attempts import AttemptSpec
from llm_os.workers.serving import explain, threads_of


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/wide.gguf"), DiskFullError),
        (OSError("Not enough free space to write 30081024 bytes after offset 1785664"), DiskFullError),  # numpy's
        (RuntimeError("std::bad_alloc"), CapacityError),
        (MemoryError(), CapacityError),
        (KeyError("x"), InternalError),
    ],
)
def test_a_start_that_fails_for_want_of_room_says_so(raised: Exception, told: type[LLMOSError], tmp_path: Path) -> None:
    assert type(explain(raised, tmp_path)) is told


@pytest.mark.parametrize(
    ("asked", "granted", "used"),
    [({}, 4, 4), ({"threads": None}, 4, 4), ({"threads": 2}, 4, 2), ({"threads": 8}, 4, 4)],
)
def test_an_engine_computes_on_what_it_asked_for_of_what_it_is_granted(
    asked: dict[str, int | None], granted: int, used: int
) -> None:
    spec = AttemptSpec(attempt="att-1", owner="x", token=1, argv=("x",), env={}, threads=granted, cwd="/")
    assert threads_of(asked, spec) == used
