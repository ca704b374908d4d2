"""How sure a figure is, and whether two differ: bootstrap, McNemar, permutation. Seeded; knows metrics by their form.

Intervals are BCa bootstrap intervals (Efron 1987, "Better bootstrap confidence intervals", sections 3 and 6), with the
acceleration from the jackknife. Plain shares of rows (accuracy, exact match) get Wilson's score interval where every
row is right or every row is wrong, because all resamples are equal then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from llm_os.tasks.evaluation.metrics import FORMS, Array, Metric

CHUNK = 4_000_000
"""Numbers held at once: a chunk of resamples times rows."""
MOST_DRAWS = 400_000_000
"""Rows times resamples, at most: larger data gets fewer resamples (it needs fewer), never fewer than 200."""
PERMUTATIONS = 10_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the bounds of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """`a - b` for one metric.

    Attributes:
        low, high: interval of the difference, by paired bootstrap.
        p: two-sided; probability of a difference at least so large if both were alike.
        test: how `p` was computed.
        better: the side that is better, where the interval leaves no doubt.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    test: Literal["McNemar, exact", "permutation"]
    better: Literal["a", "b"] | None


def resamples_for(rows: int, wanted: int) -> int:
    """`wanted`, or fewer where the data is very large."""
    return max(min(wanted, MOST_DRAWS // max(1, rows)), min(wanted, 200))


def intervals(
    metrics: Sequence[Metric], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 42
) -> list[Interval]:
    """An interval for each metric; all metrics see the same resamples.

    Raises:
        ValueError: no metric has a row.
    """
    columns = [[metric] for metric in metrics]
    draws = _draws(columns, resamples, seed)
    found = []
    for metric, drawn in zip(metrics, draws, strict=True):
        value = metric.value()
        if metric.is_share and value in (0.0, 1.0):
            found.append(Interval(value, *wilson(value, len(metric.statistics), confidence)))
            continue
        low, high = bca(value, drawn, _left_out(metric), confidence)
        found.append(Interval(value, low, high))
    return found


def compare(a: Metric, b: Metric, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 42) -> Difference:
    """Two versions of one metric on the same rows.

    `p` is from McNemar's exact test for plain shares of rows, else from a permutation test that swaps the two versions
    row by row (Good 2005, chapter 3), with (count + 1) / (permutations + 1).

    Raises:
        ValueError: the two have different rows or forms.
    """
    if a.form != b.form or a.statistics.shape != b.statistics.shape:
        raise ValueError("both sides need the same metric on the same rows")
    first, second = a.value(), b.value()
    drawn = _draws([[a, b]], resamples, seed)[0]
    low, high = bca(first - second, drawn, _left_out(a) - _left_out(b), confidence)
    if a.is_share and b.is_share:
        p, test = mcnemar(a.statistics[:, 0], b.statistics[:, 0]), "McNemar, exact"
    else:
        p, test = permutation(a, b, seed=seed), "permutation"
    better: Literal["a", "b"] | None = None
    if low > 0 or high < 0:
        better = "a" if (low > 0) == (a.better == "higher") else "b"
    return Difference(first, second, first - second, low, high, p, test, better)  # type: ignore[arg-type]


def mcnemar(a: Array, b: Array) -> float:
    """Exact two-sided p of McNemar's test for two vectors of right (1) and wrong (0); 1 where they never disagree.

    Source: McNemar 1947; the exact form is a binomial test with one half on the rows where the two disagree.
    """
    from scipy.stats import binomtest

    only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def permutation(a: Metric, b: Metric, *, count: int = PERMUTATIONS, seed: int = 42) -> float:
    """Two-sided p: how often swapping the two versions in random rows gives a difference at least so large."""
    form, rows = FORMS[a.form], len(a.statistics)
    seen = abs(a.value() - b.value())
    count = resamples_for(rows, count)
    random = np.random.default_rng(seed)
    reached = 0
    step = b.statistics - a.statistics
    total_a, total_b = a.statistics.sum(axis=0), b.statistics.sum(axis=0)
    for size in _chunks(count, rows * (a.statistics.shape[1] if form.rows else 1)):
        swap = random.integers(0, 2, size=(size, rows)).astype(np.float64)
        if form.rows:
            moved = swap[:, :, None] * step
            gap = form.value(a.statistics + moved) - form.value(b.statistics - moved)
        else:
            moved = swap @ step
            gap = form.value(total_a + moved) - form.value(total_b - moved)
        reached += int((np.abs(gap) >= seen - 1e-12 * max(1.0, seen)).sum())
    return (reached + 1) / (count + 1)


def wilson(share: float, rows: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927)."""
    z = float(ndtri(0.5 + confidence / 2))
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows)) / (1 + z * z / rows)
    return max(0.0, middle - half), min(1.0, middle + half)


def bca(value: float, draws: Array, left_out: Array, confidence: float) -> tuple[float, float]:
    """Bias-corrected and accelerated interval.

    Args:
        draws: the figure on each resample. left_out: the figure without each row (or block of rows) in turn.
    """
    draws = draws[np.isfinite(draws)]
    if not len(draws) or not math.isfinite(value):
        return math.nan, math.nan
    if float(np.ptp(draws)) <= 1e-12 * max(1.0, abs(value)):
        return value, value
    below = ((draws < value).sum() + 0.5 * (draws == value).sum()) / len(draws)
    bias = ndtri(np.clip(below, 1 / (len(draws) + 1), 1 - 1 / (len(draws) + 1)))
    spread = left_out[np.isfinite(left_out)]
    spread = spread.mean() - spread
    square = float((spread**2).sum())
    acceleration = float((spread**3).sum()) / (6 * square**1.5) if square > 0 else 0.0
    bounds = ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2])) + bias
    shares = ndtr(bias + bounds / (1 - acceleration * bounds))
    low, high = np.quantile(draws, np.clip(shares, 0.0, 1.0))
    return float(low), float(high)


def _draws(columns: Sequence[Sequence[Metric]], resamples: int, seed: int) -> list[Array]:
    """For each column the figure of its metric on each resample; for two metrics in it their difference."""
    rows = len(columns[0][0].statistics)
    if not rows:
        raise ValueError("there are no rows to resample")
    flat = [metric for column in columns for metric in column]
    summed = [metric for metric in flat if not FORMS[metric.form].rows]
    whole = np.concatenate([m.statistics for m in summed], axis=1) if summed else np.zeros((rows, 0))
    parts: list[list[Array]] = [[] for _ in flat]
    wide = rows * max([2, *(m.statistics.shape[1] for m in flat if FORMS[m.form].rows)])
    random = np.random.default_rng(seed)
    for size in _chunks(resamples_for(rows, resamples), wide):
        chosen = random.integers(0, rows, size=(size, rows))
        sums = _counts(chosen, rows) @ whole
        at = 0
        for place, metric in enumerate(flat):
            form = FORMS[metric.form]
            if form.rows:
                parts[place].append(form.value(metric.statistics[chosen]))
                continue
            width = metric.statistics.shape[1]
            parts[place].append(form.value(sums[:, at : at + width]))
            at += width
    values = iter([np.concatenate(part) for part in parts])
    return [next(values) if len(column) == 1 else next(values) - next(values) for column in columns]


def _counts(chosen: NDArray[np.int64], rows: int) -> Array:
    """[resamples, rows]: how often each row is in each resample."""
    size = len(chosen)
    flat = (chosen + np.arange(size)[:, None] * rows).ravel()
    return np.bincount(flat, minlength=size * rows).reshape(size, rows).astype(np.float64)


def _left_out(metric: Metric) -> Array:
    """The figure without each row in turn; a form that is no function of sums: without each of up to 200 blocks."""
    form, statistics = FORMS[metric.form], metric.statistics
    if not form.rows:
        return form.value(statistics.sum(axis=0) - statistics)
    blocks = np.array_split(np.arange(len(statistics)), min(200, len(statistics)))
    return np.array([float(form.value(np.delete(statistics, block, axis=0))) for block in blocks])


def _chunks(count: int, width: int) -> Iterator[int]:
    size = max(1, CHUNK // max(1, width))
    for begin in range(0, count, size):
        yield min(size, count - begin)
