"""Which type of matrix products is faster here: measured, not guessed."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 4
GAIN = 1.05
"""bf16 must be this much faster to be worth its rounding."""


def autocast(precision: str, device: str) -> Any:
    """The context in which a forward pass computes at `precision`; weights stay fp32."""
    import torch

    if precision == "bf16":
        return torch.autocast(device, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def choose_precision(model: Any, loss_at: Callable[[str], Any]) -> tuple[str, str]:
    """(`bf16` or `fp32`, a sentence with the figures): forward and backward passes of each, interleaved, medians.

    Args:
        loss_at: the loss of one batch computed at a precision.
    """
    model.train()
    times: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for turn in range(ROUNDS + 1):
        for precision, seen in times.items():
            begun = time.perf_counter()
            loss_at(precision).backward()
            model.zero_grad(set_to_none=True)
            if turn:  # the first turn warms up
                seen.append(time.perf_counter() - begun)
    ratio = statistics.median(times["fp32"]) / statistics.median(times["bf16"])
    if ratio >= GAIN:
        return "bf16", f"bf16 is {ratio:.1f} times as fast as fp32 here: using bf16."
    return "fp32", f"bf16 is {ratio:.1f} times as fast as fp32 here: using fp32."
