"""Which layer of a network a parameter lies in: for frozen layers, and for rates that fall towards the bottom."""

from __future__ import annotations

import re
from typing import Any

from llm_os.errors import InvalidOptionError, did_you_mean

_LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks?|h)\.(\d+)\.")
"""`encoder.layer.3.`, `model.layers.3.`, `decoder.block.3.`, `transformer.h.3.`: the spellings of transformers."""
EMBEDDINGS = "embeddings"


class Depths:
    """Depth of each parameter of a model: 0 for embeddings, then 1 for layer 0 and so on; the head lies on top.

    Encoder and decoder of one model have the same depths side by side.
    """

    def __init__(self, model: Any) -> None:
        names = [name for name, _ in model.named_parameters()]
        self.layers = 1 + max((int(found[1]) for name in names if (found := _LAYER.search(name))), default=-1)
        embedding = getattr(model, "get_input_embeddings", lambda: None)()
        self._embeddings = {id(p) for p in embedding.parameters()} if embedding is not None else set()
        self._embedded = {name for name, p in model.named_parameters() if id(p) in self._embeddings}

    def of(self, name: str) -> int:
        """Depth of a parameter, 0 to `layers` + 1."""
        found = _LAYER.search(name)
        if found:
            return 1 + int(found[1])
        return 0 if name in self._embedded or "embed" in name or "wte" in name or "wpe" in name else self.layers + 1

    def below_top(self, name: str) -> int:
        """How many layers lie between a parameter and the head: 0 for head and last layer."""
        return max(0, self.layers - self.of(name))


def freeze(model: Any, what: str | int | None) -> list[str]:
    """Take parameters out of the training. Returns their names.

    Args:
        what: a number N is the embeddings and the first N layers; or parts by name, such as `embeddings,0-3,5`.

    Raises:
        InvalidOptionError: the model has no such part, or nothing would be left to learn.
    """
    if what is None:
        return []
    depths = Depths(model)
    wanted = frozen_depths(what, depths.layers)
    frozen = [name for name, _ in model.named_parameters() if depths.of(name) in wanted]
    for name, parameter in model.named_parameters():
        if depths.of(name) in wanted:
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise InvalidOptionError(f"freeze={what!r} leaves nothing to learn.", hint="Freeze fewer layers.")
    return frozen


def frozen_depths(what: str | int, layers: int) -> set[int]:
    """Depths that `freeze` names, in a model of so many layers. Raises InvalidOptionError."""
    if isinstance(what, int):
        if not 0 <= what <= layers:
            raise InvalidOptionError(f"freeze={what} is more than the model has: {layers} layers.")
        return set(range(what + 1))
    wanted: set[int] = set()
    for part in (text.strip() for text in what.split(",")):
        span = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if part == EMBEDDINGS:
            wanted.add(0)
        elif span is None:
            raise InvalidOptionError(
                f"freeze knows no part '{part}'.",
                hint=did_you_mean(part, [EMBEDDINGS, *map(str, range(layers)), f"0-{layers - 1}"]),
            )
        else:
            first, last = int(span[1]), int(span[2] or span[1])
            if not first <= last < layers:
                raise InvalidOptionError(
                    f"freeze names the layers {part}; the model has {layers}, from 0 to {layers - 1}."
                )
            wanted |= set(range(first + 1, last + 2))
    return wanted


def checkpoint_gradients(model: Any) -> None:
    """Keep only what enters each layer, and compute the rest again in the backward pass.

    Raises:
        InvalidOptionError: the model's code in transformers cannot.
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise InvalidOptionError(
            f"{type(model).__name__} has no gradient checkpointing.",
            hint="Leave gradient_checkpointing out, and set accumulation to save memory.",
        )
    model.activation_checkpointing_enable()
