"""Divides rows into train and test: stratified, seeded, and never one text on both sides. Pure."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T")


def normal_form(text: str) -> str:
    """Texts that are equal in this form count as the same: Unicode NFKC, no case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def order(seed: int, text: str) -> bytes:
    """A place in a random order that depends on seed and text only, so it is the same on every machine."""
    return hashlib.blake2b(f"{seed}\x00{text}".encode(), digest_size=16).digest()


def divide(
    rows: Sequence[T], *, text: Callable[[T], str], stratum: Callable[[T], Hashable], test_size: float, seed: int
) -> tuple[list[T], list[T]]:
    """(train, test). Each stratum gives its share of `test_size`, rounded; both sides are in random order.

    Rows whose texts have one normal form stay together, in the stratum of the first of them.
    """
    groups: dict[str, list[T]] = defaultdict(list)
    for row in rows:
        groups[normal_form(text(row))].append(row)
    strata: dict[Hashable, list[str]] = defaultdict(list)
    for form, members in groups.items():
        strata[stratum(members[0])].append(form)
    test_forms: set[str] = set()
    for forms in strata.values():
        wanted = round(test_size * sum(len(groups[form]) for form in forms))
        taken = 0
        for form in sorted(forms, key=lambda form: order(seed, form)):
            if taken >= wanted:
                break
            test_forms.add(form)
            taken += len(groups[form])
    shuffled = sorted(rows, key=lambda row: order(seed + 1, text(row)))
    train = [row for row in shuffled if normal_form(text(row)) not in test_forms]
    return train, [row for row in shuffled if normal_form(text(row)) in test_forms]
