"""The fastest precision that agrees with the reference serves; the plainest where none is much faster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from llm_os.errors import UnsupportedModelError
from llm_os.models.embedding import Encoder
from llm_os.models.load import Classifier
from llm_os.models.tagging import Tagger
from llm_os.workers.precisions import check_texts, choose, cosine, differs


@dataclass(frozen=True)
class Model:
    """Scores `positive` by a text's length, with an error; takes its time."""

    error: float = 0.0
    seconds: float = 0.0


class Fake(Classifier):
    def predict(self, texts: list[str], batch_size: int = 32) -> list[list[float]]:
        time.sleep(self.model.seconds)
        scores = [0.9 - 0.8 * (len(text) % 2) + self.model.error for text in texts]
        return [[score, 1 - score] for score in scores]


def fake(model: Any, labels: Sequence[str] = ("positive", "negative")) -> Fake:
    return Fake(model, None, tuple(labels), 512)


def test_the_fastest_that_agrees_is_taken() -> None:
    models = {"fp32": Model(0, 0.02), "bf16": Model(0.001, 0.01), "int8": Model(0.01, 0.002), "wild": Model(0.4)}
    runnable = fake(Model())
    chosen = choose(runnable, {name: lambda model=model: model for name, model in models.items()})
    assert (chosen.precision, chosen.model) == ("int8", models["int8"])
    assert "wild differs: " in chosen.why
    assert "scores differ by 0.400 on average" in chosen.why
    assert runnable.model == Model(), "it is as it was"


def test_what_is_hardly_faster_is_not_worth_its_rounding() -> None:
    models = {"fp32": Model(0, 0.0205), "bf16": Model(0.001, 0.02)}
    assert choose(fake(Model()), {n: lambda m=m: m for n, m in models.items()}).precision == "fp32"


def test_a_precision_that_cannot_be_made_is_told_of_and_the_first_one_raises() -> None:
    def broken() -> Any:
        raise UnsupportedModelError("It cannot be made.", hint="No.")

    chosen = choose(fake(Model()), {"fp32": Model, "int8": broken})
    assert chosen.precision == "fp32"
    assert "int8: It cannot be made." in chosen.why
    with pytest.raises(UnsupportedModelError, match="cannot be made"):
        choose(fake(Model()), {"fp32": broken, "int8": Model})


def test_a_precision_that_the_processor_does_not_have_is_left_out() -> None:
    def broken() -> Any:
        raise RuntimeError("Exception from src/core.cpp:84:\nbf16 is not supported\n")

    chosen = choose(fake(Model()), {"fp32": Model, "bf16": broken})
    assert chosen.precision == "fp32"
    assert "bf16: bf16 is not supported" in chosen.why
    with pytest.raises(RuntimeError, match="not supported"):
        choose(fake(Model()), {"fp32": broken})


def test_each_kind_of_answer_has_its_measure() -> None:
    encoder = Encoder(None, None)
    assert not differs(encoder, [[1.0, 0.0]], [[2.0, 0.1]])
    assert "cosine" in differs(encoder, [[1.0, 0.0]], [[1.0, 1.0]])
    assert "cosine" in differs(encoder, [[1.0, 0.0]], [[float("nan"), 1.0]])
    regression = fake(None, ())
    assert not differs(regression, [[200.0]], [[202.0]])
    assert "value" in differs(regression, [[200.0]], [[210.0]])
    assert "value" in differs(regression, [[200.0]], [[float("nan")]])
    tagger = Tagger(None, None, ("O", "B-X"), 512)
    said = [[("O", 0.9), ("B-X", 0.8)]]
    assert not differs(tagger, said, [[("O", 0.91), ("B-X", 0.79)]])
    assert "labels" in differs(tagger, said, [[("O", 0.9), ("O", 0.8)]])
    assert "no number" in differs(tagger, said, [[("O", 0.9), ("B-X", float("nan"))]])


def test_there_are_enough_check_texts_and_none_is_empty() -> None:
    texts = check_texts()
    assert len(texts) > 30
    assert all(texts)


def test_the_cosine_of_nothing_is_nought() -> None:
    assert cosine([0.0, 0.0], [1.0, 0.0]) == 0
    assert cosine([3.0, 4.0], [3.0, 4.0]) == pytest.approx(1)
