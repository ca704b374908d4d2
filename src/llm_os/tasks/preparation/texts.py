"""Where the texts of a row are, whatever kind of data it is: read them, or put others in their place. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llm_os.spec.base import Json

PLAIN = ("text", "other", "prompt", "chosen", "rejected")
"""Columns that are one text, or a list of messages."""

Row = Mapping[str, Json]


def texts(row: Row) -> Iterator[str]:
    """Every text of a row: `text`, both sides of a pair, the content of each message. Tokens with tags are no text."""
    for name in (*PLAIN, "messages"):
        value: Any = row.get(name)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (str(message.get("content", "")) for message in value if isinstance(message, dict))


def with_texts(row: Row, change: Callable[[str], str]) -> Row:
    """The row with `change` applied to each text; the same object where nothing changed."""
    changed: dict[str, Json] = {}
    for name in (*PLAIN, "messages"):
        value: Any = row.get(name)
        if isinstance(value, str):
            new: Any = change(value)
        elif isinstance(value, list):
            new = [
                {**message, "content": change(str(message.get("content", "")))}
                if isinstance(message, dict)
                else message
                for message in value
            ]
        else:
            continue
        if new != value:
            changed[name] = new
    return {**row, **changed} if changed else row


def _changed(message: Any, change: Callable[[str], str]) -> Any:
    return {**message, "content": change(str(message.get("content", "")))} if isinstance(message, dict) else message
