"""Causal language models: goes on training on texts, or learns to answer from conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_os.errors import EmptyDataError
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
from llm_os.tasks.applications.documents import Document, LanguageExamples, check_chat
from llm_os.tasks.context import Context
from llm_os.tasks.preparation.packing import packs
from llm_os.tasks.training.options import TrainingOptions
from llm_os.tasks.training.scoring import Scorer


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
