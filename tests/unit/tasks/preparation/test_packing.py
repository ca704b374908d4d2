"""Packs lose nothing, hold no more than their length, and know where each piece begins."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_os.tasks.preparation import packing

LENGTHS = st.lists(st.integers(0, 40), max_size=60)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 32))
def test_every_token_is_in_one_pack_once(lengths: list[int], length: int) -> None:
    for made in (packing.packs(lengths, length), list(packing.blocks(lengths, length))):
        seen = sorted((piece.sequence, at) for pack in made for piece in pack for at in range(piece.begin, piece.end))
        assert seen == [(number, at) for number, size in enumerate(lengths) for at in range(size)]
        assert all(0 < sum(piece.length for piece in pack) <= length for pack in made)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 32))
def test_only_what_is_longer_than_a_pack_is_cut(lengths: list[int], length: int) -> None:
    cut = {piece.sequence for pack in packing.packs(lengths, length) for piece in pack if piece.begin}
    assert cut == {number for number, size in enumerate(lengths) if size > length}


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 32))
def test_no_two_packs_would_fit_into_one(lengths: list[int], length: int) -> None:
    filled = sorted(sum(piece.length for piece in pack) for pack in packing.packs(lengths, length))
    assert len(filled) < 2 or filled[0] + filled[1] > length


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 32))
def test_blocks_are_full_but_for_the_last(lengths: list[int], length: int) -> None:
    filled = [sum(piece.length for piece in pack) for pack in packing.blocks(lengths, length)]
    assert all(size == length for size in filled[:-1])


def test_boundaries_give_positions_and_members() -> None:
    pack = [packing.Piece(4, 0, 3), packing.Piece(1, 2, 6)]
    bounds = packing.boundaries(pack)
    assert bounds == [0, 3, 7]
    assert packing.positions(bounds) == [0, 1, 2, 0, 1, 2, 3]
    assert packing.members(bounds) == [1, 1, 1, 2, 2, 2, 2]


def test_padding_is_the_share_of_empty_places() -> None:
    assert packing.padding([10, 5], 10) == 0.25
    assert packing.padding([], 10) == 0.0
