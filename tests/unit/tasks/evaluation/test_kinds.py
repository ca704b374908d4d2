"""Several labels, tags, sentence vectors and choices: figures by hand and those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.errors import DataError
from llm_os.tasks.datasets.kinds import KINDS, guess
from llm_os.tasks.evaluation import labels, nearness, spans
from llm_os.tasks.evaluation.choices import chosen
from llm_os.tasks.evaluation.judging import Judgement


def values(judgement: Judgement) -> dict[str, float]:
    return {metric.name: metric.value() for metric in judgement.metrics}


NAMES = ["cheap", "fast", "kind"]


def test_several_labels_are_judged_as_scikit_learn_does() -> None:
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    random = np.random.default_rng(2)
    sure = random.random((80, 3))
    true = (sure + 0.4 * random.normal(size=(80, 3)) > 0.5).astype(int)
    rows = [{"text": "x", "labels": [n for n, one in zip(NAMES, line, strict=True) if one]} for line in true]
    found = values(labels.judged(rows, sure.tolist(), NAMES, [0.5, 0.4, 0.6]))
    said = (sure >= np.array([0.5, 0.4, 0.6])).astype(int)
    assert found["micro_f1"] == pytest.approx(f1_score(true, said, average="micro"))
    assert found["macro_f1"] == pytest.approx(f1_score(true, said, average="macro"))
    assert found["subset_accuracy"] == pytest.approx(accuracy_score(true, said))
    assert found["loss"] == pytest.approx(np.mean([log_loss(true[:, k], sure[:, k]) for k in range(3)]))


def test_a_label_the_model_does_not_know_is_named() -> None:
    with pytest.raises(DataError, match="'slow'"):
        labels.judged([{"text": "x", "labels": ["slow"]}], [[0.1, 0.2, 0.3]], NAMES, [0.5] * 3)


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 2), ("LOC", 3, 4)]),
        ("B-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("I-PER I-LOC", [("PER", 0, 1), ("LOC", 1, 2)]),  # without a beginning, as conlleval reads it
        ("S-LOC B-PER E-PER I-PER", [("LOC", 0, 1), ("PER", 1, 3), ("PER", 3, 4)]),
        ("NOUN NOUN O VERB", [("NOUN", 0, 2), ("VERB", 3, 4)]),
        ("O O", []),
        ("B-a-b I-a-b", [("a-b", 0, 2)]),
    ],
)
def test_spans_of_tags(tags: str, wanted: list[spans.Span]) -> None:
    assert spans.spans(tags.split()) == wanted


@given(st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y", "E-x", "S-y"]), max_size=20))
def test_spans_cover_each_tagged_token_once(tags: list[str]) -> None:
    covered = [place for _, begin, end in spans.spans(tags) for place in range(begin, end)]
    assert covered == [place for place, tag in enumerate(tags) if tag != "O"]


def test_spans_are_judged_whole() -> None:
    rows = [
        {"tokens": list("abcd"), "tags": ["B-PER", "I-PER", "O", "B-LOC"]},
        {"tokens": list("ab"), "tags": ["O", "O"]},
    ]
    judgement = spans.judged(rows, [["B-PER", "O", "O", "B-LOC"], ["O", "B-LOC"]])
    found = values(judgement)
    assert found["span_f1"] == pytest.approx(2 * 1 / (3 + 2))  # one of three said, of two true
    assert found["span_precision"] == pytest.approx(1 / 3)
    assert found["span_recall"] == pytest.approx(1 / 2)
    assert found["tag_accuracy"] == pytest.approx(4 / 6)
    assert judgement.further["per_class"]["PER"]["f1"] == 0.0  # type: ignore[index, call-overload]


def test_places_and_recall_by_hand() -> None:
    queries = np.eye(3)
    corpus = np.array([[1.0, 0, 0], [0.9, 0.1, 0], [0, 0.6, 0.8]])
    found = nearness.places(queries, corpus / np.linalg.norm(corpus, axis=1, keepdims=True), [0, 1, 2])
    assert found == [1, 2, 1]
    judged = values(nearness.retrieved([{"text": "x", "other": "y"}] * 3, found, 3))
    assert judged["recall_at_1"] == pytest.approx(2 / 3)
    assert judged["recall_at_5"] == 1.0
    assert judged["mrr"] == pytest.approx((1 + 0.5 + 1) / 3)


def test_equal_vectors_are_no_success() -> None:
    same = np.tile(np.array([[1.0, 0.0]]), (4, 1))
    assert nearness.places(same, same, [0, 1, 2, 3]) == [4, 4, 4, 4]


def test_similarity_is_scipys_rank_correlation() -> None:
    from scipy.stats import spearmanr

    random = np.random.default_rng(9)
    cosines, scores = random.random(50), random.random(50)
    rows = [{"text": "a", "other": "b", "score": float(score)} for score in scores]
    assert values(nearness.correlated(rows, cosines))["spearman"] == pytest.approx(spearmanr(cosines, scores).statistic)


def test_choices_are_taken_by_likelihood_and_by_likelihood_per_character() -> None:
    rows = [
        {"question": "q", "choices": ["no", "yes, of course it is"], "answer": 1},
        {"question": "q", "choices": ["a", "b"], "answer": 0},
    ]
    judgement = chosen(rows, [[-3.0, -8.0], [-1.0, -2.0]])
    found = values(judgement)
    assert (found["accuracy"], found["normalised_accuracy"]) == (0.5, 1.0)
    by_hand = [8 + np.log(np.exp(-3) + np.exp(-8)), 1 + np.log(np.exp(-1) + np.exp(-2))]
    assert found["loss"] == pytest.approx(np.mean(by_hand))
    assert judgement.further["chance"] == 0.5


@pytest.mark.parametrize(("answer", "place"), [("B", 1), (1, 1), ("1", 1), ("water", 1), ("a", 0), (0, 0)])
def test_the_right_choice_is_told_by_number_letter_or_words(answer: object, place: int) -> None:
    row = {"question": "What is wet?", "choices": ["fire", "water"], "answer": answer}
    kind = KINDS[guess(row, {})]
    assert kind.name == "choices"
    assert kind.take(row, kind.columns(row, {})) == {
        "question": "What is wet?",
        "choices": ["fire", "water"],
        "answer": place,
    }


@pytest.mark.parametrize("row", [{"answer": "C"}, {"answer": 2}, {"choices": ["one"]}, {"choices": ["x", "x"]}])
def test_bad_choices_are_refused(row: dict[str, object]) -> None:
    whole = {"question": "q", "choices": ["fire", "water"], "answer": 0} | row
    kind = KINDS["choices"]
    with pytest.raises(DataError):
        kind.take(whole, kind.columns(whole, {}))


def test_choices_as_arc_has_them() -> None:
    row = {"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answer": "B"}
    kind = KINDS["choices"]
    taken = kind.take(row, kind.columns(row, {}))
    assert taken is not None
    assert (taken["choices"], taken["answer"]) == (["x", "y"], 1)
