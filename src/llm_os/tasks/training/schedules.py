"""How the learning rate moves: a share of the highest rate for each step. Pure."""

from __future__ import annotations

import math

FLOOR = 0.1
"""Share of the highest rate that is kept at the end."""


def share(step: int, total: int, warmup: float) -> float:
    """Linear warm-up over `warmup` of `total` steps, then a cosine to `FLOOR`, which stays."""
    rise = max(1, int(warmup * total))
    if step < rise:
        return (step + 1) / rise
    done = min(1.0, (step - rise) / max(1, total - rise))
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done))
