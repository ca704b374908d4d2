"""What computes a step fastest here: the type of matrix products is measured, the form of attention is known."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import Any

ROUNDS = 5
TOKENS, WIDTH = 512, 768
"""Shape of the product that is timed: a batch of short texts times a layer of usual width; some milliseconds."""
GAIN = 1.2
"""Products in bf16 must be this much faster to be worth their rounding and the casts around them."""
SHORT = 256
"""Tokens up to which plain attention is faster than the fused kernel on processors, whose backward pass is slow for
short texts (measured: benchmarks/training); above it its memory, which grows with the square, counts more."""


def autocast(precision: str, device: str) -> Any:
    """The context in which a forward pass computes at `precision`; weights stay fp32."""
    import torch

    if precision == "bf16":
        return torch.autocast(device, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def choose_precision(device: str = "cpu") -> tuple[str, str]:
    """(`bf16` or `fp32`, a sentence with the figures): matrix products of each, interleaved, medians."""
    import torch

    pairs = {
        name: (
            torch.ones(TOKENS, WIDTH, dtype=dtype, device=device),
            torch.ones(WIDTH, WIDTH, dtype=dtype, device=device),
        )
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    times: dict[str, list[float]] = {name: [] for name in pairs}
    for turn in range(ROUNDS + 1):
        for name, (tokens, weights) in pairs.items():
            begun = time.perf_counter()
            torch.nn.functional.linear(tokens, weights).sum().item()
            if turn:  # the first turn warms up
                times[name].append(time.perf_counter() - begun)
    ratio = statistics.median(times["fp32"]) / statistics.median(times["bf16"])
    precision = "bf16" if ratio >= GAIN else "fp32"
    return precision, f"Matrix products in bf16 are {ratio:.1f} times as fast as in fp32 here: using {precision}."


def quick_attention(model: Any, longest: int) -> None:
    """Plain attention on a processor where texts are short; a model that has only one form keeps it."""
    supports = getattr(model, "set_attn_implementation", None)
    if supports is not None and longest <= SHORT:
        supports("eager")
