"""Shares, intervals and the verdict of a comparison, without a model."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.errors import InvalidInputError, ParityError
from llm_os.spec.parity import Place, ScoredText
from llm_os.workers.parity import (
    LEAST,
    LEAST_SURE,
    Answer,
    Difference,
    agrees,
    complaints,
    judge,
    of_scores,
    of_tokens,
    share,
)


def place(token: int = 7, *, margin: float = 1.0, ends: bool = False) -> Place:
    return Place(at=5, token=token, text="" if ends else f" w{token}", ends=ends, margin=margin)


def answer(token: int | None = 7, text: str | None = None, *, ended: bool = False) -> Answer:
    return Answer(token, f" w{token}" if text is None else text, ended)


def asked(sure: int, wrong_sure: int, unsure: int, wrong_unsure: int) -> list[tuple[Place, Answer]]:
    """So many places with a large and a small margin; so many of each answered otherwise."""
    found = [(place(margin=2.0), answer(8 if i < wrong_sure else 7)) for i in range(sure)]
    return found + [(place(margin=0.1), answer(8 if i < wrong_unsure else 7)) for i in range(unsure)]


def test_the_interval_is_wilsons() -> None:
    """Against figures of the formula worked out by hand: 81 of 263 (Newcombe 1998, table I: 0.2553 to 0.3662)."""
    found = share(81, 263)
    assert math.isclose(found.low, 0.2553, abs_tol=5e-5)
    assert math.isclose(found.high, 0.3662, abs_tol=5e-5)


def test_of_nothing_nothing_is_known_and_nothing_complains() -> None:
    assert (share(0, 0).low, share(0, 0).high, share(0, 0).value) == (0.0, 1.0, 1.0)


@given(st.integers(1, 5000), st.data())
def test_the_interval_holds_the_share_and_is_a_mirror_of_its_complement(count: int, data: st.DataObject) -> None:
    agreed = data.draw(st.integers(0, count))
    one, other = share(agreed, count), share(count - agreed, count)
    assert 0.0 <= one.low <= one.value + 1e-12
    assert one.value - 1e-12 <= one.high <= 1.0
    assert math.isclose(one.low, 1 - other.high, abs_tol=1e-12)
    assert share(agreed * 10, count * 10).high - share(agreed * 10, count * 10).low < one.high - one.low


@given(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)), st.randoms())
def test_the_order_of_places_changes_nothing(sizes: tuple[int, int, int, int], order: random.Random) -> None:
    sure, wrong_sure, unsure, wrong_unsure = sizes
    places = asked(sure, min(sure, wrong_sure), unsure, min(unsure, wrong_unsure))
    mixed = list(places)
    order.shuffle(mixed)
    assert of_tokens(mixed) == of_tokens(places)


@pytest.mark.parametrize(
    ("wrong_sure", "wrong_unsure", "kept"),
    [(16, 64, 0), (17, 60, 1), (16, 65, 1), (0, 80, 0), (0, 81, 1), (17, 200, 2)],
)
def test_the_limits_are_98_percent_where_it_is_sure_and_92_percent_everywhere(
    wrong_sure: int, wrong_unsure: int, kept: int
) -> None:
    """800 sure places of 1,000: at most 16 of them may differ, and at most 80 of all."""
    assert (LEAST_SURE, LEAST) == (0.98, 0.92)
    assert len(complaints(of_tokens(asked(800, wrong_sure, 200, wrong_unsure)))) == kept


def test_a_margin_of_just_half_a_nat_is_not_sure() -> None:
    assert of_tokens([(place(margin=0.5), answer())]).sure.count == 0
    assert of_tokens([(place(margin=0.51), answer())]).sure.count == 1


def test_ids_decide_where_they_are_told_and_texts_where_not() -> None:
    assert agrees(place(7), answer(7, " other"))
    assert not agrees(place(7), answer(8, " w7"))
    assert agrees(place(7), answer(None, " w7"))
    assert agrees(place(7), answer(None, "w7")), "a tokenizer that drops the space before a first word"
    assert not agrees(place(7), answer(None, " w8"))
    assert not agrees(place(7), answer(None, "")), "half a character"


def test_an_end_agrees_with_an_end_alone() -> None:
    assert agrees(place(2, ends=True), answer(None, "", ended=True))
    assert agrees(place(2, ends=True), answer(3, "", ended=True)), "a model may have several tokens that end"
    assert not agrees(place(2, ends=True), answer(2, "."))
    assert not agrees(place(7), answer(7, "", ended=True))


def test_a_refusal_gives_figures_interval_and_the_first_places() -> None:
    wrong = [Difference(f"text {i}", "yes", "no") for i in range(9)]
    with pytest.raises(ParityError) as caught:
        judge(of_tokens(asked(800, 100, 200, 0)), wrong, "someengine", "chat@1")
    said = caught.value.message
    assert "87.5% of 800 places where the reference is sure" in said
    assert "95 % interval" in said
    assert "behind 'text 4' it says 'no' instead of 'yes'" in said
    assert "text 5" not in said
    assert caught.value.details["differences"][0] == ["text 0", "yes", "no"]
    assert isinstance(caught.value, InvalidInputError), "it is not tried again"
    judge(of_tokens(asked(800, 10, 200, 10)), wrong, "someengine", "chat@1")


def scored(*good: float) -> list[ScoredText]:
    return [ScoredText(text=f"text {i}", scores={"bad": 1 - p, "good": p}) for i, p in enumerate(good)]


def test_a_classifier_is_judged_by_its_scores() -> None:
    parity = of_scores(scored(0.9, 0.2), [{"bad": 0.11, "good": 0.89}, {"bad": 0.83, "good": 0.17}])
    assert parity.mean_difference == pytest.approx(0.02)
    assert parity.largest_difference == pytest.approx(0.03)
    assert complaints(parity) == []
    (complaint,) = complaints(of_scores(scored(0.9), [{"bad": 0.13, "good": 0.87}]))
    assert "0.030 on average" in complaint


def test_a_label_may_change_only_where_the_reference_wavers() -> None:
    near = scored(*[0.9] * 99, 0.505)
    same = [{"bad": 0.1, "good": 0.9}] * 99
    assert complaints(of_scores(near, [*same, {"bad": 0.51, "good": 0.49}])) == []
    parity = of_scores(scored(*[0.9] * 97, *[0.56] * 3), [*same[:97], *[{"bad": 0.51, "good": 0.49}] * 3])
    assert parity.sure.agreed == 97
    assert len(complaints(parity)) == 1, "3 of 100 labels, though the scores differ by little"


def test_a_label_that_the_engine_does_not_know_counts_in_full() -> None:
    parity = of_scores(scored(0.9), [{"LABEL_0": 0.1, "LABEL_1": 0.9}])
    assert parity.mean_difference == pytest.approx(0.5)
    assert parity.everywhere.agreed == 0
