"""One engine or two by their figures, and a sentence with them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.spec.calibration import Member, Speed, Trial
from llm_os.tasks.serving.choice import CLEARLY, called, of

GIB = 2**30


def trial(engine: str, *rates: float, error: str | None = None, first: float = 0.1, **options: Any) -> Trial:
    speeds = tuple(
        Speed(streams=n, per_second=rate, first=first) for n, rate in zip((1, 8, 32), rates, strict=bool(rates))
    )
    return Trial(member=Member(engine=engine, options=options), speeds=speeds, error=error)


def chosen(*trials: Trial, room: int = 8 * GIB, unit: str = "tokens") -> tuple[list[str], str]:
    places, why = of(trials, room=room, needs=[GIB] * len(trials), unit=unit)
    return [trials[place].member.engine for place in places], why


MEASURED = (trial("openvino", 61, 262, 387, first=0.11), trial("llamacpp", 108, 157, 179, first=0.21))


def test_one_that_is_fast_for_few_and_one_that_is_fast_for_many_stand_side_by_side() -> None:
    engines, why = chosen(*MEASURED)
    assert engines == ["llamacpp", "openvino"], "the one for few requests first"
    assert why == (
        "llamacpp for few requests and openvino for many, side by side: "
        "llamacpp does 108, 157 and 179 tokens/s with 1, 8 and 32 at once, the first after 0.21 s; "
        "openvino does 61, 262 and 387 tokens/s with 1, 8 and 32 at once, the first after 0.11 s"
    )


def test_without_room_for_both_it_is_the_one_that_loses_least() -> None:
    engines, why = chosen(*MEASURED, room=2 * GIB - 1)
    assert engines == ["openvino"]
    assert why == (
        "openvino: 61, 262 and 387 tokens/s with 1, 8 and 32 at once, the first after 0.11 s, "
        "where llamacpp does 108, 157 and 179"
    )
    assert chosen(*MEASURED, room=2 * GIB)[0] == ["llamacpp", "openvino"]


@pytest.mark.parametrize("few", [True, False])
def test_a_lead_that_may_be_noise_doubles_no_memory(few: bool) -> None:
    hardly, clearly = 100 * CLEARLY - 1, 200.0
    rates = (hardly, 100, 50) if few else (clearly, 100, 100)
    other = (100, 100, 100) if few else (100, 100, hardly)
    assert len(chosen(trial("a", *rates), trial("b", *other))[0]) == 1
    assert len(chosen(trial("a", clearly, 100, 50), trial("b", 100, 100, 100))[0]) == 2


def test_who_may_not_serve_is_not_taken_however_fast_and_is_named() -> None:
    wrong = trial("wrong", error="It says something else.")
    engines, why = chosen(wrong, trial("right", 1, 2, 3))
    assert engines == ["right"]
    assert why.endswith("1.0, 2.0 and 3.0 tokens/s with 1, 8 and 32 at once, the first after 0.10 s"
                        "; out of the question: wrong")  # fmt: skip
    assert chosen(wrong, wrong) == ([], "")


def test_equal_ones_are_taken_by_their_order() -> None:
    assert chosen(trial("preferred", 5, 5, 5), trial("other", 5, 5, 5))[0] == ["preferred"]


def test_texts_are_called_texts() -> None:
    assert "25, 80 and 90 texts/s with 1, 8 and 32 at once, each after 0.10 s" in chosen(
        trial("torch", 25, 80, 90), unit="texts"
    )[1]  # fmt: skip


def test_a_name_tells_the_options_in_which_those_of_one_engine_differ() -> None:
    members = [
        Member(engine="llamacpp", options={"precision": "file", "parallel": 8, "threads": None}),
        Member(engine="llamacpp", options={"precision": "int8", "parallel": 8, "threads": None}),
        Member(engine="openvino", options={"max_batch": 32}),
    ]
    assert called(members) == ["llamacpp (precision file)", "llamacpp (precision int8)", "openvino"]


rates = st.tuples(*[st.floats(0.1, 1000)] * 3)


@given(st.lists(rates, min_size=1, max_size=5), st.booleans())
def test_nothing_is_taken_that_another_one_beats_at_every_load(table: list[tuple[float, ...]], roomy: bool) -> None:
    trials = [trial(f"e{number}", *row) for number, row in enumerate(table)]
    places, why = of(trials, room=8 * GIB if roomy else GIB, needs=[GIB] * len(trials))
    assert 1 <= len(places) <= (2 if roomy else 1)
    assert why
    for place in places:
        mine = table[place]
        assert not any(all(o > m * (1 + 1e-9) for o, m in zip(other, mine, strict=True)) for other in table)
