"""Which of the engines that were measured are taken, and the sentence that says why. Pure; asks nobody.

One engine is taken by the geometric mean, over the loads, of its speed as a share of the best one's: so one that is a
little slower everywhere loses to none that is fast at one load and slow at the others. Two are taken to stand side by
side where one is clearly faster with few requests and the other one with many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llm_os.spec.calibration import Member, Trial

CLEARLY = 1.15
"""So many times faster each of two must be where it is the better one. Below it is noise, and memory is doubled."""


def of(
    trials: Sequence[Trial], *, room: int, needs: Sequence[int], unit: str = "tokens"
) -> tuple[tuple[int, ...], str]:
    """Places of what is taken, the one for few requests first, and why; none where none may serve.

    Args:
        room: bytes that two may take together. needs: bytes that each asks for, by place.
        unit: what is counted, for people.
    """
    names = called([trial.member for trial in trials])
    able = [place for place, trial in enumerate(trials) if trial.error is None and trial.speeds]
    if not able:
        return (), ""
    one = max(able, key=lambda place: (_score(trials, able, place), -place))
    few, many = (max(able, key=lambda place: trials[place].speeds[load].per_second) for load in (0, -1))
    out = _out(trials, names)
    if few != many and needs[few] + needs[many] <= room and _apart(trials[few], trials[many]):
        told = f"{names[few]} for few requests and {names[many]} for many, side by side"
        figures = [f"{names[place]} does {figures_of(trials[place], unit)}" for place in (few, many)]
        return (few, many), f"{told}: {'; '.join(figures)}{out}"
    others = [place for place in able if place != one]
    if not others:
        return (one,), f"{names[one]}: {figures_of(trials[one], unit)}{out}"
    nearest = max(others, key=lambda place: (_score(trials, able, place), -place))
    against = f"{names[nearest]} does {_rates(trials[nearest])}"
    return (one,), f"{names[one]}: {figures_of(trials[one], unit)}, where {against}{out}"


def _score(trials: Sequence[Trial], able: Sequence[int], place: int) -> float:
    """Mean of the logarithms of its shares of the best speed at each load."""
    shares = []
    for load, speed in enumerate(trials[place].speeds):
        best = max(trials[other].speeds[load].per_second for other in able)
        shares.append(math.log(max(speed.per_second, 1e-9) / max(best, 1e-9)))
    return sum(shares) / len(shares)


def _apart(few: Trial, many: Trial) -> bool:
    first = few.speeds[0].per_second >= CLEARLY * many.speeds[0].per_second
    return first and many.speeds[-1].per_second >= CLEARLY * few.speeds[-1].per_second


def _out(trials: Sequence[Trial], names: Sequence[str]) -> str:
    """Who may not serve, shortly."""
    found = [name for name, trial in zip(names, trials, strict=True) if trial.error is not None]
    return f"; out of the question: {', '.join(found)}" if found else ""


def called(members: Sequence[Member]) -> list[str]:
    """A name for each: the engine, and the options in which those of one engine differ."""
    found = []
    for member in members:
        kin = [other for other in members if other.engine == member.engine]
        differing = [
            name for name, value in member.options.items() if any(other.options.get(name) != value for other in kin)
        ]
        told = ", ".join(f"{name} {_plain(member.options[name])}" for name in differing)
        found.append(f"{member.engine} ({told})" if told else member.engine)
    return found


def _plain(value: object) -> str:
    return "default" if value is None else str(value)


def _rates(trial: Trial) -> str:
    """`61, 262 and 387`."""
    rates = [_number(speed.per_second) for speed in trial.speeds]
    return rates[0] if len(rates) == 1 else f"{', '.join(rates[:-1])} and {rates[-1]}"


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def figures_of(trial: Trial, unit: str = "tokens") -> str:
    """`61, 262 and 387 tokens/s with 1, 8 and 32 at once, the first after 0.11 s`."""
    streams = [f"{speed.streams}" for speed in trial.speeds]
    loads = streams[0] if len(streams) == 1 else f"{', '.join(streams[:-1])} and {streams[-1]}"
    what = "the first" if unit == "tokens" else "each"
    return f"{_rates(trial)} {unit}/s with {loads} at once, {what} after {trial.speeds[0].first:.2f} s"
