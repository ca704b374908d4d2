"""Rows of a prepared split, and batches of like length in an order that depends on seed and epoch alone."""

from __future__ import annotations

import json
import random
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llm_os.errors import EmptyDataError, NotFoundError, did_you_mean

POOL = 50
"""Batches that are shuffled together before they are sorted by length: enough to mix, enough to find like lengths."""


def read_rows(folder: Path, split: str, start: int = 0, stop: int | None = None) -> list[dict[str, Any]]:
    """Rows [start, stop) of a split of a prepared data set. Raises NotFoundError, EmptyDataError."""
    path = folder / split / "rows.jsonl"
    if not path.exists():
        known = sorted(p.parent.name for p in folder.glob("*/rows.jsonl"))
        raise NotFoundError(f"The data set has no split '{split}'.", hint=did_you_mean(split, known))
    with path.open(encoding="utf-8") as file:
        rows = [
            json.loads(line) for number, line in enumerate(file) if start <= number and (stop is None or number < stop)
        ]
    if not rows:
        raise EmptyDataError(f"Rows {start} to {stop} of '{split}' are none.", hint="Choose another slice.")
    return rows


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of every example once, in batches of like length, shuffled; a pure function of its arguments."""
    shuffle = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    shuffle.shuffle(order)
    batches: list[list[int]] = []
    for begin in range(0, len(order), batch_size * POOL):
        pool = sorted(order[begin : begin + batch_size * POOL], key=lambda i: lengths[i])
        batches += [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
    shuffle.shuffle(batches)
    return batches


def parts(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    """A batch in parts of `size` examples, the last one shorter; in its order."""
    return [indices[at : at + size] for at in range(0, len(indices), size)]


def sorted_batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Every example once, longest first: for evaluation, where the order does not matter."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for begin in range(0, len(order), batch_size):
        yield order[begin : begin + batch_size]


def hold_out(count: int, share: float, seed: int, strata: Sequence[Hashable] | None) -> tuple[list[int], list[int]]:
    """(training, validation) indices; each stratum gives its share, and at least one where it has two."""
    shuffle = random.Random(f"{seed}/validation")
    groups: dict[Hashable, list[int]] = {}
    for index in range(count):
        groups.setdefault(0 if strata is None else strata[index], []).append(index)
    held: list[int] = []
    for _, members in sorted(groups.items(), key=lambda group: str(group[0])):
        shuffle.shuffle(members)
        held += members[: max(1, round(share * len(members)))] if len(members) > 1 else []
    kept = set(held)
    return [index for index in range(count) if index not in kept], sorted(held)
