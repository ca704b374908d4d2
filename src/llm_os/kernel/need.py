"""How many replicas what is asked needs, why, and when that is followed. Pure; must not know records or the clock.

What is under way (requests, tokens) is divided by what one replica shall have; that is exact, so more come at once. The
time to the first token is an effect: one replica more at a time, and then it is looked whether that helped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_os.spec.deployments import Scaling
from llm_os.spec.routing import FIRST_WINDOW, DeploymentUsage
from llm_os.spec.units import format_duration

PATIENCE = 3.0
"""Seconds for which first tokens must have been late before one more comes."""
FEWEST = 5
"""First tokens of the window: fewer prove nothing."""
WELL_BELOW = 0.7
"""Share of the objective below which first tokens must be predicted to stay before one replica goes."""


@dataclass(frozen=True, slots=True)
class Need:
    """Replicas that are needed.

    Attributes:
        late: first tokens are too late, which says that more are needed, not how many.
        why: for people: which figure asked for them.
    """

    number: int
    late: bool
    why: str


@dataclass(slots=True)
class Pace:
    """What has been so for how long, in seconds of the kernel's clock. Lost with a restart: then it begins anew.

    Attributes:
        calm_since: fewer have been enough. peak: the most that were needed in this time.
        late_since: first tokens have been too late.
        full_since: as many as shall answer do. grown: one came because of first tokens; whether it helps is seen later.
    """

    calm_since: float | None = None
    peak: int = 0
    late_since: float | None = None
    full_since: float | None = None
    grown: bool = False


def needed(scaling: Scaling, now: float, usage: DeploymentUsage | None, ready_at: float) -> int:
    """Replicas for what is under way and waits.

    Args:
        now: seconds since the epoch. ready_at: since when it could be asked.
    """
    return _by_load(scaling, now, usage, ready_at)[0]


def _by_load(scaling: Scaling, now: float, usage: DeploymentUsage | None, ready_at: float) -> tuple[int, str]:
    busy = usage.in_flight if usage is not None else 0
    last = max(ready_at, usage.last_request_at if usage is not None else 0.0)
    found, why = math.ceil(busy / scaling.in_flight), f"{busy} requests under way, {scaling.in_flight:g} for each"
    if scaling.tokens_in_flight is not None and usage is not None:
        by_tokens = math.ceil(usage.tokens_in_flight / scaling.tokens_in_flight)
        if by_tokens > found:
            found, why = (
                by_tokens,
                (
                    f"{usage.tokens_in_flight:,.0f} tokens are still to be read and written, "
                    f"{scaling.tokens_in_flight:,.0f} for each"
                ),
            )
    if found == 0 and now - last < scaling.idle_after:
        found = 1
    return min(scaling.most, max(scaling.least, found)), why


def need(scaling: Scaling, now: float, usage: DeploymentUsage | None, ready_at: float, there: int) -> Need:
    """Replicas that are needed where there shall be `there` now; never below `least` or above `most`."""
    number, why = _by_load(scaling, now, usage, ready_at)
    objective, seen = scaling.first_token, usage.first_token if usage is not None else None
    if objective is None or usage is None or seen is None or usage.first_tokens < FEWEST or number > there:
        return Need(number, False, why)
    told = f"first tokens take {format_duration(seen)} (95 of 100 less), {format_duration(objective)} is the objective"
    if seen > objective:
        more = min(scaling.most, max(number, there + 1)) if usage.in_flight else there
        return Need(max(more, number), more > there, told)
    # With one less each of the others gets its share; nothing waits less for it than in proportion.
    stays = there < 2 or seen * there / (there - 1) >= WELL_BELOW * objective
    fewest = there if stays else there - 1
    if fewest > number:
        return Need(min(scaling.most, fewest), False, told)
    return Need(number, False, why)


def followed(scaling: Scaling, there: int, ready: int, found: Need, now: float, pace: Pace) -> int:
    """Replicas that there shall be from now on; `pace` is changed in place.

    More for what is under way come at once. More for late first tokens come one by one, when they have been late for
    `PATIENCE`, and after one came, when it has answered for a whole window. Fewer come after `steady`.

    Args:
        there: replicas that shall be. ready: that answer.
    """
    if ready < there:
        pace.full_since = None
    elif pace.full_since is None:
        pace.full_since = now
    if not found.late:
        pace.late_since = None
    if found.number >= there:
        pace.calm_since = None
    if found.number > there:
        return _more(there, found, now, pace)
    if found.number == there:
        return there
    if pace.calm_since is None:
        pace.calm_since, pace.peak = now, found.number
    pace.peak = max(pace.peak, found.number)
    # What `idle_after` allows has waited already.
    if found.number and now - pace.calm_since < scaling.steady:
        return there
    shall = pace.peak if found.number else 0
    pace.calm_since, pace.grown, pace.full_since = None, False, None
    return shall


def _more(there: int, found: Need, now: float, pace: Pace) -> int:
    if not found.late:
        pace.full_since, pace.grown = None, False
        return found.number
    if pace.late_since is None:
        pace.late_since = now
    settled = pace.full_since is not None and (not pace.grown or now - pace.full_since >= FIRST_WINDOW)
    if not settled or now - pace.late_since < PATIENCE:
        return there
    pace.late_since, pace.full_since, pace.grown = None, None, True
    return found.number
