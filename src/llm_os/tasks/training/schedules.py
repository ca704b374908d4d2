"""How the learning rate moves: a share of the highest rate for each step. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

FLOOR = 0.1
"""Share of the highest rate that is kept at the end, where a schedule falls to an end."""
START = 25.0
END = 1e4
"""One-cycle (Smith & Topin 2017) starts at 1 / START of the highest rate and ends at 1 / END of its start."""


def _cosine(done: float) -> float:
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done))


def _linear(done: float) -> float:
    return FLOOR + (1 - FLOOR) * (1 - done)


def _polynomial(done: float) -> float:
    return FLOOR + (1 - FLOOR) * (1 - done) ** 2


FALLS: dict[str, Callable[[float], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "polynomial": _polynomial,
    "constant": lambda _: 1.0,
}
"""Share of the highest rate when a part, from 0 to 1, of the time after the warm-up is over."""


def share(schedule: str, step: int, total: int, warmup: float) -> float:
    """Share of the highest rate at `step`, from 0.

    Args:
        schedule: `cosine`, `linear` and `polynomial` (a square) fall to `FLOOR`, which stays; `constant` stays;
            `inverse_sqrt` falls with the root of the step, without an end; `one_cycle` rises and falls by cosines.
        total: steps of the schedule.
        warmup: part of it in which the rate rises in a line (`one_cycle`: by a cosine).
    """
    rise = max(1, int(warmup * total))
    if schedule == "one_cycle":
        return _one_cycle(step, total, rise)
    if step < rise:
        return (step + 1) / rise
    if schedule == "inverse_sqrt":
        return math.sqrt(rise / (step + 1))
    return FALLS[schedule](min(1.0, (step - rise) / max(1, total - rise)))


def _one_cycle(step: int, total: int, rise: int) -> float:
    low, end, top = 1 / START, 1 / START / END, rise - 1
    if step <= top:
        return 1.0 if top == 0 else _between(low, 1.0, step / top)
    return _between(1.0, end, min(1.0, (step - top) / max(1, total - 1 - top)))


def _between(start: float, end: float, done: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * done))
