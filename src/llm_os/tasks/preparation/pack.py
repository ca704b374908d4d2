"""Packing: training texts of a language model side by side in packs of one length, their boundaries kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal

from pydantic import Field

from llm_os.errors import DataError, InvalidOptionError
from llm_os.spec.base import Json, Spec
from llm_os.tasks.preparation.packing import Piece, blocks, boundaries, packs, padding
from llm_os.tasks.preparation.step import Bench, Row, Step
from llm_os.tasks.preparation.vocabulary import tokenizer_of


class PackOptions(Spec):
    model: str | None = Field(default=None, examples=["smollm2"])
    """Model whose tokenizer makes ids of the texts, as in `load_model`; none: rows have ids from the step `encode`."""
    length: int = Field(default=512, ge=2)
    """Ids in a pack, at most."""
    method: Literal["best_fit", "blocks"] = "best_fit"
    """`best_fit`: texts stay whole, each goes into the fullest pack with room for it; `blocks`: texts one after the
    other, cut where a pack is full, so that none has padding."""
    window: int = Field(default=10_000, ge=1)
    """Texts that are packed together at a time; more pack tighter and take more memory."""
    end_token: str | None = Field(default=None, examples=["<|endoftext|>"])
    """Token of the model that is put behind each text."""
    column: str = "input_ids"
    """Column of the ids."""


class Pack(Step[PackOptions]):
    """A pack has `input_ids`, `boundaries` (where each text begins, and the end) and the packed `text`.

    Position ids and which places may attend to each other follow from the boundaries (`packing.positions`,
    `packing.members`). The test is not packed: it stays as it came.
    """

    Options = PackOptions
    training_only = True

    def apply(self, rows: Iterator[Row], options: PackOptions, bench: Bench) -> Iterator[Row]:
        if bench.kind != "text":
            raise DataError(
                f"Data of the kind '{bench.kind}' cannot be packed: a pack has no label of its own.",
                hint="Packing is for language models: load_data(kind='text'), or chat_format before it.",
            )
        tokenizer = tokenizer_of(bench, options.model).tokenizer if options.model is not None else None
        end = end_of(tokenizer, options)
        sizes: list[int] = []
        lengths: Counter[int] = Counter()
        while batch := list(islice(rows, options.window)):
            ids = [[*one, *end] for one in ids_of(batch, tokenizer, options.column)]
            lengths.update(len(one) for one in ids)
            for pack in made([len(one) for one in ids], options):
                sizes.append(sum(piece.length for piece in pack))
                bench.notes["texts that were cut"] += sum(piece.begin > 0 for piece in pack)
                yield row_of(pack, batch, ids, tokenizer, options.column)
        longest = min(options.length, max(lengths, default=1))
        alone = [min(size, options.length) for size in lengths.elements()]
        bench.notes["texts"] = len(alone)
        bench.notes["packs"] = len(sizes)
        bench.message(
            f"Packed {len(alone):,} texts into {len(sizes):,} packs of {options.length}: "
            f"{padding(sizes, options.length):.1%} is padding, "
            f"against {padding(alone, longest):.1%} with one text a row."
        )


def end_of(tokenizer: Any, options: PackOptions) -> list[int]:
    """Ids behind each text. Raises InvalidOptionError for a token that the model does not have."""
    if options.end_token is None:
        return []
    number = None if tokenizer is None else tokenizer.token_to_id(options.end_token)
    if number is None:
        raise InvalidOptionError(
            f"The step 'pack': there is no token '{options.end_token}'.",
            hint="Name a special token of the model, and the model itself with `model`.",
        )
    return [number]


def ids_of(batch: Sequence[Row], tokenizer: Any, column: str) -> list[list[int]]:
    """Ids of each row. Raises DataError where they are missing."""
    if tokenizer is not None:
        encoded = tokenizer.encode_batch([str(row["text"]) for row in batch], add_special_tokens=False)
        return [list(one.ids) for one in encoded]
    found = []
    for row in batch:
        ids = row.get(column)
        if not isinstance(ids, list):
            raise DataError(
                f"A row has no ids in the column '{column}'.", hint='Name `model`, or put the step "encode" before.'
            )
        found.append([int(str(number)) for number in ids])
    return found


def made(lengths: Sequence[int], options: PackOptions) -> list[list[Piece]]:
    if options.method == "blocks":
        return list(blocks(lengths, options.length))
    return packs(lengths, options.length)


def row_of(
    pack: Sequence[Piece], batch: Sequence[Row], ids: Sequence[Sequence[int]], tokenizer: Any, column: str
) -> Row:
    """The row of a pack; its text is what its ids say, where a tokenizer can tell."""
    packed: list[Json] = [number for piece in pack for number in ids[piece.sequence][piece.begin : piece.end]]
    if tokenizer is not None:
        text = tokenizer.decode(packed, skip_special_tokens=False)
    else:
        text = "\n\n".join(str(batch[piece.sequence]["text"]) for piece in pack if not piece.begin)
    return {"text": text, column: packed, "boundaries": [*boundaries(pack)]}


PLUGIN = Pack()
