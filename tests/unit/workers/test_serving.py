"""What an engine worker makes of what it was granted."""

from __future__ import annotations

import pytest

from llm_os.spec.attempts import AttemptSpec
from llm_os.workers.serving import threads_of


@pytest.mark.parametrize(
    ("asked", "granted", "used"),
    [({}, 4, 4), ({"threads": None}, 4, 4), ({"threads": 2}, 4, 2), ({"threads": 8}, 4, 4)],
)
def test_an_engine_computes_on_what_it_asked_for_of_what_it_is_granted(
    asked: dict[str, int | None], granted: int, used: int
) -> None:
    spec = AttemptSpec(attempt="att-1", owner="x", token=1, argv=("x",), env={}, threads=granted, cwd="/")
    assert threads_of(asked, spec) == used
