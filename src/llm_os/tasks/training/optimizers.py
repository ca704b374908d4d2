"""Optimizers by name, over groups of parameters that share decay and rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HEAD = 10.0
"""The fresh head starts from noise and learns this many times faster."""


def make_optimizer(model: Any, rate: float, decay: float, heads: Sequence[str] = ("classifier", "score")) -> Any:
    """Fused AdamW; no decay on biases and norms; `HEAD` times the rate for parameters named by `heads`."""
    import torch

    groups: dict[tuple[bool, bool], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((parameter.ndim > 1, name.startswith(tuple(heads))), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "weight_decay": decay if decayed else 0.0, "scale": HEAD if head else 1.0}
            for (decayed, head), members in groups.items()
        ],
        lr=rate,
        fused=True,
    )
