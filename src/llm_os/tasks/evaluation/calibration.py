"""Whether a model is as sure as it is right: bins, expected calibration error, Brier score."""

from __future__ import annotations

from typing import Any

import numpy as np

from llm_os.spec.base import Json
from llm_os.tasks.evaluation.metrics import Array, Metric, mean

BINS = 15
"""Of equal width, as Guo et al. 2017 ("On Calibration of Modern Neural Networks") took."""


def calibration_error(confidence: Array, right: Array, bins: int = BINS) -> Metric:
    """Expected calibration error: mean over bins of |confidence - accuracy|, weighted by rows.

    Args:
        confidence: probability of what was said, [rows]. right: 1 or 0, [rows].
    """
    inside = np.eye(bins)[bin_of(confidence, bins)]
    statistics = np.concatenate(
        [inside * confidence[:, None], inside * right[:, None], np.ones((len(right), 1))], axis=1
    )
    return Metric("ece", "ece", statistics, "lower")


def brier(probabilities: Array, true: Any) -> Metric:
    """Brier score over all classes: squared distance to the true one-hot vector, from 0 to 2 (Brier 1950)."""
    wanted = np.eye(probabilities.shape[1])[true]
    return mean("brier", ((probabilities - wanted) ** 2).sum(axis=1), "lower")


def reliability(confidence: Array, right: Array, bins: int = BINS) -> list[Json]:
    """For each bin with a row: its bounds, rows, mean confidence and accuracy."""
    place = bin_of(confidence, bins)
    found: list[Json] = []
    for number in range(bins):
        chosen = place == number
        if chosen.any():
            found.append(
                {
                    "low": number / bins,
                    "high": (number + 1) / bins,
                    "count": int(chosen.sum()),
                    "confidence": float(confidence[chosen].mean()),
                    "accuracy": float(right[chosen].mean()),
                }
            )
    return found


def bin_of(confidence: Array, bins: int) -> Any:
    """Number of the bin of each; a bin holds its upper bound, the first one also 0."""
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
