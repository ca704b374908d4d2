"""Batches: every row once an epoch, like lengths together, an order that depends on seed and epoch alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_os.tasks.training.batches import epoch_batches, hold_out, sorted_batches


@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=300), st.integers(1, 40), st.integers(0, 5), st.integers(0, 5)
)
def test_every_row_comes_once_in_each_epoch(lengths: list[int], batch: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(lengths, batch, seed, epoch)
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    assert all(len(b) <= batch for b in batches)
    assert batches == epoch_batches(lengths, batch, seed, epoch)


def test_epochs_differ_in_their_order() -> None:
    lengths = list(range(100))
    assert epoch_batches(lengths, 8, 42, 0) != epoch_batches(lengths, 8, 42, 1)


def test_texts_of_like_length_share_a_batch() -> None:
    lengths = [1 + i % 100 for i in range(1600)]
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in epoch_batches(lengths, 16, 0, 0)]
    assert sum(spread) / len(spread) < 10


def test_evaluation_takes_every_row_once() -> None:
    assert sorted(i for b in sorted_batches([3, 1, 2, 5, 4], 2) for i in b) == [0, 1, 2, 3, 4]


def test_holding_out_keeps_the_share_of_each_class() -> None:
    targets = [0.0] * 100 + [1.0] * 50
    kept, held = hold_out(150, 0.1, 42, targets)
    assert sorted(kept + held) == list(range(150))
    assert sum(targets[i] for i in held) == 5
    assert len(held) == 15
