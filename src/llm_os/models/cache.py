"""Keys and values of several sequences of unequal length as one tensor a layer; knows transformers' cache interface.

Rows are sequences, columns are positions. Nothing is padded at the left, so a row's positions are its true ones and
its values do not depend on who else is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

ROOM = 64
"""Columns are added so many at a time: a copy of the cache every so many tokens, not at each."""


class Grid:
    """Keys and values [rows, heads, columns, width] of every layer."""

    def __init__(self) -> None:
        self._layers: list[list[Any]] = []

    @property
    def columns(self) -> int:
        return int(self._layers[0][0].shape[2]) if self._layers else 0

    def join(self, cache: Any, length: int) -> None:
        """Add a sequence at the end, from transformers' own cache of one row."""
        columns = max(self.columns, _rounded(length + 1))
        for index, layer in enumerate(cache.layers):
            new = [_widened(kept[:, :, :length], columns) for kept in (layer.keys, layer.values)]
            if index == len(self._layers):
                self._layers.append(new)
            else:
                self._layers[index] = [
                    _joined(_widened(old, columns), one) for old, one in zip(self._layers[index], new, strict=True)
                ]

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows, in this order."""
        if not rows:
            self._layers = []
        for index, pair in enumerate(self._layers):
            self._layers[index] = [kept[list(rows)] for kept in pair]

    @contextmanager
    def rows(self, count: int, lengths: Sequence[int]) -> Iterator[tuple[Any, Any, Any]]:
        """(cache, mask, positions) for one step of the first `count` rows, which have `lengths` tokens already."""
        import torch

        needed = max(lengths) + 1
        if needed > self.columns:
            for index, pair in enumerate(self._layers):
                self._layers[index] = [_widened(kept, _rounded(needed)) for kept in pair]
        at = torch.tensor(lengths)
        seen = -(-needed // 8) * 8  # the columns that can hold anything, not all that are kept
        mask = (torch.arange(seen) <= at[:, None])[:, None, None, :]
        yield _step_cache(self._layers, count, at, seen), mask, at[:, None]


def _rounded(length: int) -> int:
    return -(-length // ROOM) * ROOM


def _widened(kept: Any, columns: int) -> Any:
    import torch

    missing = columns - kept.shape[2]
    return kept if missing <= 0 else torch.nn.functional.pad(kept, (0, 0, 0, missing))


def _joined(rows: Any, new: Any) -> Any:
    import torch

    return torch.cat([rows, new])


def _step_cache(layers: list[list[Any]], count: int, at: Any, seen: int) -> Any:
    """A cache of transformers that writes each row at its own position."""
    import torch
    from transformers.cache_utils import Cache, DynamicLayer

    rows = torch.arange(count)

    class Row(DynamicLayer):
        def __init__(self, pair: list[Any]) -> None:
            super().__init__()
            self.pair = pair

        def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            for kept, new in zip(self.pair, (key_states, value_states), strict=True):
                kept[rows, :, at] = new[:, :, 0]
            keys, values = self.pair
            return keys[:count, :, :seen], values[:count, :, :seen]

        def get_seq_length(self) -> int:
            return seen - 1

    return Cache(layers=[Row(pair) for pair in layers])
