"""Every form of figure against scikit-learn, scipy or sacrebleu."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_os.tasks.evaluation.calibration import calibration_error, reliability
from llm_os.tasks.evaluation.classification import classified, estimated
from llm_os.tasks.evaluation.metrics import Metric, mean

LABELS = ["bad", "fair", "good"]


def rows_and_probabilities(count: int = 300) -> tuple[list[dict[str, str]], np.ndarray]:
    random = np.random.default_rng(3)
    logits = random.normal(size=(count, 3))
    true = (logits + random.normal(size=(count, 3))).argmax(axis=1)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return [{"text": f"text {at}", "label": LABELS[t]} for at, t in enumerate(true)], probabilities


def test_figures_of_a_classifier_are_those_of_scikit_learn() -> None:
    from sklearn import metrics as sk

    rows, probabilities = rows_and_probabilities()
    judged = classified(rows, probabilities, LABELS)
    values = {metric.name: metric.value() for metric in judged.metrics}
    true = [LABELS.index(row["label"]) for row in rows]
    said = probabilities.argmax(axis=1)
    assert values["accuracy"] == pytest.approx(sk.accuracy_score(true, said))
    assert values["macro_f1"] == pytest.approx(sk.f1_score(true, said, average="macro"))
    assert values["loss"] == pytest.approx(sk.log_loss(true, probabilities))
    assert values["brier"] == pytest.approx(
        sk.brier_score_loss(true, probabilities, scale_by_half=False, labels=[0, 1, 2])
    )
    assert judged.further["confusion"] == sk.confusion_matrix(true, said).tolist()
    per_class = judged.further["per_class"]
    assert isinstance(per_class, dict)
    assert [per_class[name]["recall"] for name in LABELS] == pytest.approx(sk.recall_score(true, said, average=None))  # type: ignore[index, call-overload]


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.9, 0.65, 0.6, 0.55])
    right = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    # bins of width 0.2: (0.8, 1]: 0.925 sure, 0.5 right, 2 rows; (0.6, 0.8]: 0.65, 1, 1 row; (0.4, 0.6]: 0.575, 0.5, 2
    by_hand = (2 * abs(0.925 - 0.5) + abs(0.65 - 1) + 2 * abs(0.575 - 0.5)) / 5
    assert calibration_error(confidence, right, bins=5).value() == pytest.approx(by_hand)
    assert [one["count"] for one in reliability(confidence, right, bins=5)] == [2, 1, 2]  # type: ignore[index, call-overload]


def test_a_model_that_is_as_sure_as_it_is_right_has_no_calibration_error() -> None:
    confidence = np.full(1000, 0.7)
    right = np.array([1.0] * 700 + [0.0] * 300)
    assert calibration_error(confidence, right).value() == pytest.approx(0, abs=1e-12)


def test_figures_of_a_regression_are_those_of_scikit_learn_and_scipy() -> None:
    from scipy.stats import pearsonr
    from sklearn import metrics as sk

    random = np.random.default_rng(1)
    true = random.normal(size=200)
    said = true + random.normal(size=200)
    judged = estimated([{"text": "x", "label": float(t)} for t in true], [[float(s)] for s in said])
    values = {metric.name: metric.value() for metric in judged.metrics}
    assert values["loss"] == pytest.approx(sk.mean_squared_error(true, said))
    assert values["mean_absolute_error"] == pytest.approx(sk.mean_absolute_error(true, said))
    assert values["root_mean_squared_error"] == pytest.approx(sk.root_mean_squared_error(true, said))
    assert values["r2"] == pytest.approx(sk.r2_score(true, said))
    assert values["pearson"] == pytest.approx(pearsonr(true, said).statistic)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=30).filter(
        lambda pairs: len({a for a, _ in pairs}) > 1 and len({b for _, b in pairs}) > 1
    )
)
def test_rank_correlation_is_scipys_with_ties(pairs: list[tuple[int, int]]) -> None:
    from scipy.stats import spearmanr

    rows = np.array(pairs, dtype=np.float64)
    assert Metric("s", "spearman", rows).value() == pytest.approx(spearmanr(rows[:, 0], rows[:, 1]).statistic)


SENTENCES = [
    ("the cat sat on the mat", "the cat sat on a mat"),
    ("a fine film, truly", "truly a fine film"),
    ("nothing in common", "其他 的 文字"),
    ("the end", "the end of it all"),
]


@pytest.mark.parametrize("pick", [[0, 1, 2, 3], [0, 0, 1], [3], [2], [1, 3, 3], [0]])
def test_bleu_and_chrf_of_any_resample_are_sacrebleus(pick: list[int]) -> None:
    from sacrebleu.metrics import BLEU, CHRF

    said, wanted = [SENTENCES[i][0] for i in pick], [SENTENCES[i][1] for i in pick]
    for form, judge in (("bleu", BLEU()), ("chrf", CHRF())):
        rows = judge._extract_corpus_statistics(said, [wanted])
        order = [*range(2, 10), 0, 1] if form == "bleu" else list(range(18))
        statistics = np.array(rows, dtype=np.float64)[:, order]
        mine = Metric(form, form, statistics).value()
        assert mine == pytest.approx(judge.corpus_score(said, [wanted]).score, abs=1e-6)


def test_a_share_is_told_from_other_means() -> None:
    assert mean("a", [1, 0, 1]).is_share
    assert not mean("a", [0.5, 1, 0]).is_share
    assert mean("a", [0.5, 1, 0]).in_points
    assert not mean("a", [0.5, 3, 0]).in_points
    assert not mean("loss", [0.5, 0.2, 0], "lower").in_points
