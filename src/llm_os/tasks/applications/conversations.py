"""Conversations as token ids by the model's own chat template, and which of them the assistant says. Trains nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_os.errors import DataError

Messages = Sequence[Mapping[str, str]]


def encode(tokenizer: Any, messages: Messages, *, last_only: bool = False) -> tuple[list[int], list[bool]]:
    """(ids, mask): the mask is true for tokens the assistant says, its end of the turn included; nothing else.

    The whole conversation is tokenized at once, as one text; a token counts when all of it is the assistant's.

    Args:
        last_only: only the last message of the assistant counts.

    Raises:
        DataError: the template refuses the messages, or does not show where the assistant speaks.
    """
    whole = render(tokenizer, messages)
    spans = list(_spans(tokenizer, messages, whole))
    if not spans:
        raise DataError(
            "The chat template writes the assistant's words differently in each place, so they cannot be found.",
            hint="Take a model with another chat template.",
        )
    if last_only:
        spans = spans[-1:]
    coded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    mask = [
        any(begin <= start and end <= stop for begin, stop in spans) and end > start
        for start, end in coded["offset_mapping"]
    ]
    return list(coded["input_ids"]), mask


def render(tokenizer: Any, messages: Messages, *, answer: bool = False) -> str:
    """The text of the messages; with `answer` also of the beginning of an answer. Raises DataError."""
    from jinja2 import TemplateError

    try:
        return str(
            tokenizer.apply_chat_template([dict(m) for m in messages], tokenize=False, add_generation_prompt=answer)
        )
    except TemplateError as error:
        raise DataError(
            f"The model's chat template refuses a conversation: {error}.", hint="Check its roles."
        ) from error


def _spans(tokenizer: Any, messages: Messages, whole: str) -> Iterator[tuple[int, int]]:
    """Characters that the assistant says, from after the beginning of its turn to after its end."""
    end_of_turn = tokenizer.eos_token or ""
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, messages[:number], answer=True)
        after = render(tokenizer, messages[: number + 1])
        if not (after.startswith(before) and whole.startswith(after)):
            continue  # a template that rewrites earlier turns: nothing is learnt from this one
        found = after.rfind(end_of_turn, len(before)) if end_of_turn else -1
        yield len(before), found + len(end_of_turn) if found >= 0 else len(after.rstrip())
