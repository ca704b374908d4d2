"""Which texts are nearly the same: MinHash finds candidates, their exact Jaccard similarity decides.

Source: Broder 1997 (resemblance of shingle sets); banding as in Leskovec, Rajaraman and Ullman, Mining of Massive
Datasets, section 3.4. The signatures and their index are rensa's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

PERMUTATIONS = 120
CHUNK = 20_000
IDEOGRAPHS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
RECALL = 0.99
"""Least chance that a pair at the threshold becomes a candidate."""


def normal_form(text: str) -> str:
    """Texts that are equal in this form count as the same: Unicode NFKC, no case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def shingles(form: str) -> set[str]:
    """Character n-grams of a text in normal form: 3 characters where a fifth of it is Chinese, Japanese or Korean,
    otherwise 5; the text itself where it is shorter."""
    size = 3 if 5 * len(IDEOGRAPHS.findall(form)) >= len(form) else 5
    if len(form) <= size:
        return {form}
    return {form[at : at + size] for at in range(len(form) - size + 1)}


def similarity(one: set[str], other: set[str]) -> float:
    """Jaccard similarity, 0 to 1."""
    return len(one & other) / max(1, len(one | other))


def bands(threshold: float) -> int:
    """The fewest bands that find a pair at the threshold with at least `RECALL`."""
    fitting = [b for b in range(1, PERMUTATIONS + 1) if PERMUTATIONS % b == 0]
    for count in fitting:
        if 1 - (1 - threshold ** (PERMUTATIONS // count)) ** count >= RECALL:
            return count
    return PERMUTATIONS


def near_pairs(count: int, form: Callable[[int], str], threshold: float) -> Iterator[tuple[int, int, float]]:
    """(i, j, similarity) with i < j of texts at least `threshold` similar; equal forms should be given once only.

    Args:
        form: text number -> its normal form; called about twice a text.
    """
    import rensa

    index = rensa.RMinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, num_bands=bands(threshold))
    for begin in range(0, count, CHUNK):
        numbers = range(begin, min(count, begin + CHUNK))
        signs = rensa.RMinHash.from_token_sets((shingles(form(i)) for i in numbers), PERMUTATIONS, 1)
        index.insert_many(signs, start_key=begin)
        for i, candidates in zip(numbers, index.query_all(signs), strict=True):
            earlier = [j for j in set(candidates) if j < i]
            own = shingles(form(i)) if earlier else set()
            for j in sorted(earlier):
                found = similarity(own, shingles(form(j)))
                if found >= threshold:
                    yield j, i, found


def groups(count: int, pairs: Iterator[tuple[int, int, float]]) -> Sequence[int]:
    """For each text the smallest number in its group; who is paired with one of a group belongs to it."""
    roots = list(range(count))

    def root(i: int) -> int:
        while roots[i] != i:
            roots[i] = roots[roots[i]]
            i = roots[i]
        return i

    for i, j, _ in pairs:
        a, b = root(i), root(j)
        roots[max(a, b)] = min(a, b)
    return [root(i) for i in range(count)]
