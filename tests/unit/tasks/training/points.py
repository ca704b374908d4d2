"""A network of a few numbers and examples for it: the loop's options are tested without texts and transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from tiny import Bench

from llm_os.tasks.training.examples import Batch, Examples, Forward
from llm_os.tasks.training.loop import Loop, Outcome
from llm_os.tasks.training.options import TrainingOptions

QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 8, "precision": "fp32", "early_stopping": False}


class Points(Examples):
    """Vectors of four numbers; the sum of their squares is to be learnt. `seen` keeps the sizes of batches."""

    def __init__(self, x: Any) -> None:
        self.x = x
        self.lengths = [1 + int(abs(row[0]) * 10) for row in x]
        self.seen: list[int] = []

    def part(self, indices: Sequence[int]) -> Self:
        return type(self)(self.x[list(indices)])

    def collate(self, indices: Sequence[int]) -> Batch:
        self.seen.append(len(indices))
        x = self.x[list(indices)]
        return {"input_ids": x, "targets": x.square().sum(-1)}

    def loss(self, forward: Forward, batch: Batch) -> Any:
        return torch.nn.functional.mse_loss(forward(input_ids=batch["input_ids"]), batch["targets"])


class Net(torch.nn.Module):
    """Three layers that are named as those of transformers are, and a head."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embeddings = torch.nn.Linear(4, 16)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(16, 16) for _ in range(3)])
        self.classifier = torch.nn.Linear(16, 1)
        self.dropout = torch.nn.Dropout(dropout)

    def get_input_embeddings(self) -> Any:
        return self.embeddings

    def forward(self, input_ids: Any) -> Any:
        hidden = self.embeddings(input_ids).tanh()
        for layer in self.layers:
            hidden = self.dropout(layer(hidden).tanh())
        return self.classifier(hidden).squeeze(-1)


def points(count: int = 64, seed: int = 1) -> Points:
    return Points(torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)))


def loop(root: Path, net: Net, worker: int = 0, valid: Points | None = None, **options: Any) -> tuple[Loop, Bench]:
    """A loop over 64 points in folders of `root`; a second one on the same folders goes on."""
    bench = Bench(root, {})
    known = TrainingOptions.model_validate({**QUICK, **options})
    rate = 1e-2 if known.learning_rate == "auto" else known.learning_rate
    made = Loop(
        bench.context,
        known,
        model=net,
        train=points(),
        valid=valid,
        identity={"data": "points"},
        rate=rate,
        heads=("classifier",),
        worker=worker,
    )
    return made, bench


def train(root: Path, net: Net | None = None, **options: Any) -> tuple[Outcome, Net]:
    """Run it. Returns the outcome and the network with its final weights."""
    net = net or Net()
    made, _ = loop(root, net, **options)
    return made.run(), net
