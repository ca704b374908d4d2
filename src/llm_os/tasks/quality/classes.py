"""How many rows each class has, split by split; or, where the label is a number, how the numbers lie."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from llm_os.spec.quality import Spread
from llm_os.tasks.datasets.kinds import Kind
from llm_os.tasks.quality.lengths import spread
from llm_os.tasks.quality.rows import Seen


class ClassCheck:
    """
    Args:
        names: of the classes that are known. splits: that are described.
    """

    def __init__(self, kind: Kind, names: Sequence[str], splits: Sequence[str]) -> None:
        self._kind = kind
        self._counts: dict[str, dict[str, int]] = {split: dict.fromkeys(names, 0) for split in splits}
        self._numbers: array[float] = array("d")

    def add(self, seen: Seen) -> None:
        label = self._kind.label
        if self._kind.classes:
            own = self._counts[seen.at.split]
            for name in seen.names:
                own[name] = own.get(name, 0) + 1
        elif label is not None and isinstance(value := seen.row.get(label), int | float):
            self._numbers.append(float(value))

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        return self._counts if self._kind.classes else {}

    @property
    def score(self) -> Spread | None:
        return spread(self._numbers) if self._numbers else None
