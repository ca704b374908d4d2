"""Packs sequences of various lengths into packs of one length, so that little is padding. Pure; knows no text.

Whole sequences are packed by best fit decreasing: never two in one pack that would fit nowhere better, and none is cut
unless it is longer than a pack. Source: Krell et al. 2021 (efficient sequence packing without cross-contamination);
Ding et al. 2024 (fewer truncations improve language modeling), whose algorithm 1 this is.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple


class Piece(NamedTuple):
    """`sequence[begin:end]`, where `sequence` is a number."""

    sequence: int
    begin: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.begin


def cut(lengths: Sequence[int], length: int) -> list[Piece]:
    """Every sequence as pieces of at most `length`; an empty one has none."""
    return [
        Piece(number, begin, min(size, begin + length))
        for number, size in enumerate(lengths)
        for begin in range(0, size, length)
    ]


def packs(lengths: Sequence[int], length: int) -> list[list[Piece]]:
    """Packs of at most `length` in which every sequence is whole, or cut only because it is longer than a pack.

    The longest piece goes first, each into the fullest pack that has room for it; equal ones in the order given.

    Args:
        lengths: of each sequence. length: of a pack, at least 1.
    """
    made: list[list[Piece]] = []
    open_by_room: dict[int, list[int]] = {}
    rooms: list[int] = []
    """Distinct free lengths of packs that are not full, ascending."""
    for piece in sorted(cut(lengths, length), key=lambda piece: -piece.length):
        at = bisect_left(rooms, piece.length)
        if at < len(rooms):
            room = rooms[at]
            number = open_by_room[room].pop()
            if not open_by_room[room]:
                del rooms[at], open_by_room[room]
        else:
            room, number = length, len(made)
            made.append([])
        made[number].append(piece)
        left = room - piece.length
        if left:
            if left not in open_by_room:
                insort(rooms, left)
            open_by_room.setdefault(left, []).append(number)
    return made


def blocks(lengths: Iterable[int], length: int) -> Iterator[list[Piece]]:
    """Packs of exactly `length` (the last may be shorter) in the order given: sequences are cut where a pack ends."""
    pack: list[Piece] = []
    room = length
    for number, size in enumerate(lengths):
        begin = 0
        while begin < size:
            end = min(size, begin + room)
            pack.append(Piece(number, begin, end))
            room -= end - begin
            begin = end
            if not room:
                yield pack
                pack, room = [], length
    if pack:
        yield pack


def boundaries(pack: Sequence[Piece]) -> list[int]:
    """Where each piece begins in its pack, and where the last one ends: `[0, 3, 7]` for pieces of 3 and 4."""
    return [0, *accumulate(piece.length for piece in pack)]


def positions(bounds: Sequence[int]) -> list[int]:
    """Position ids that begin anew with each piece: `[0, 1, 2, 0, 1, 2, 3]` for `[0, 3, 7]`."""
    return [place for begin, end in pairwise(bounds) for place in range(end - begin)]


def members(bounds: Sequence[int]) -> list[int]:
    """For each place the number of its piece, from 1: `[1, 1, 1, 2, 2, 2, 2]` for `[0, 3, 7]`. Two places may attend
    to each other only where the numbers are equal; 0 is left for padding."""
    return [number for number, (begin, end) in enumerate(pairwise(bounds), 1) for _ in range(end - begin)]


def padding(filled: Iterable[int], length: int) -> float:
    """Share of places that hold nothing, when packs of these lengths are padded to `length`."""
    sizes = list(filled)
    return 1 - sum(sizes) / (len(sizes) * length) if sizes else 0.0
