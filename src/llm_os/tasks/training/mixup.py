"""Mixup (Zhang et al. 2018) on what a network reads: each text is blended with another one, and so is the loss.

Words cannot be blended, their embeddings can (Guo et al. 2019, wordMixup). Knows no application: whatever examples
say is their loss is asked twice on the same outputs, once with each one's targets.
"""

from __future__ import annotations

import random
from typing import Any

from llm_os.tasks.training.examples import Batch, Examples, Forward


class Mixup:
    """Args:
    model: its input embeddings are blended.
    alpha: parameter of the beta distribution; small: mostly one of the two texts.
    seed: the draws depend on it, step and part alone, so nothing of it need be kept.
    """

    def __init__(self, model: Any, alpha: float, seed: int) -> None:
        self._embeddings = model.get_input_embeddings()
        self._alpha, self._seed = alpha, seed

    def loss(self, examples: Examples, forward: Forward, batch: Batch, step: int, part: int) -> Any:
        """Mean loss of a batch in which each example is blended with another one of it."""
        share, order = self.draw(len(batch["input_ids"]), step, part)
        outputs: list[Any] = []

        def once(**tensors: Any) -> Any:
            if not outputs:
                mask = tensors["attention_mask"]
                hook = self._embeddings.register_forward_hook(lambda _module, _inputs, out: _blend(out, share, order))
                try:
                    outputs.append(forward(**{**tensors, "attention_mask": mask | mask[order]}))
                finally:
                    hook.remove()
            return outputs[0]

        other = {name: value[order] for name, value in batch.items()}
        return share * examples.loss(once, batch) + (1 - share) * examples.loss(once, other)

    def draw(self, count: int, step: int, part: int) -> tuple[float, list[int]]:
        """Share of each example's own, and whose the rest is."""
        draw = random.Random(f"{self._seed}/mixup/{step}/{part}")
        order = list(range(count))
        draw.shuffle(order)
        return draw.betavariate(self._alpha, self._alpha), order


def _blend(embedded: Any, share: float, order: list[int]) -> Any:
    return share * embedded + (1 - share) * embedded[order]
