"""How many replicas are needed, and that following it neither flaps nor leaves its bounds."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_os.kernel.need import FEWEST, PATIENCE, WELL_BELOW, Need, Pace, followed, need, needed
from llm_os.spec.deployments import Scaling
from llm_os.spec.routing import FIRST_WINDOW, DeploymentUsage

STEP = 0.5
"""Seconds between two looks."""


def usage(in_flight: int = 1, tokens: float = 0.0, first: float | None = None, streams: int = 50) -> DeploymentUsage:
    return DeploymentUsage(
        last_request_at=0.0,
        in_flight=in_flight,
        requests=1,
        tokens_in_flight=tokens,
        first_token=first,
        first_tokens=0 if first is None else streams,
    )


def of(scaling: Scaling, seen: DeploymentUsage, there: int) -> Need:
    return need(scaling, 1.0, seen, 0.0, there)


def test_tokens_under_way_need_replicas_as_requests_do() -> None:
    scaling = Scaling(most=9, in_flight=8, tokens_in_flight=4000)
    assert needed(scaling, 1.0, usage(8, 4000), 0.0) == 1
    assert needed(scaling, 1.0, usage(8, 4001), 0.0) == 2
    assert needed(scaling, 1.0, usage(17, 4001), 0.0) == 3
    assert "tokens are still to be read" in of(scaling, usage(2, 9000), 1).why
    assert "17 requests" in of(scaling, usage(17, 9000), 1).why
    assert needed(Scaling(most=9), 1.0, usage(1, 10**9), 0.0) == 1, "they count only where that was asked for"


def test_late_first_tokens_ask_for_one_more_and_say_so() -> None:
    scaling = Scaling(most=4, first_token=0.5)
    found = of(scaling, usage(3, first=1.2), 2)
    assert (found.number, found.late) == (3, True)
    assert "1.2 s" in found.why
    assert "500 ms" in found.why
    assert of(scaling, usage(3, first=0.5), 2).number == 2
    assert of(scaling, usage(3, first=1.2, streams=FEWEST - 1), 2).number == 1, "few prove nothing"
    assert of(scaling, usage(0, first=1.2), 2).number == 2, "nobody asks any more"
    assert of(scaling, usage(3, first=9.0), 4).number == 4, "there are as many as may be"


def test_one_goes_only_where_the_others_are_predicted_to_stay_well_below() -> None:
    scaling = Scaling(most=4, first_token=1.0)
    assert of(scaling, usage(1, first=0.34), 2).number == 1  # 0.68 with one
    assert of(scaling, usage(1, first=0.36), 2).number == 2  # 0.72 with one
    assert of(scaling, usage(1, first=0.1), 4).number == 3, "one at a time"


USAGES = st.builds(
    usage,
    st.integers(0, 200),
    st.floats(0, 1e6),
    st.one_of(st.none(), st.floats(0.001, 60)),
    st.integers(0, 100),
)
SCALINGS = st.builds(
    lambda least, more, requests, tokens, first: Scaling(
        least=least, most=min(64, max(1, least + more)), in_flight=requests, tokens_in_flight=tokens, first_token=first
    ),
    st.integers(0, 8),
    st.integers(0, 20),
    st.floats(0.5, 50),
    st.one_of(st.none(), st.floats(1, 1e5)),
    st.one_of(st.none(), st.floats(0.01, 10)),
)


@given(SCALINGS, USAGES, st.data())
def test_the_need_keeps_its_bounds_and_rises_with_what_is_asked(
    scaling: Scaling, seen: DeploymentUsage, data: st.DataObject
) -> None:
    there = data.draw(st.integers(scaling.least, scaling.most))
    found = of(scaling, seen, there)
    assert scaling.least <= found.number <= scaling.most
    more = seen.model_copy(
        update={
            "in_flight": seen.in_flight + data.draw(st.integers(0, 50)),
            "tokens_in_flight": seen.tokens_in_flight + data.draw(st.floats(0, 1e5)),
        }
    )
    assert of(scaling, more, there).number >= found.number
    if seen.first_token is not None:
        slower = seen.model_copy(update={"first_token": seen.first_token + data.draw(st.floats(0, 30))})
        assert of(scaling, slower, there).number >= found.number


@given(SCALINGS, st.lists(USAGES, max_size=40), st.data())
def test_whatever_comes_the_number_stays_in_its_bounds(
    scaling: Scaling, seen: list[DeploymentUsage], data: st.DataObject
) -> None:
    there, pace = data.draw(st.integers(scaling.least, scaling.most)), Pace()
    for number, one in enumerate(seen):
        ready = data.draw(st.integers(0, there))
        now = 20.0 * number
        there = followed(scaling, there, ready, need(scaling, now, one, 0.0, there), now, pace)
        assert scaling.least <= there <= scaling.most


def run(scaling: Scaling, work: float, there: int, seconds: float, start: float = 4.0) -> list[tuple[float, int]]:
    """What comes of a constant load whose first tokens take `work` seconds, divided by the replicas that answer.

    The gateway tells the worst of the last window; a replica takes `start` seconds until it answers.
    """
    pace, ready, coming = Pace(), there, list[float]()
    told = list[tuple[float, float]]()
    changes = [(0.0, there)]
    for step in range(int(seconds / STEP)):
        now = step * STEP
        ready = min(there, ready + sum(at <= now for at in coming))
        coming = [at for at in coming if at > now]
        told = [(at, took) for at, took in told if now - at <= FIRST_WINDOW] + [(now, work / max(1, ready))]
        seen = usage(1, first=max(took for _, took in told))
        shall = followed(scaling, there, ready, need(scaling, now, seen, 0.0, there), now, pace)
        if shall != there:
            coming += [now + start] * max(0, shall - there)
            there, ready = shall, min(ready, shall)
            changes.append((now, shall))
    return changes


@settings(deadline=None, max_examples=40)
@given(st.floats(0.05, 20), st.integers(1, 8), st.floats(0.1, 5), st.floats(0.5, 30))
def test_under_a_constant_load_it_comes_to_rest_and_does_not_flap(
    work: float, there: int, objective: float, start: float
) -> None:
    scaling = Scaling(least=1, most=8, first_token=objective, steady=20.0)
    changes = [number for _, number in run(scaling, work, there, 600.0, start)]
    ups = sum(b > a for a, b in pairwise(changes))
    downs = sum(b < a for a, b in pairwise(changes))
    assert not (ups and downs), f"{changes} goes both ways"
    last = changes[-1]
    assert work / last <= objective * 1.000001 or last == 8, "it is kept where that can be"
    assert last == 1 or work / (last - 1) >= WELL_BELOW * objective * 0.999999, "and with no more than that takes"


def test_it_waits_some_seconds_before_one_more_and_a_window_before_the_next() -> None:
    scaling = Scaling(least=1, most=4, first_token=0.5)
    changes = run(scaling, 1.8, 1, 300.0)
    times = [at for at, _ in changes]
    assert [number for _, number in changes] == [1, 2, 3, 4]
    assert times[1] >= PATIENCE
    assert all(b - a >= 4.0 + FIRST_WINDOW for a, b in pairwise(times[1:]))
    assert times[-1] < 60


def test_more_requests_are_followed_at_once_and_fewer_after_a_while() -> None:
    scaling, pace = Scaling(least=1, most=8, in_flight=2, steady=60.0), Pace()

    def at(now: float, busy: int, there: int) -> int:
        return followed(scaling, there, there, need(scaling, now, usage(busy), 0.0, there), now, pace)

    assert at(0.0, 7, 1) == 4
    assert at(1.0, 1, 4) == 4
    assert at(30.0, 5, 4) == 4
    assert at(60.9, 1, 4) == 4
    assert at(61.0, 1, 4) == 3, "the most that were needed meanwhile stay"
