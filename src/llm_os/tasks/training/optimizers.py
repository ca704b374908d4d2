"""Optimizers by name, over groups of parameters that share decay and rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llm_os.tasks.training.layers import Depths
from llm_os.tasks.training.options import TrainingOptions

HEAD = 10.0
"""The fresh head starts from noise and learns this many times faster."""


@dataclass(frozen=True, slots=True)
class Kind:
    """An optimizer of torch.optim.

    Attributes:
        name: its class there.
        arguments: its arguments, from the options.
        state_bytes: what it keeps for a weight.
        rate: what the rate called `auto` is multiplied by; methods state theirs for AdamW.
    """

    name: str
    arguments: Callable[[TrainingOptions], dict[str, Any]]
    rate: float = 1.0
    state_bytes: int = 8


def _adam(options: TrainingOptions) -> dict[str, Any]:
    return {"betas": (options.beta1, options.beta2), "fused": True}


def _slow_adam(options: TrainingOptions) -> dict[str, Any]:
    return {"betas": (options.beta1, options.beta2), "decoupled_weight_decay": True}


KINDS: dict[str, Kind] = {
    "adamw": Kind("AdamW", _adam),
    "adam": Kind("Adam", _adam),
    "nadam": Kind("NAdam", _slow_adam),
    "radam": Kind("RAdam", _slow_adam, rate=4.0),
    "sgd": Kind("SGD", lambda o: {"momentum": o.momentum, "nesterov": o.momentum > 0, "fused": True}, 400.0, 4),
    "rmsprop": Kind("RMSprop", lambda o: {"momentum": o.momentum}, rate=0.2),
    "adagrad": Kind("Adagrad", lambda _: {"fused": True}, 20.0, 4),
    "adafactor": Kind("Adafactor", lambda _: {"d": 1.0}, 20.0, 1),
}
"""By the names of the option `optimizer`. RAdam holds back at first; SGD's steps are gradients, not signs; Adafactor's
rate is a share of each weight's size."""


def rate_of(options: TrainingOptions, usual: float) -> float:
    """Highest rate: the one asked for, or a method's usual one (that of AdamW) as it is for this optimizer."""
    if options.learning_rate == "auto":
        return usual * KINDS[options.optimizer].rate
    return options.learning_rate


def make_optimizer(model: Any, options: TrainingOptions, rate: float, heads: Sequence[str] = ()) -> Any:
    """No decay on biases and norms; `HEAD` times the rate for parameters named by `heads`.

    Each group has a `scale`: its share of the rate of the step, lower for layers below where layers decay.
    """
    import torch

    depths = Depths(model)
    groups: dict[tuple[bool, float], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = HEAD if is_head(name, heads) else options.layer_decay ** depths.below_top(name)
            groups.setdefault((parameter.ndim > 1, scale), []).append(parameter)
    kind = KINDS[options.optimizer]
    return getattr(torch.optim, kind.name)(
        [
            {"params": members, "weight_decay": options.weight_decay if decayed else 0.0, "scale": scale}
            for (decayed, scale), members in groups.items()
        ],
        lr=rate,
        **kind.arguments(options),
    )


def is_head(name: str, heads: Sequence[str]) -> bool:
    """Whether a parameter belongs to a fresh head."""
    return name.startswith(tuple(heads))
