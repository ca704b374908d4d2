"""A moving average of the weights (EMA): smoother than the last ones, and what is judged and saved when it is on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any


class Average:
    """Averages of the trained parameters of a model, in fp32, beside it.

    The decay begins low, min(decay, (1 + step) / (10 + step)), so that the first noise is soon forgotten (as in
    TensorFlow's ExponentialMovingAverage with `num_updates`).
    """

    def __init__(self, model: Any, decay: float) -> None:
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._decay = decay
        self.weights = {name: p.detach().clone() for name, p in self._parameters.items()}

    def update(self, step: int) -> None:
        """Take in the weights after step number `step`, counted from 1."""
        import torch

        decay = min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, average in self.weights.items():
                average.lerp_(self._parameters[name].detach(), 1 - decay)

    def load(self, weights: Mapping[str, Any]) -> None:
        for name, average in self.weights.items():
            average.copy_(weights[name])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averages for weights inside of this."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, average in self.weights.items():
            parameter = self._parameters[name]
            parameter.data, self.weights[name] = average, parameter.data
