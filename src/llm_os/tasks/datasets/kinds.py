"""Kinds of data: which columns a row must have, what it becomes, what its classes are. Knows no file and no split."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from llm_os.errors import DataError
from llm_os.spec.base import Json
from llm_os.tasks.datasets.cells import alpaca, answer, cell, listed, messages, pick, words
from llm_os.tasks.datasets.labels import NO_LABEL, written

Row = dict[str, Json]

TEXTS = ("text", "review", "sentence", "comment", "content", "文本", "评论")
LABELS = ("label", "sentiment", "class", "category", "target", "标签", "情感")


class Kind(ABC):
    """How rows of one kind look.

    Class attributes:
        name: as in `load_data(kind=...)`. task: what a model trained on it does.
        classes: whether `label` (or `labels`, `tags`) holds names of classes.
    """

    name: ClassVar[str]
    task: ClassVar[str]
    classes: ClassVar[bool] = False
    label: ClassVar[str | None] = None
    """Column of the target in the prepared rows."""

    @abstractmethod
    def columns(self, first: Mapping[str, Any], asked: Mapping[str, str | None]) -> dict[str, str]:
        """Column of the source by role, chosen by looking at the first row. Raises ColumnNotFoundError."""

    @abstractmethod
    def take(self, row: Mapping[str, Any], columns: Mapping[str, str]) -> Row | None:
        """The prepared form of a row; None for one without a text. Raises DataError for a bad one (no row number)."""

    def names(self, row: Mapping[str, Json]) -> Sequence[str]:
        """Class names that the row has."""
        return ()

    def stratum(self, row: Mapping[str, Json]) -> str:
        """Rows of one stratum are divided in proportion."""
        return ""

    def content(self, row: Mapping[str, Json]) -> str:
        """The text by which rows are compared with each other."""
        return str(row["text"])


class Classification(Kind):
    """`text` and `label`, a name."""

    name, task, classes, label = "classification", "text-classification", True, "label"

    def columns(self, first: Mapping[str, Any], asked: Mapping[str, str | None]) -> dict[str, str]:
        return {
            "text": pick(first, asked.get("text"), TEXTS, "text"),
            "label": pick(first, asked.get("label"), LABELS, "label"),
        }

    def take(self, row: Mapping[str, Any], columns: Mapping[str, str]) -> Row | None:
        text = words(row, columns["text"])
        label = words(row, columns["label"])
        if not text:
            return None
        if not label:
            raise DataError("has no label", hint="Fill it in, or remove the row.")
        if label in NO_LABEL:
            raise DataError(f"has the label '{label}', which means none", hint="Fill it in, or remove the row.")
        label = written(row[columns["label"]], label)
        return {"text": text, "label": label}

    def names(self, row: Mapping[str, Json]) -> Sequence[str]:
        return (str(row["label"]),)

    def stratum(self, row: Mapping[str, Json]) -> str:
        return str(row["label"])


class Regression(Classification):
    """`text` and `label`, a number."""

    name, task, classes, label = "score", "regression", False, "label"

    def take(self, row: Mapping[str, Any], columns: Mapping[str, str]) -> Row | None:
        taken = super().take(row, columns)
        if taken is None:
            return None
        try:
            number = float(str(taken["label"]))
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise DataError(
                f"the label '{str(taken['label'])[:40]}' is no number", hint="Leave labels='score' out, or mend it."
            )
        return {**taken, "label": number}

    def names(self, row: Mapping[str, Json]) -> Sequence[str]:
        return ()

    def stratum(self, row: Mapping[str, Json]) -> str:
        return ""


class MultiLabel(Classification):
    """`text` and `labels`, a list of names (or one text with `|` or `,` between them); it may be empty."""

    name, task, classes, label = "multi-label", "multi-label-classification", True, "labels"

    def columns(self, first: Mapping[str, Any], asked: Mapping[str, str | None]) -> dict[str, str]:
        return {
            "text": pick(first, asked.get("text"), TEXTS, "text"),
            "label": pick(first, asked.get("label"), ("labels", *LABELS, "tags"), "label"),
        }

    def take(self, row: Mapping[str, Any], columns: Mapping[str, str]) -> Row | None:
        text, raw = words(row, columns["text"]), cell(row, columns["label"])
        if not text:
            return None
        listed = raw if isinstance(raw, list | tuple) else str(raw or "").replace("|", ",").split(",")
        names: list[Json] = [*sorted({str(name).strip() for name in listed} - {""})]
        return {"text": text, "labels": names}

    def names(self, row: Mapping[str, Json]) -> Sequence[str]:
        found = row["labels"]
        return [str(name) for name in found] if isinstance(found, list) else ()

    def stratum(self, row: Mapping[str, Json]) -> str:
        return "|".join(self.names(row))


class Tokens(Kind):
    """`tokens` and `tags`, lists of one length: token classification."""

    name, task, classes, label = "tokens", "token-classification", True, "tags"

    def columns(self, first: Mapping[str, Any], asked: Mapping[str, str | None]) -> dict[str, str]:
        return {
            "tokens": pick(first, asked.get("text"), ("tokens", "words"), "text"),
            "tags": pick(first, asked.get("label"), ("tags", "ner_tags", "pos_tags", "labels"), "label"),
        }

    def take(self, row: Mapping[str, Any], columns: Mapping[str, str]) -> Row | None:
        tokens, tags = listed(row, columns["tokens"]), listed(row, columns["tags"])
        if not tokens:
            return None
        if len(tokens) != len(tags):
            raise DataError(f"has {len(tokens)} tokens and {len(tags)} tags", hint="Each token needs one tag.")
        return {"tokens": [*tokens], "tags": [*tags]}

    def names(self, row: Mapping[str, Json]) -> Sequence[str]:
        found = row["tags"]
        return [str(name) for name in found] if isinstance(found, list) else ()

    def content(self, row: Mapping[str, Json]) -> str:
        found = row["tokens"]
        return " ".join(map(str, found)) if isinstance(found, list) else ""


class Text(Kind):
    """`text` alone: for language models."""

    name, task = "text", "text-generation"

    def columns(self, first: Mapping[str, Any], asked: Mapping[str, str | None]) -> dict[str, str]:
        return {"text": pick(first, asked.get("text"), TEXTS, "text")}

    def take(self, row: Mapping[str, Any], columns: Mapping[str, str]) -> Row | None:
        text = words(row, columns["text"])
        return {"text": text} if text else None


class Pairs(Kind):
    """`text` and `other`, which mean the same; with a `score` from 0 to 1 where somebody judged it."""

    name, task = "pairs", "sentence-similarity"

    def columns(self, first: Mapping[str, Any], asked: Mapping[str, str | None]) -> dict[str, str]:
        columns = {
            "text": pick(first, asked.get("text"), ("text", "sentence1", "query", "anchor", "question"), "text"),
            "other": pick(first, asked.get("other"), ("other", "sentence2", "positive", "answer", "passage"), "other"),
        }
        score = asked.get("label") or ("score" if "score" in first else None)
        return columns | ({"score": pick(first, score, (), "label")} if score else {})

    def take(self, row: Mapping[str, Any], columns: Mapping[str, str]) -> Row | None:
        text, other = words(row, columns["text"]), words(row, columns["other"])
        if not text or not other:
            return None
        if "score" not in columns:
            return {"text": text, "other": other}
        try:
            return {"text": text, "other": other, "score": float(words(row, columns["score"]))}
        except ValueError:
            raise DataError("its score is no number", hint="Scores go from 0 to 1.") from None


class Chat(Kind):
    """`messages`, each with `role` and `content`. ShareGPT's and Alpaca's columns are understood too."""

    name, task = "chat", "text-generation"

    def columns(self, first: Mapping[str, Any], asked: Mapping[str, str | None]) -> dict[str, str]:
        wanted = asked.get("text")
        if wanted is not None:
            return {"messages": pick(first, wanted, (), "text")}
        if "instruction" in first and "output" in first:
            return {"instruction": "instruction", "output": "output"}
        return {"messages": pick(first, None, ("messages", "conversations", "conversation"), "text")}

    def take(self, row: Mapping[str, Any], columns: Mapping[str, str]) -> Row | None:
        if "instruction" in columns:
            found = alpaca(row)
        else:
            found = messages(cell(row, columns["messages"]))
            system = str(row.get("system") or "").strip()
            if system and found and found[0]["role"] != "system":
                found = [{"role": "system", "content": system}, *found]
        if not found:
            return None
        if found[-1]["role"] != "assistant":
            raise DataError("its last message is not the assistant's", hint="There must be an answer to learn from.")
        return {"messages": [dict(message) for message in found]}

    def content(self, row: Mapping[str, Json]) -> str:
        found = row["messages"]
        return "\n".join(str(m["content"]) for m in found if isinstance(m, dict)) if isinstance(found, list) else ""


class Preference(Kind):
    """`prompt` (messages), `chosen` and `rejected` (texts): which answer people preferred."""

    name, task = "preference", "text-generation"

    def columns(self, first: Mapping[str, Any], asked: Mapping[str, str | None]) -> dict[str, str]:
        return {
            "prompt": pick(first, asked.get("text"), ("prompt", "conversations", "messages", "instruction"), "text"),
            "chosen": pick(first, None, ("chosen",), "chosen"),
            "rejected": pick(first, None, ("rejected",), "rejected"),
        }

    def take(self, row: Mapping[str, Any], columns: Mapping[str, str]) -> Row | None:
        raw = cell(row, columns["prompt"])
        prompt = [{"role": "user", "content": raw.strip()}] if isinstance(raw, str) else messages(raw)
        chosen, rejected = answer(cell(row, columns["chosen"])), answer(cell(row, columns["rejected"]))
        if not prompt or not chosen or not rejected:
            return None
        if chosen == rejected:
            raise DataError("its chosen and its rejected answer are the same", hint="There is nothing to prefer.")
        return {"prompt": [dict(message) for message in prompt], "chosen": chosen, "rejected": rejected}

    def content(self, row: Mapping[str, Json]) -> str:
        found = row["prompt"]
        said = [str(m["content"]) for m in found if isinstance(m, dict)] if isinstance(found, list) else []
        return "\n".join([*said, str(row["chosen"])])


class Choices(Kind):
    """`question`, `choices` (a list) and `answer` (the place of the right one, from 0): what exams ask."""

    name, task = "choices", "text-generation"

    def columns(self, first: Mapping[str, Any], asked: Mapping[str, str | None]) -> dict[str, str]:
        return {
            "question": pick(first, asked.get("text"), ("question", "query", "text", "问题"), "text"),
            "choices": pick(first, asked.get("other"), ("choices", "options", "endings", "选项"), "other"),
            "answer": pick(first, asked.get("label"), ("answer", "label", "gold", "答案"), "label"),
        }

    def take(self, row: Mapping[str, Any], columns: Mapping[str, str]) -> Row | None:
        question = words(row, columns["question"])
        raw = cell(row, columns["choices"])
        if isinstance(raw, dict):  # as ARC has it: {"text": [...], "label": [...]}
            raw = raw.get("text")
        choices = [str(choice).strip() for choice in raw] if isinstance(raw, list | tuple) else []
        if not question:
            return None
        if len(choices) < 2 or len(set(choices)) < len(choices) or not all(choices):
            raise DataError(f"has {len(choices)} choices", hint="Give a list of at least two that differ.")
        return {"question": question, "choices": [*choices], "answer": _place(cell(row, columns["answer"]), choices)}

    def content(self, row: Mapping[str, Json]) -> str:
        found = row["choices"]
        return "\n".join([str(row["question"]), *(map(str, found) if isinstance(found, list) else ())])


def _place(answer: Any, choices: Sequence[str]) -> int:
    """Place of the right choice, told by its number from 0, its letter or its words. Raises DataError."""
    said = str(answer).strip()
    if said in choices and not said.isdigit():
        return choices.index(said)
    if said.isdigit() and int(said) < len(choices):
        return int(said)
    letter = ord(said.upper()) - ord("A") if len(said) == 1 else -1
    if 0 <= letter < len(choices):
        return letter
    raise DataError(f"its answer '{said[:40]}' is none of its {len(choices)} choices", hint="Numbers begin with 0.")


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Classification(),
        Regression(),
        MultiLabel(),
        Tokens(),
        Text(),
        Pairs(),
        Chat(),
        Preference(),
        Choices(),
    )
}


def guess(first: Mapping[str, Any], asked: Mapping[str, str | None]) -> str:
    """The kind that the columns of the first row speak of; classification where they say nothing else."""
    names = {str(name).lower() for name in first}
    if {"chosen", "rejected"} <= names:
        return "preference"
    if names & {"messages", "conversations"} or {"instruction", "output"} <= names:
        return "chat"
    if "tokens" in names and names & {"tags", "ner_tags", "pos_tags"}:
        return "tokens"
    if "question" in names and names & {"choices", "options", "endings"}:
        return "choices"
    if isinstance(first.get(asked.get("label") or "labels"), list):
        return "multi-label"
    return "classification"
