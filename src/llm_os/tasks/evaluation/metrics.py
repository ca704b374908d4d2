"""Figures as sums over rows: one form gives the value, its interval, its slices and its comparison. Reads no file.

A metric keeps some numbers for each row (its statistics) and says how the figure follows from their sums: accuracy
from (right, 1), perplexity from (-ln p, tokens), F1 from (true positives, said, true). So a resample is a product of
a matrix of counts with the statistics, and no metric needs code of its own for intervals or significance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Form:
    """How a figure follows from statistics.

    Attributes:
        value: sums [..., d] -> [...]; where `rows`, the statistics themselves [..., n, d] -> [...].
        rows: the figure is no function of sums (a rank correlation).
    """

    value: Callable[[Array], Array]
    rows: bool = False


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure and what it was computed from.

    Attributes:
        name: in snake case. form: a name in `FORMS`.
        statistics: float64 [rows, d].
        better: whether a higher or a lower value is the better one.
    """

    name: str
    form: str
    statistics: Array
    better: Literal["higher", "lower"] = "higher"

    def value(self) -> float:
        """NaN where it is not defined (no row counts)."""
        form = FORMS[self.form]
        given = self.statistics if form.rows else self.statistics.sum(axis=0)
        return float(form.value(given))

    def part(self, rows: Sequence[int] | NDArray[np.int64]) -> Metric:
        """Over these rows only."""
        return Metric(self.name, self.form, self.statistics[np.asarray(rows, dtype=np.int64)], self.better)

    @property
    def is_share(self) -> bool:
        """Whether it is a plain share of rows: each is right or wrong, and all count alike."""
        if self.form != "ratio" or not len(self.statistics):
            return False
        top, bottom = self.statistics[:, 0], self.statistics[:, 1]
        return bool((bottom == 1).all() and np.isin(top, (0.0, 1.0)).all())

    @property
    def in_points(self) -> bool:
        """Whether a difference is told in points of a hundred: the figure is a share between 0 and 1."""
        if self.form != "ratio":
            return self.form in {"f1", "macro_f1", "share", "ece"}
        top, bottom = self.statistics[:, 0], self.statistics[:, 1]
        return self.better == "higher" and bool((bottom == 1).all() and (top >= 0).all() and (top <= 1).all())


def mean(name: str, values: Sequence[float] | Array, better: Literal["higher", "lower"] = "higher") -> Metric:
    """The plain mean over rows."""
    array = np.asarray(values, dtype=np.float64)
    return Metric(name, "ratio", np.stack([array, np.ones_like(array)], axis=1), better)


def divided(top: Array, bottom: Array) -> Array:
    """`top / bottom`, and 0 where the latter is 0 (as scikit-learn does with zero_division=0)."""
    return np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=bottom != 0)


def _ratio(sums: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 0] / sums[..., 1]


def _exponential(sums: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.exp(_ratio(sums))


def _f1(sums: Array) -> Array:
    """Sums of (true positives, said, true)."""
    return divided(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


def _share(sums: Array) -> Array:
    """Like a ratio, and 0 where nothing counts: precision and recall."""
    return divided(sums[..., 0], sums[..., 1])


def _macro_f1(sums: Array) -> Array:
    """Sums of true positives, said and true, each for all classes; plain mean over classes."""
    hits, said, true = np.split(sums, 3, axis=-1)
    return divided(2 * hits, said + true).mean(axis=-1)


def _r2(sums: Array) -> Array:
    """Sums of (squared error, y, y squared, 1)."""
    error, y, squared, count = (sums[..., i] for i in range(4))
    return 1 - _ratio(np.stack([error, squared - y * y / count], axis=-1))


def _pearson(sums: Array) -> Array:
    """Sums of (x, y, x squared, y squared, x y, 1)."""
    x, y, xx, yy, xy, count = (sums[..., i] for i in range(6))
    spread = np.maximum(xx - x * x / count, 0) * np.maximum(yy - y * y / count, 0)
    return divided(xy - x * y / count, np.sqrt(spread))


def _ece(sums: Array) -> Array:
    """Sums of confidence by bin, of right by bin, and of 1 (Guo et al. 2017, equation 3)."""
    confidence, right = np.split(sums[..., :-1], 2, axis=-1)
    return np.abs(confidence - right).sum(axis=-1) / sums[..., -1]


def _bleu(sums: Array) -> Array:
    """Sums of 4 matches, 4 totals, length of the answers, of the references; smoothing `exp` as sacrebleu's default."""
    matched, total = sums[..., :4], sums[..., 4:8]
    said, wanted = sums[..., 8], sums[..., 9]
    halvings = np.cumsum((matched == 0) & (total > 0), axis=-1)
    precision = np.where(matched > 0, divided(matched, total), divided(np.power(0.5, halvings), total))
    with np.errstate(divide="ignore", over="ignore"):
        geometric = np.exp(np.log(precision).mean(axis=-1))
        brevity = np.where(said < wanted, np.exp(1 - divided(wanted, said)), 1.0)
    nothing = (matched.sum(axis=-1) == 0) | (said == 0)
    return np.where(nothing, 0.0, 100 * brevity * geometric)


def _chrf(sums: Array) -> Array:
    """Sums of (said, wanted, matched) for each order of n-grams; beta 2 (Popovic 2015), orders as sacrebleu counts."""
    said, wanted, matched = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    both = (said > 0) & (wanted > 0)
    orders = both.sum(axis=-1)
    precision = divided((divided(matched, said) * both).sum(axis=-1), orders)
    recall = divided((divided(matched, wanted) * both).sum(axis=-1), orders)
    return 100 * divided(5 * precision * recall, 4 * precision + recall)


def _spearman(rows: Array) -> Array:
    """Rows of (x, y): Pearson's correlation of their ranks, ties by their mean rank."""
    from scipy.stats import rankdata

    ranks = rankdata(rows, axis=-2)
    ranks = ranks - ranks.mean(axis=-2, keepdims=True)
    spread = np.sqrt((ranks**2).sum(axis=-2).prod(axis=-1))
    return divided((ranks[..., 0] * ranks[..., 1]).sum(axis=-1), spread)


FORMS: Mapping[str, Form] = {
    "ratio": Form(_ratio),
    "exponential": Form(_exponential),
    "root": Form(lambda sums: np.sqrt(_ratio(sums))),
    "share": Form(_share),
    "f1": Form(_f1),
    "macro_f1": Form(_macro_f1),
    "r2": Form(_r2),
    "pearson": Form(_pearson),
    "ece": Form(_ece),
    "bleu": Form(_bleu),
    "chrf": Form(_chrf),
    "spearman": Form(_spearman, rows=True),
}
