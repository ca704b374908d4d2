"""How sure each label of a row is, where a data set says it: column `probabilities`, numbers by label. Pure.

Several people who rated a text, or a larger model, often know more than one name: a text that 11 of 20 call positive
is hardly an example of it. Learning from the shares instead of the winner ("soft labels") keeps a model from being
surer than its data (Hinton et al. 2015; Peterson et al. 2019).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from llm_os.errors import DataError

COLUMN = "probabilities"
TOLERANCE = 0.01
"""By how much a sum may miss 1; it is set right then."""


def probabilities(row: Mapping[str, Any], labels: Sequence[str], where: str) -> list[float]:
    """Probability of each label, in the order of `labels`, sum 1. A row without the column is sure of its `label`.

    Raises:
        DataError: names the row (`where`): no such label, negative, no number, or a sum that is not 1.
    """
    given = row.get(COLUMN)
    if given is None:
        return [1.0 if label == str(row["label"]) else 0.0 for label in labels]
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = None
    hint = 'Write a number for each label, such as {"negative": 0.25, "positive": 0.75}, or leave the column out.'
    if not isinstance(given, Mapping):
        raise DataError(f"{where}: '{COLUMN}' holds no numbers by label.", hint=hint)
    for name in given:
        if name not in labels:
            raise DataError(f"{where}: '{COLUMN}' names '{name}'; the classes are {', '.join(labels)}.", hint=hint)
    values = [_number(given.get(label, 0.0)) for label in labels]
    total = sum(values)
    if not math.isfinite(total) or min(values) < 0 or abs(total - 1) > TOLERANCE:
        said = ", ".join(f"{name}: {value}" for name, value in given.items())
        raise DataError(f"{where}: '{COLUMN}' must be at least 0 each and sum to 1 ({said}).", hint=hint)
    return [value / total for value in values]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
