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
SLICE = 512
"""Target tokens of a language model that go through its head at once."""
LOGIT = 14
"""Bytes of a logit while its loss is computed: in half precision, in fp32, its softmax and its gradient."""
BEST_COPY = 4
"""Bytes per trained parameter for the best weights that early stopping keeps."""


def estimate(
    parameters: int,
    hidden: int,
    layers: int,
    batch_size: int,
    length: int,
    trainable: int | None = None,
    state_bytes: int = 8,
    weight_bytes: float = 4.0,
) -> int:
    """Peak resident bytes of one training process.

    Args:
        parameters: all weights of the model.
        hidden: width of a layer. layers: number of layers.
        batch_size: sequences in a step. length: tokens of the longest sequence.
        trainable: weights that are trained; None: all of them.
        state_bytes: what the optimizer keeps for a trained weight. weight_bytes: what a weight of the model takes.
    """
    trained = parameters if trainable is None else trainable
    state = int(weight_bytes * parameters) + (4 + state_bytes + BEST_COPY) * trained
    return BASE + state + batch_size * per_sequence(hidden, layers, length)


def slice_of_logits(vocabulary: int) -> int:
    """Bytes of the logits of a slice of targets of a language model: at most one slice is held at a time."""
    return SLICE * vocabulary * LOGIT


def per_sequence(hidden: int, layers: int, length: int, *, again: bool = False) -> int:
    """Bytes of activations of one sequence.

    Args:
        again: only the input of each layer is kept, and one layer at a time is computed again.
    """
    values = ACTIVATIONS + layers if again else ACTIVATIONS * layers
    return values * 4 * length * hidden
