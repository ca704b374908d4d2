"""Intervals cover what they promise, tests of significance are scipy's and reject as often as they should."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from llm_os.tasks.evaluation.metrics import Metric, mean
from llm_os.tasks.evaluation.resampling import bca, compare, intervals, mcnemar, permutation, resamples_for, wilson


def test_intervals_of_accuracy_cover_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(7)
    inside = []
    for trial in range(300):
        right = (random.random(120) < 0.8).astype(float)
        (found,) = intervals([mean("accuracy", right)], resamples=500, seed=trial)
        inside.append(found.low <= 0.8 <= found.high)
    assert 0.915 <= np.mean(inside) <= 0.98


def test_intervals_of_a_skewed_loss_cover_the_truth() -> None:
    random = np.random.default_rng(8)
    inside = []
    for trial in range(300):
        loss = random.exponential(size=100)
        (found,) = intervals([mean("loss", loss, "lower")], resamples=500, seed=trial)
        inside.append(found.low <= 1.0 <= found.high)
    assert 0.90 <= np.mean(inside) <= 0.98


def test_the_interval_is_that_of_scipy() -> None:
    from scipy.stats import bootstrap

    loss = np.random.default_rng(1).gamma(2.0, size=150)
    (mine,) = intervals([mean("loss", loss, "lower")], resamples=10_000)
    other = bootstrap((loss,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(2))
    assert mine.low == pytest.approx(other.confidence_interval.low, rel=0.01)
    assert mine.high == pytest.approx(other.confidence_interval.high, rel=0.01)


def test_the_same_seed_gives_the_same_interval_and_another_one_does_not() -> None:
    metric = mean("loss", np.random.default_rng(1).random(50), "lower")
    assert intervals([metric], seed=1) == intervals([metric], seed=1)
    assert intervals([metric], seed=1) != intervals([metric], seed=2)


def test_a_metric_beside_others_has_the_interval_it_has_alone() -> None:
    random = np.random.default_rng(4)
    a, b = mean("a", random.random(80)), Metric("s", "spearman", random.random((80, 2)))
    assert intervals([a, b], resamples=200)[0] == pytest.approx(intervals([a], resamples=200)[0], abs=0.02)


def test_all_right_is_not_certain() -> None:
    (found,) = intervals([mean("accuracy", np.ones(20))])
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(1 / (1 + 1.959964**2 / 20), abs=1e-6)  # Wilson, by hand
    assert wilson(0.5, 100, 0.95) == pytest.approx((0.4038, 0.5962), abs=1e-4)  # known value


def test_mcnemar_is_the_binomial_test_on_disagreements() -> None:
    from math import comb

    a = np.array([1.0] * 12 + [0.0] * 3 + [1.0] * 80)
    b = np.array([0.0] * 12 + [1.0] * 3 + [1.0] * 80)
    by_hand = 2 * sum(comb(15, k) for k in range(4)) / 2**15
    assert mcnemar(a, b) == pytest.approx(by_hand)
    assert mcnemar(a, a) == 1.0


def test_permutation_agrees_with_all_permutations_of_a_small_case() -> None:
    a, b = np.array([0.1, 0.5, 0.4, 0.9, 0.2, 0.8, 0.3]), np.array([0.4, 0.6, 0.9, 0.8, 0.7, 1.2, 0.2])
    gaps = [np.mean(np.array(signs) * (a - b)) for signs in itertools.product((1, -1), repeat=7)]
    exact = np.mean(np.abs(gaps) >= abs(np.mean(a - b)) - 1e-12)
    mine = permutation(mean("loss", a, "lower"), mean("loss", b, "lower"), count=20_000)
    assert mine == pytest.approx(exact, abs=0.015)


def test_equal_models_are_called_different_no_more_often_than_allowed() -> None:
    random = np.random.default_rng(11)
    called = []
    for trial in range(200):
        a, b = random.exponential(size=60), random.exponential(size=60)
        p = permutation(mean("loss", a, "lower"), mean("loss", b, "lower"), count=400, seed=trial)
        called.append(p < 0.05)
    assert np.mean(called) <= 0.095


def test_a_better_model_is_named_whichever_way_its_figure_points() -> None:
    random = np.random.default_rng(5)
    worse = random.random(300)
    found = compare(mean("loss", worse - 0.1, "lower"), mean("loss", worse + 0.02 * random.random(300), "lower"))
    assert (found.better, found.test) == ("a", "permutation")
    assert found.low < found.difference < found.high < 0
    assert found.p < 0.001
    a, b = (random.random(300) < 0.7).astype(float), (random.random(300) < 0.95).astype(float)
    assert compare(mean("accuracy", a), mean("accuracy", b)).better == "b"
    assert compare(mean("accuracy", a), mean("accuracy", a)).better is None


def test_comparison_turned_round_is_the_same_comparison() -> None:
    random = np.random.default_rng(6)
    a, b = mean("x", random.random(100)), mean("x", random.random(100))
    one, other = compare(a, b), compare(b, a)
    assert one.difference == -other.difference
    assert one.low == pytest.approx(-other.high, abs=0.01)
    assert one.p == pytest.approx(other.p, abs=0.02)


def test_unequal_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="same rows"):
        compare(mean("x", [1.0, 0.0]), mean("x", [1.0, 0.0, 1.0]))


def test_large_data_gets_fewer_resamples_but_never_too_few() -> None:
    assert resamples_for(3000, 2000) == 2000
    assert resamples_for(1_000_000, 2000) == 400
    assert resamples_for(50_000_000, 2000) == 200


def test_a_figure_without_spread_has_a_point_for_an_interval() -> None:
    assert bca(0.5, np.full(100, 0.5), np.full(10, 0.5), 0.95) == (0.5, 0.5)
