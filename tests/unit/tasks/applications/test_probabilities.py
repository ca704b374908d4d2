"""Learning how sure labels are: the loss by hand, rows that say it and rows that do not, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llm_os.errors import DataError
from llm_os.tasks.applications.probabilities import probabilities
from llm_os.tasks.applications.text_classification import Labelled
from llm_os.tasks.datasets.sentic_data import read, select

LABELS = ["bad", "good"]
SOFT = [[0.9, 0.1], [0.4, 0.6], [0.0, 1.0]]
LOGITS = torch.tensor([[0.5, -1.0], [0.0, 2.0], [1.0, 1.0]])


def labelled(smoothing: float = 0.0, weights: list[float] | None = None) -> Labelled:
    return Labelled([[1]] * 3, [0.0, 1.0, 1.0], 0, 2, smoothing, weights, SOFT)


def forward(**_: Any) -> Any:
    return type("Out", (), {"logits": LOGITS})


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_torch(smoothing: float) -> None:
    examples = labelled(smoothing)
    expected = torch.nn.functional.cross_entropy(LOGITS, torch.tensor(SOFT), label_smoothing=smoothing)
    assert examples.loss(forward, examples.collate(range(3))).item() == pytest.approx(expected.item())


def test_class_weights_count_each_share() -> None:
    examples = labelled(weights=[2.0, 1.0])
    logs = LOGITS.log_softmax(-1)
    lost = sum(-(2.0 * p[0] * log[0] + p[1] * log[1]).item() for p, log in zip(SOFT, logs, strict=True))
    held = sum(2.0 * p[0] + p[1] for p in SOFT)
    batch = examples.collate(range(3))
    assert examples.weight(range(3)) == pytest.approx(held)
    assert examples.loss(forward, batch).item() == pytest.approx(lost / held)
    total, count = examples.measure(forward, batch)["loss"]
    assert (total, count) == (pytest.approx(lost), pytest.approx(held))


def test_a_part_keeps_its_own() -> None:
    part = labelled().part([2, 0])
    assert part.collate([0, 1])["soft"].tolist() == [SOFT[2], pytest.approx(SOFT[0])]
    assert labelled().measure(forward, labelled().collate(range(3)))["accuracy"] == (2.0, 3.0)


def test_rows_may_leave_it_out() -> None:
    assert probabilities({"label": "good"}, LABELS, "Row 0") == [0.0, 1.0]
    assert probabilities({"label": "good", "probabilities": {"good": 1}}, LABELS, "Row 0") == [0.0, 1.0]
    assert probabilities({"label": "x", "probabilities": '{"bad": 0.25, "good": 0.75}'}, LABELS, "Row 0") == [
        0.25,
        0.75,
    ]
    assert sum(probabilities({"probabilities": {"bad": 0.333, "good": 0.666}}, LABELS, "Row 0")) == pytest.approx(1)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"bad": 0.5, "god": 0.5}, "names 'god'; the classes are bad, good"),
        ({"bad": 0.5, "good": 0.6}, "sum to 1 (bad: 0.5, good: 0.6)"),
        ({"bad": -0.5, "good": 1.5}, "at least 0 each"),
        ({"bad": "much", "good": 0.5}, "bad: much"),
        ({"bad": float("nan"), "good": 0.5}, "sum to 1"),
        ("mostly good", "no numbers by label"),
        ([0.5, 0.5], "no numbers by label"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(given: Any, says: str) -> None:
    with pytest.raises(DataError) as caught:
        probabilities({"label": "good", "probabilities": given}, LABELS, "Row 7")
    assert says in caught.value.message
    assert caught.value.message.startswith("Row 7: 'probabilities'")
    assert "leave the column out" in caught.value.hint


def test_english_rows_that_ship_say_how_sure_they_are() -> None:
    rows, names = select(read("en"), 2)
    for row in rows[:500]:
        shares, score = row["probabilities"], float(str(row["score"]))
        assert isinstance(shares, dict)
        assert names is not None
        assert sum(map(float, map(str, shares.values()))) == pytest.approx(1, abs=1e-3)
        assert max(shares, key=lambda name: shares[name]) == row["label"]  # type: ignore[arg-type, return-value]
        assert (float(str(shares["positive"])) > 0.5) == (score > 0)
    assert "probabilities" not in select(read("en"), "score")[0][0]
    assert "probabilities" not in select(read("zh"), 2)[0][0]
