"""What counts as having learnt nothing: weights or losses that never moved."""

from __future__ import annotations

import pytest

from llm_os.errors import NothingLearntError
from llm_os.tasks.training.loop import learnt


def test_a_loss_that_never_moves_is_a_failure() -> None:
    with pytest.raises(NothingLearntError, match=r"stayed at 0\.693147 in every step"):
        learnt([0.6931472] * 10, before=1.0, after=1.1)


def test_weights_that_never_move_are_a_failure() -> None:
    with pytest.raises(NothingLearntError, match="weights did not change"):
        learnt([0.7, 0.6], before=1.0, after=1.0)


@pytest.mark.parametrize("losses", [[0.7, 0.7000003], [0.7], [0.7, 0.7, 0.71]])
def test_one_step_or_a_small_move_is_enough(losses: list[float]) -> None:
    learnt(losses, before=1.0, after=1.1)
