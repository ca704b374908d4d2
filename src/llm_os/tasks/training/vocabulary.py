"""Trains only the rows of an embedding that the data can reach: the others have no gradient, and most of a vocabulary
never occurs in a data set. Knows models as transformers builds them, and no application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

WORTH = 0.7
"""Share of the vocabulary above which nothing is gained."""


class Compact:
    """Puts a smaller embedding in the place of a model's, until `expand`.

    The rows that are left out would have zero gradients in every step, so Adam's moments of them stay zero; only weight
    decay would touch them (0.03 % in a usual training), and they stay as they are instead.
    """

    def __init__(self, model: Any, used: Iterable[int]) -> None:
        import torch

        class Rows(torch.nn.Module):
            """An embedding of some ids, called with ids of the whole vocabulary. `places`: id -> row."""

            def __init__(self, whole: Any, ids: Any) -> None:
                super().__init__()
                places = torch.full((len(whole.weight),), -1)
                places[ids] = torch.arange(len(ids))
                self.register_buffer("places", places, persistent=False)
                self.weight = torch.nn.Parameter(whole.weight.detach()[ids].clone())
                self.padding_idx = None if whole.padding_idx is None else int(places[whole.padding_idx])

            def forward(self, input_ids: Any) -> Any:
                return torch.nn.functional.embedding(self.places[input_ids], self.weight, self.padding_idx)

        self._model, self._whole = model, model.get_input_embeddings()
        own = {self._whole.padding_idx} if self._whole.padding_idx is not None else set()
        self._ids = torch.tensor(sorted({*used, *own}))
        self._rows = Rows(self._whole, self._ids).to(self._whole.weight.device)
        model.set_input_embeddings(self._rows)

    def expand(self) -> None:
        """Put what was learnt back into the whole embedding, and that back into the model."""
        import torch

        with torch.no_grad():
            self._whole.weight[self._ids] = self._rows.weight
        self._model.set_input_embeddings(self._whole)


def compact(model: Any, used: Iterable[int] | None) -> Compact | None:
    """A compact embedding in the place of the model's; None where that would change what is learnt, or gains nothing.

    Args:
        used: ids that can reach the embedding; None: any.
    """
    import torch

    whole: Any = getattr(model, "get_input_embeddings", lambda: None)()
    if used is None or type(whole) is not torch.nn.Embedding or not whole.weight.requires_grad:
        return None
    holders = [name for name, p in model.named_parameters(remove_duplicate=False) if p is whole.weight]
    ids = set(used)
    if len(holders) != 1 or whole.max_norm is not None or len(ids) > WORTH * len(whole.weight):
        return None
    return Compact(model, ids)
