"""Rows to token ids, and batches of texts of like length in an order that depends on seed and epoch alone."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_os.errors import DataError, EmptyDataError, NotFoundError, did_you_mean

POOL = 50
"""Batches that are shuffled together before they are sorted by length: enough to mix, enough to find like lengths."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Token ids and targets (class ids, or numbers for a regression), one of each a row."""

    tokens: list[list[int]]
    targets: list[float]

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, indices: Sequence[int]) -> Examples:
        return Examples([self.tokens[i] for i in indices], [self.targets[i] for i in indices])


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


def encode(rows: Sequence[dict[str, Any]], tokenizer: Any, labels: Sequence[str] | None, max_length: int) -> Examples:
    """Tokenize texts and turn labels to ids. Raises DataError for a label the model does not know."""
    ids = {label: number for number, label in enumerate(labels or ())}
    targets = []
    for number, row in enumerate(rows):
        label = row["label"]
        if labels is None:
            targets.append(float(label))
        elif str(label) in ids:
            targets.append(float(ids[str(label)]))
        else:
            raise DataError(f"Row {number} has the label '{label}'.", hint=f"The classes are: {', '.join(ids)}.")
    texts = [str(row["text"]) for row in rows]
    tokens = tokenizer(texts, truncation=True, max_length=max_length, padding=False)["input_ids"]
    return Examples([list(ids) for ids in tokens], targets)


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


def sorted_batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Every example once, longest first: for evaluation, where the order does not matter."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for begin in range(0, len(order), batch_size):
        yield order[begin : begin + batch_size]


def hold_out(targets: Sequence[float], share: float, seed: int, *, stratified: bool) -> tuple[list[int], list[int]]:
    """(training, validation) indices; each class gives its share, and at least one row where it has two."""
    shuffle = random.Random(f"{seed}/validation")
    groups: dict[float, list[int]] = {}
    for index, target in enumerate(targets):
        groups.setdefault(target if stratified else 0.0, []).append(index)
    held: list[int] = []
    for _, members in sorted(groups.items()):
        shuffle.shuffle(members)
        held += members[: max(1, round(share * len(members)))] if len(members) > 1 else []
    kept = set(held)
    return [index for index in range(len(targets)) if index not in kept], sorted(held)


def collate(examples: Examples, indices: Sequence[int], pad: int) -> tuple[Any, Any, Any]:
    """(ids, mask, targets): int64 [batch, longest], int64 [batch, longest], float32 [batch]."""
    import torch

    longest = max(len(examples.tokens[i]) for i in indices)
    ids = torch.full((len(indices), longest), pad, dtype=torch.long)
    mask = torch.zeros((len(indices), longest), dtype=torch.long)
    for place, index in enumerate(indices):
        tokens = torch.tensor(examples.tokens[index], dtype=torch.long)
        ids[place, : len(tokens)] = tokens
        mask[place, : len(tokens)] = 1
    return ids, mask, torch.tensor([examples.targets[i] for i in indices], dtype=torch.float32)
