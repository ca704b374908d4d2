"""Simple estimates: the formulas by hand, and that they point the right way."""

from __future__ import annotations

import pytest

from llm_os.memory import serving, training

MINILM = {"parameters": 22_700_000, "hidden": 384, "layers": 6}


def test_full_training_holds_weights_gradients_moments_and_the_best_copy() -> None:
    more = training.estimate(parameters=1_000_000, hidden=0, layers=0, batch_size=1, length=1)
    none = training.estimate(parameters=0, hidden=0, layers=0, batch_size=1, length=1)
    assert more - none == 20 * 1_000_000


def test_an_adapter_trains_in_the_room_of_its_own_weights() -> None:
    full = training.estimate(**MINILM, batch_size=8, length=128)
    adapter = training.estimate(**MINILM, batch_size=8, length=128, trainable=200_000)
    assert full - adapter == 16 * (22_700_000 - 200_000)


def test_activations_grow_with_batch_and_length() -> None:
    def activations(batch_size: int, length: int) -> int:
        still = training.estimate(**MINILM, batch_size=0, length=length)
        return training.estimate(**MINILM, batch_size=batch_size, length=length) - still

    assert activations(2, 128) == 2 * activations(1, 128) == activations(1, 256)


@pytest.mark.parametrize("free", [1_200_000_000, 2_000_000_000, 5_000_000_000])
def test_the_largest_batch_fits_and_twice_of_it_does_not(free: int) -> None:
    batch = training.largest_batch(free, **MINILM, length=128)
    assert batch is not None
    assert training.estimate(**MINILM, batch_size=batch, length=128) <= free
    assert training.estimate(**MINILM, batch_size=2 * batch, length=128) > free


def test_no_batch_fits_where_the_weights_do_not() -> None:
    assert training.largest_batch(10**8, **MINILM, length=128) is None


def test_serving_adds_weights_keys_and_values_and_the_engine() -> None:
    per_token = serving.kv_bytes_per_token(layers=30, kv_width=192, bytes_per_value=2)
    assert per_token == 2 * 30 * 192 * 2
    assert serving.estimate(100, kv_bytes=1000 * per_token, overhead=7) == 100 + 1000 * per_token + 7
