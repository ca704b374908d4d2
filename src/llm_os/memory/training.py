"""Bytes that a training needs; simple arithmetic, corrected by measured peaks in a later issue. Pure.

Source of the state's size: Rajbhandari et al., ZeRO (SC'20), section 3.1, for fp32 masters: 4 bytes of weight, 4 of
gradient and 8 of Adam moments per trained parameter.
"""

from __future__ import annotations

BASE = 600 * 2**20
"""Interpreter, torch and the tokenizer, resident, in bytes (seen: 450 to 550 MiB)."""
ACTIVATIONS = 34
"""Values kept per token, layer and hidden unit for the backward pass (Korthikanti et al. 2022, section 4.1: 34 s b h
bytes in half precision; here taken as values of 2 bytes plus fp32 copies, so 34 x 4 bytes is an upper bound)."""
BEST_COPY = 4
"""Bytes per trained parameter for the best weights that early stopping keeps."""


def estimate(
    parameters: int, hidden: int, layers: int, batch_size: int, length: int, trainable: int | None = None
) -> int:
    """Peak resident bytes of one training process.

    Args:
        parameters: all weights of the model.
        hidden: width of a layer. layers: number of layers.
        batch_size: sequences in a step. length: tokens of the longest sequence.
        trainable: weights that are trained; None: all of them.
    """
    trained = parameters if trainable is None else trainable
    state = 4 * parameters + (12 + BEST_COPY) * trained
    return BASE + state + batch_size * _per_sequence(hidden, layers, length)


def largest_batch(
    free: int, parameters: int, hidden: int, layers: int, length: int, trainable: int | None = None
) -> int | None:
    """The largest power of two of sequences a step that fits into `free` bytes; None if not even one does."""
    without = estimate(
        parameters=parameters, hidden=hidden, layers=layers, batch_size=0, length=length, trainable=trainable
    )
    count = (free - without) // max(1, _per_sequence(hidden, layers, length))
    if count < 1:
        return None
    return 1 << (int(count).bit_length() - 1)


def _per_sequence(hidden: int, layers: int, length: int) -> int:
    return ACTIVATIONS * 4 * length * hidden * layers
