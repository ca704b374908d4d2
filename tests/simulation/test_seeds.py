"""The kernel keeps its promises whatever goes wrong: thousands of random runs, and one run killed at every point.

`LLM_OS_SEEDS` sets how many runs: 500 if it is not set, 20,000 in `make soak`. Each of the defects that
`test_simulator` plants is found within 60. A run that fails names the command that repeats it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from llm_os.testing.simulator import simulate
from llm_os.testing.strategies import GIB, Misfortune, PlannedDeployment, PlannedJob, PlannedSession, Scenario

pytestmark = pytest.mark.slow


SEEDS = int(os.environ.get("LLM_OS_SEEDS", "500"))
CHUNK = 50
STRIDES = 16
"""The points of the fixed run are dealt out to so many tests."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Failed commits are logged, as they should be; thousands of them would hide what failed."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_random_misfortune_breaks_no_promise(first: int) -> None:
    for seed in range(first, min(first + CHUNK, SEEDS)):
        simulate(seed)


WORKDAY = Scenario(
    sessions=(
        PlannedSession(
            at=0.0,
            name="script",
            ttl=1.5,
            ends=2.6,
            closes=False,
            jobs=(
                PlannedJob(0.0, "sim/model", 1, 1.0, GIB, 0, 0.2, "ok", followed=True),
                PlannedJob(0.1, "sim/work", 1, 2.0, 4 * GIB, 0, 0.2, "ok", background=True),
                PlannedJob(0.1, "sim/work", 2, 2.0, 4 * GIB, 0, 0.2, "flaky"),
                PlannedJob(0.2, "sim/work", 3, 1.0, 2 * GIB, 0, 0.2, "hangs", cancel_after=0.6),
                PlannedJob(2.0, "sim/model", 1, 1.0, GIB, 0, 0.2, "ok"),
            ),
            deployments=(
                PlannedDeployment(0.6, "kept", 0.5, GIB, 1, keep=True, private=False, idle_after=None, stop_after=1.5),
                PlannedDeployment(0.6, "own", 0.5, GIB, 1, keep=False, private=True, idle_after=None, stop_after=None),
            ),
        ),
    ),
    misfortune=Misfortune(),
)
"""Everything once, and nothing goes wrong but the one crash."""


@pytest.mark.parametrize("offset", range(STRIDES))
def test_a_kernel_may_be_killed_at_every_point_of_a_day(offset: int) -> None:
    points = simulate(1, scenario=WORKDAY).points[0]
    assert points > 200
    for point in range(1 + offset, points + 1, STRIDES):
        outcome = simulate(1, scenario=WORKDAY, crash_at=point)
        assert len(outcome.crashes) == 1


SIDE_BY_SIDE = Scenario(
    sessions=(
        PlannedSession(
            at=0.0,
            name="script",
            ttl=5.0,
            ends=9.0,
            closes=True,
            jobs=(PlannedJob(0.0, "sim/model", 1, 1.0, GIB, 0, 0.2, "ok"),),
            deployments=(
                PlannedDeployment(
                    0.6, "pair", 0.5, GIB, 2, keep=True, private=False, idle_after=None, stop_after=None,
                    update_after=2.0, engines=2, updated_engines=2,
                ),
                PlannedDeployment(
                    0.8, "grows", 0.5, GIB, 1, keep=True, private=False, idle_after=None, stop_after=None,
                    update_after=2.0, roll_back_after=3.0, least=1, engines=1, updated_engines=2,
                ),
            ),
        ),
    ),
    misfortune=Misfortune(),
)  # fmt: skip
"""Replicas of two engines: updated, and one that becomes two and is taken back."""


def test_engines_side_by_side_are_updated_and_taken_back() -> None:
    told = "\n".join(simulate(1, scenario=SIDE_BY_SIDE).trace)
    assert told.count("rollout.done pair") == 1
    assert told.count("rollout.done grows") == 2  # to two engines, and back
    assert told.count("replica.placed pair") >= 8  # two of each engine, of each version


@pytest.mark.parametrize("offset", range(2))
def test_a_kernel_may_be_killed_while_engines_stand_side_by_side(offset: int) -> None:
    points = simulate(1, scenario=SIDE_BY_SIDE).points[0]
    for point in range(20 + offset, points + 1, 97):
        assert len(simulate(1, scenario=SIDE_BY_SIDE, crash_at=point).crashes) == 1


@pytest.mark.parametrize("seed", range(12))
def test_engines_side_by_side_survive_misfortune(seed: int) -> None:
    """Workers that die and do not start, reports that are lost, a memory that has not room for all."""
    bad = Misfortune(crash_at=(100 + 37 * seed,), workers=0.3, reports=0.2)
    simulate(seed, scenario=replace(SIDE_BY_SIDE, misfortune=bad))
