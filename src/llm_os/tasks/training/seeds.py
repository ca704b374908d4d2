"""Seeds and the whole random state: each worker draws its own numbers, and a resumed one goes on where it was."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Mapping
from typing import Any

WORKER = 1_000_003
"""A prime: seeds of workers lie so far apart that nobody's next seed is a neighbour's."""


def seed_of(seed: int, worker: int) -> int:
    """Seed of one of several workers; worker 0 has the seed itself."""
    return (seed + worker * WORKER) % 2**32


def seed_all(seed: int, worker: int = 0) -> None:
    """Seed Python, numpy and torch (all its devices)."""
    import numpy
    import torch

    own = seed_of(seed, worker)
    random.seed(own)
    numpy.random.seed(own)
    torch.manual_seed(own)


def state() -> dict[str, Any]:
    """Everything that random draws depend on, as JSON."""
    import numpy
    import torch

    kind, keys, *rest = numpy.random.get_state()
    return {
        "python": json.loads(json.dumps(random.getstate())),
        "numpy": [str(kind), [int(key) for key in keys], *rest],
        "torch": _text(torch.get_rng_state()),
        "cuda": [_text(one) for one in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    }


def restore(saved: Mapping[str, Any]) -> None:
    import numpy
    import torch

    version, inner, gauss = saved["python"]
    random.setstate((version, tuple(inner), gauss))
    kind, keys, *rest = saved["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), *rest))
    torch.set_rng_state(_bytes(saved["torch"]))
    if saved["cuda"]:
        torch.cuda.set_rng_state_all([_bytes(one) for one in saved["cuda"]])


def _text(state: Any) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _bytes(text: str) -> Any:
    import numpy
    import torch

    return torch.from_numpy(numpy.frombuffer(base64.b64decode(text), dtype=numpy.uint8).copy())
