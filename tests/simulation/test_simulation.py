"""The real kernel under random misfortune in virtual time: 2,000 seeds by default, each replayable by one command."""

from __future__ import annotations

import os

import pytest
from sqlalchemy import Connection

from llm_os.kernel.loop import Kernel
from llm_os.spec.jobs import Attempt, AttemptState
from llm_os.spec.resources import Capacity
from llm_os.store import rows
from llm_os.testing.simulator import SimulationError, simulate

SEEDS = int(os.environ.get("LLM_OS_SEEDS", "2000"))
CHUNK = 100
ENOUGH_FOR_A_PLANTED_BUG = 60


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_rule_is_broken_whatever_happens(first: int) -> None:
    crashes = 0
    for seed in range(first, first + CHUNK):
        crashes += len(simulate(seed).crashes)
    assert crashes > CHUNK // 10, "the simulator has stopped killing kernels"


def test_a_seed_replays_exactly() -> None:
    assert [simulate(seed).trace for seed in (3, 14)] == [simulate(seed).trace for seed in (3, 14)]
    assert simulate(3).digest != simulate(14).digest


@pytest.mark.parametrize("part", range(4))
def test_one_run_survives_a_kill_at_each_of_its_points(part: int) -> None:
    seed = 4
    points = simulate(seed, crash_at=0).points[0]
    assert points > 50
    for point in range(1 + part, points + 1, 4):
        simulate(seed, crash_at=point)


class Generous(Kernel):
    """Planted: grants more than the machine has."""

    def __init__(self, **parts: object) -> None:
        super().__init__(**parts)  # type: ignore[arg-type]
        honest = self._state.grant

        def grant() -> Capacity:
            there = honest()
            return there.model_copy(update={"cpus": 3 * there.cpus, "memory": 3 * there.memory})

        self._state.grant = grant  # type: ignore[method-assign]


class Forgetful(Kernel):
    """Planted: takes every running attempt for dead when it starts."""

    async def recover(self) -> None:
        with self._state.database.transaction() as tx:
            for row in rows.live_attempts(tx):
                self._forget(tx, row.attempt)
        await super().recover()

    def _forget(self, tx: Connection, attempt: Attempt) -> None:
        ended = attempt.model_copy(update={"state": AttemptState.ENDED})
        rows.update_attempt(tx, ended, was=attempt.state)


def _first_runs(kernel: type[Kernel]) -> None:
    for seed in range(ENOUGH_FOR_A_PLANTED_BUG):
        simulate(seed, kernel=kernel)


@pytest.mark.parametrize("planted", [Generous, Forgetful])
def test_a_planted_defect_is_found(planted: type[Kernel]) -> None:
    with pytest.raises(SimulationError, match="--seed"):
        _first_runs(planted)
