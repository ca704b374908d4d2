"""What each class counts in a loss, so that rare ones are not learnt last. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from llm_os.errors import InvalidOptionError, did_you_mean


def class_weights(
    wanted: Literal["balanced"] | Mapping[str, float] | None, labels: Sequence[str], targets: Sequence[float]
) -> list[float] | None:
    """A weight for each label; None: all count alike.

    Args:
        wanted: `balanced` is rows / (classes * rows of the class), as in scikit-learn; or numbers by label, 1 where
            one is not named.
        targets: class ids of the training rows.

    Raises:
        InvalidOptionError: a label is not of the data.
    """
    if wanted is None:
        return None
    if isinstance(wanted, str):
        counts = Counter(int(target) for target in targets)
        return [
            len(targets) / (len(labels) * counts[number]) if counts[number] else 1.0 for number in range(len(labels))
        ]
    for name in wanted:
        if name not in labels:
            raise InvalidOptionError(f"class_weights names a class '{name}'.", hint=did_you_mean(name, labels))
    return [float(wanted.get(label, 1.0)) for label in labels]
