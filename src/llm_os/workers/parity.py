"""Whether an engine agrees with the reference well enough to serve: shares, intervals, verdict. Pure; asks nobody."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llm_os.errors import ParityError
from llm_os.spec.base import Json
from llm_os.spec.parity import Parity, Place, ScoredText, Share

SURE = 0.5
"""Nats by which the reference's first token leads where it is sure."""
LEAST_SURE = 0.98
LEAST = 0.92
"""Share of places that must agree, where it is sure and everywhere."""
SURE_SCORE = 0.1
"""By how much a classifier's first label leads where it is sure."""
LEAST_LABELS = 0.98
"""Share of labels that must agree where it is sure. Elsewhere a hair changes the label; the scores tell of those."""
MOST_DIFFERENCE = 0.02
"""Mean absolute difference of a classifier's scores."""
SHOWN = 5
"""Places that a refusal names."""
NORMAL = 1.959963984540054
"""Quantile of the normal distribution for 95 %."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The one token that an engine put behind a beginning.

    Attributes:
        token: its id; None where the engine does not tell ids: then texts are compared.
        text: its text. ended: it ended the answer.
    """

    token: int | None
    text: str
    ended: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """Where an engine and the reference part."""

    behind: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"behind {self.behind!r} it says {self.got!r} instead of {self.expected!r}"


def share(agreed: int, count: int) -> Share:
    """With Wilson's score interval (Wilson 1927); of nothing nothing is known."""
    if not count:
        return Share(count=0, agreed=0, low=0.0, high=1.0)
    part, z = agreed / count, NORMAL
    middle = (part + z * z / (2 * count)) / (1 + z * z / count)
    wide = z / (1 + z * z / count) * math.sqrt(part * (1 - part) / count + z * z / (4 * count * count))
    return Share(count=count, agreed=agreed, low=max(0.0, middle - wide), high=min(1.0, middle + wide))


def shares(agreed: Iterable[tuple[bool, bool]]) -> tuple[Share, Share]:
    """(everywhere, where the reference is sure) of pairs (agrees, the reference is sure)."""
    found = list(agreed)
    sure = [same for same, is_sure in found if is_sure]
    return share(sum(same for same, _ in found), len(found)), share(sum(sure), len(sure))


def agrees(place: Place, answer: Answer) -> bool:
    """Whether it is the reference's token. Some tokenizers drop the space before a first word, so texts may lack it."""
    if answer.ended or place.ends:
        return answer.ended and place.ends
    if answer.token is not None:
        return answer.token == place.token
    return answer.text.lstrip(" ") == place.text.lstrip(" ")


def of_tokens(asked: Sequence[tuple[Place, Answer]]) -> Parity:
    """The figures of a model that generates."""
    everywhere, sure = shares((agrees(place, answer), place.margin > SURE) for place, answer in asked)
    return Parity(everywhere=everywhere, sure=sure)


def of_scores(texts: Sequence[ScoredText], got: Sequence[Mapping[str, float]]) -> Parity:
    """The figures of a classifier. A label that the engine does not know has a score of 0 there."""
    pairs, differences = [], [0.0]
    for text, scores in zip(texts, got, strict=True):
        ranked = sorted(text.scores.values(), reverse=True)
        lead = ranked[0] - ranked[1] if len(ranked) > 1 else ranked[0]
        pairs.append((first(text.scores) == first(scores), lead > SURE_SCORE))
        differences += [abs(value - scores.get(label, 0.0)) for label, value in text.scores.items()]
    everywhere, sure = shares(pairs)
    mean = sum(differences) / max(1, len(differences) - 1)
    return Parity(everywhere=everywhere, sure=sure, mean_difference=mean, largest_difference=max(differences))


def first(scores: Mapping[str, float]) -> str:
    """The likeliest label; of equal ones the first in the alphabet."""
    return min(scores, key=lambda label: (-scores[label], label))


def complaints(parity: Parity) -> list[str]:
    """Limits that it does not keep, for people; none: it may serve."""
    if parity.mean_difference is not None:
        found = _below(parity.sure, LEAST_LABELS, f"labels where the reference leads by more than {SURE_SCORE}")
        if parity.mean_difference > MOST_DIFFERENCE:
            told = f"scores differ by {parity.mean_difference:.3f} on average, at most {MOST_DIFFERENCE} is allowed"
            found.append(told)
        return found
    sure = _below(parity.sure, LEAST_SURE, f"places where the reference is sure (by more than {SURE} nats)")
    return sure + _below(parity.everywhere, LEAST, "all places")


def _below(found: Share, least: float, what: str) -> list[str]:
    if found.value >= least:
        return []
    interval = f"95 % interval {found.low:.1%} to {found.high:.1%}"
    return [f"{found.value:.1%} of {found.count} {what} agree ({interval}), {least:.0%} must"]


def judge(parity: Parity, differences: Sequence[Difference], engine: str, version: str) -> None:
    """Raises ParityError when the engine may not serve this version: with the figures and the first differences."""
    found = complaints(parity)
    if not found:
        return
    shown = "; ".join(map(str, differences[:SHOWN]))
    details: dict[str, Json] = {
        "parity": parity.model_dump(mode="json"),
        "differences": [[one.behind, one.expected, one.got] for one in differences[:SHOWN]],
    }
    raise ParityError(
        f"{engine} does not say what {version} says in PyTorch: {' and '.join(found)}. For example, {shown}.",
        hint="Take another engine or another file of the model; --no-check (check=False) serves it all the same.",
        details=details,
    )
