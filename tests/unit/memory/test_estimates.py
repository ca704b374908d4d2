"""Simple estimates: the formulas by hand, and that they point the right way."""

from __future__ import annotations

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


def test_computing_layers_again_keeps_their_inputs_and_one_layer() -> None:
    usual, again = (training.per_sequence(384, 6, 128, again=way) for way in (False, True))
    assert usual == 34 * 6 * 4 * 128 * 384
    assert again == (34 + 6) * 4 * 128 * 384


def test_optimizer_and_base_count_what_they_keep() -> None:
    adam, sgd = (training.estimate(**MINILM, batch_size=1, length=1, state_bytes=b) for b in (8, 4))
    assert adam - sgd == 4 * 22_700_000
    quarter = training.estimate(**MINILM, batch_size=1, length=1, trainable=0, weight_bytes=1.0)
    assert training.estimate(**MINILM, batch_size=1, length=1, trainable=0) - quarter == 3 * 22_700_000


def test_serving_adds_weights_keys_and_values_and_the_engine() -> None:
    per_token = serving.kv_bytes_per_token(layers=30, kv_width=192, bytes_per_value=2)
    assert per_token == 2 * 30 * 192 * 2
    assert serving.estimate(100, kv_bytes=1000 * per_token, overhead=7) == 100 + 1000 * per_token + 7
