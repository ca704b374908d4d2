"""Causal language models: goes on training on texts, or learns to answer from conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from llm_os.errors import EmptyDataError, UnsupportedModelError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.tasks.applications import conversations
from llm_os.tasks.applications.application import (
    Application,
    Prepared,
    kind_of,
    length_of,
    training_rows,
    validation_rows,
)
from llm_os.tasks.context import Context
from llm_os.tasks.preparation.packing import packs
from llm_os.tasks.training.examples import Batch, Examples, Forward
from llm_os.tasks.training.options import TrainingOptions
from llm_os.tasks.training.scoring import Scorer


@dataclass(frozen=True, slots=True)
class Document:
    """Ids of a text, and which of them shall be foretold."""

    ids: Sequence[int]
    mask: Sequence[bool]


class LanguageExamples(Examples):
    """Rows of one or more documents each; no document sees another one of its row.

    Args:
        rows: documents of each row. pad: id that fills up shorter rows; it is never a target, whatever it means.
    """

    def __init__(self, rows: Sequence[Sequence[Document]], pad: int, scorer: Scorer) -> None:
        self.rows = rows
        self.lengths = [sum(len(document.ids) for document in row) for row in rows]
        self._pad, self._scorer = pad, scorer

    def part(self, indices: Sequence[int]) -> Self:
        return type(self)([self.rows[i] for i in indices], self._pad, self._scorer)

    def collate(self, indices: Sequence[int]) -> Batch:
        """`input_ids`, `targets` [rows, longest]; `position_ids` that begin anew with each document, if several share
        a row: transformers takes them for the borders of documents. There is no mask of padding: it lies at the right,
        where causal attention never looks back to it."""
        import torch

        longest = max(self.lengths[i] for i in indices)
        ids = torch.full((len(indices), longest), self._pad, dtype=torch.long)
        targets = torch.zeros((len(indices), longest), dtype=torch.bool)
        positions = torch.zeros((len(indices), longest), dtype=torch.long)
        for place, index in enumerate(indices):
            at = 0
            for document in self.rows[index]:
                end = at + len(document.ids)
                ids[place, at:end] = torch.tensor(document.ids)
                targets[place, at + 1 : end] = torch.tensor(document.mask[1:], dtype=torch.bool)
                positions[place, at:end] = torch.arange(end - at)
                at = end
            positions[place, at:] = torch.arange(longest - at)
        batch = {"input_ids": ids, "targets": targets}
        packed = any(len(self.rows[index]) > 1 for index in indices)
        return {**batch, "position_ids": positions} if packed else batch

    def loss(self, forward: Forward, batch: Batch) -> Any:
        return self._scorer(forward, batch).mean()

    def weight(self, indices: Sequence[int]) -> float:
        return float(sum(sum(document.mask[1:]) for i in indices for document in self.rows[i]))

    def measure(self, forward: Forward, batch: Batch) -> dict[str, tuple[float, float]]:
        losses = self._scorer(forward, batch)
        return {"loss": (float(losses.double().sum()), float(len(losses)))}


class LanguageModel(Application):
    kinds = ("text", "chat")
    adapter = "CAUSAL_LM"

    def check(self, model: ArtifactFacts, data: ArtifactFacts) -> None:
        check_chat(model, needs_template=kind_of(data) == "chat")

    def supports(self, data: ArtifactFacts) -> frozenset[str]:
        return frozenset({"packing"})

    def load(self, context: Context, options: TrainingOptions) -> Prepared:
        from llm_os.models.load import load_language_model

        given, data = context.inputs["model"], context.inputs["data"]
        model, tokenizer = load_language_model(given.path)
        chat, length, scorer = kind_of(data.facts) == "chat", length_of(context, options), Scorer(model)
        packing = options.packing if options.packing is not None else not chat

        def examples(rows: Sequence[dict[str, Any]]) -> LanguageExamples:
            documents = (
                conversations_of(context, rows, tokenizer, length) if chat else texts_of(rows, tokenizer, length)
            )
            packed = pack(documents, length) if packing else [[document] for document in documents]
            return LanguageExamples(packed, tokenizer.pad_token_id or 0, scorer)

        train = examples(training_rows(context, options))
        held = validation_rows(context, options)
        return Prepared(model, tokenizer, train, None if held is None else examples(held))


def check_chat(model: ArtifactFacts, *, needs_template: bool) -> None:
    """Raises UnsupportedModelError for a model that cannot learn to speak."""
    if model.meta.get("format") != "safetensors":
        raise UnsupportedModelError(
            f"A model in {model.meta.get('format')} cannot be trained as it is.",
            hint="Turn it into float weights first: the task sources/convert; model.train does it by itself.",
        )
    if model.meta.get("task") != "text-generation":
        raise UnsupportedModelError(
            f"A {model.meta.get('task')} model generates no text.", hint="Take a language model, such as smollm2."
        )
    if needs_template and not model.meta.get("chat_template"):
        raise UnsupportedModelError(
            "The model's tokenizer has no chat template.",
            hint="Take an instruction-tuned model, or prepare the data as kind='text'.",
        )


def conversations_of(context: Context, rows: Sequence[dict[str, Any]], tokenizer: Any, length: int) -> list[Document]:
    """Documents of conversations, cut at `length`; those whose answers lie beyond it are left out, and counted."""
    coded = [conversations.encode(tokenizer, row["messages"]) for row in rows]
    documents = [Document(ids[:length], mask[:length]) for ids, mask in coded]
    kept = [document for document in documents if any(document.mask[1:])]
    if not kept:
        raise EmptyDataError(f"No answer begins within {length} tokens.", hint="Give a larger max_length.")
    cut = sum(len(ids) > length for ids, _ in coded)
    if cut:
        lost = len(documents) - len(kept)
        left = f"; {lost} of them are left out, for nothing of an answer remained" if lost else ""
        context.message(f"{cut} of {len(rows)} conversations were cut at {length} tokens{left}.")
    return kept


def texts_of(rows: Sequence[dict[str, Any]], tokenizer: Any, length: int) -> list[Document]:
    """Documents of texts, each with the end mark, in pieces of at most `length`; all but the first token is learnt."""
    end = tokenizer.eos_token_id
    documents = []
    for ids in tokenizer([str(row["text"]) for row in rows])["input_ids"]:
        whole = [*ids, *([end] if end is not None and ids[-1:] != [end] else [])]
        pieces = [whole[at : at + length] for at in range(0, len(whole), length)]
        documents += [Document(piece, [True] * len(piece)) for piece in pieces if len(piece) > 1]
    if not documents:
        raise EmptyDataError("No text has two tokens.", hint="Take longer texts.")
    return documents


def pack(documents: Sequence[Document], length: int) -> list[list[Document]]:
    """Rows of at most `length` tokens, of whole documents."""
    return [[documents[piece.sequence] for piece in row] for row in packs([len(d.ids) for d in documents], length)]


PLUGIN = LanguageModel()
