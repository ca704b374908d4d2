"""What stands in the columns of a row: a text, a label, a list, the turns of a chat. Knows no kind of data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from llm_os.errors import ColumnNotFoundError, DataError, did_you_mean

ROLES = {"human": "user", "gpt": "assistant", "observation": "tool", "function_call": "assistant"}
"""Names of speakers in ShareGPT's form -> OpenAI's."""


def pick(row: Mapping[str, Any], wanted: str | None, usual: Sequence[str], what: str) -> str:
    """The column asked for, or the only one with a usual name. Raises ColumnNotFoundError with those that exist."""
    known = [str(name) for name in row]
    if wanted is not None:
        if wanted not in row:
            raise ColumnNotFoundError(
                f"There is no column '{wanted}'.",
                hint=did_you_mean(wanted, known),
                details={"column": wanted, "columns": list(known)},
            )
        return wanted
    found = [name for name in known if name.lower() in usual]
    first = [name for name in found if name.lower() == usual[0]] if usual else []
    if len(found) == 1 or first:
        return (first or found)[0]
    raise ColumnNotFoundError(
        f"It is not clear which column holds the {what}.",
        hint=f"Name it: load_data(..., {what}='...'). Columns: {', '.join(known)}.",
        details={"columns": list(known)},
    )


def cell(row: Mapping[str, Any], column: str) -> Any:
    """The value, or ColumnNotFoundError: rows of one file need not have the same columns."""
    if column not in row:
        raise ColumnNotFoundError(
            f"has no column '{column}'",
            hint=f"It has: {', '.join(map(str, row))}.",
            details={"column": column, "columns": [str(name) for name in row]},
        )
    return row[column]


def words(row: Mapping[str, Any], column: str) -> str:
    """The value as a text without space around it; empty for none, NaN included."""
    value = cell(row, column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, dict | list):
        raise DataError(f"column '{column}' holds a {type(value).__name__}, not a text", hint="Is it the right column?")
    if isinstance(value, bytes):
        try:
            return value.decode().strip()
        except UnicodeDecodeError:
            raise DataError(f"column '{column}' holds bytes that are not UTF-8", hint="Is it a text?") from None
    return str(value).strip()


def listed(row: Mapping[str, Any], column: str) -> list[str]:
    """The value as a list of texts; a text is divided at spaces."""
    value = cell(row, column)
    if isinstance(value, str):
        return value.split()
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def messages(value: Any) -> list[dict[str, str]]:
    """Messages in OpenAI's form from it or from ShareGPT's (`from`, `value`). Raises DataError."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise DataError("its messages are a plain text", hint="Give a list of messages.") from None
    found = []
    for message in value if isinstance(value, list) else []:
        if not isinstance(message, dict):
            raise DataError("one of its messages is no object", hint='{"role": "user", "content": "..."}')
        role = str(message.get("role", message.get("from", "")))
        content = message.get("content", message.get("value"))
        role = ROLES.get(role, role)
        if role not in {"system", "user", "assistant", "tool"} or content is None:
            raise DataError(f"a message has the role '{role}' and {'no' if content is None else 'a'} content")
        found.append({"role": role, "content": str(content)})
    return found


def answer(value: Any) -> str:
    """An answer as a text, from a text, a message or a list that ends with one."""
    if isinstance(value, list):
        value = value[-1] if value else ""
    if isinstance(value, dict):
        value = value.get("content", value.get("value", ""))
    return str(value or "").strip()


def alpaca(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """Messages from `instruction`, `input`, `output`, with `system` and `history` where they are."""
    asked = "\n".join(part for part in (str(row.get("instruction") or ""), str(row.get("input") or "")) if part.strip())
    said = str(row.get("output") or "")
    if not asked.strip() or not said.strip():
        return []
    before: list[dict[str, str]] = []
    system = str(row.get("system") or "").strip()
    if system:
        before.append({"role": "system", "content": system})
    history = row.get("history")
    for turn in history if isinstance(history, list) else []:
        if isinstance(turn, list | tuple) and len(turn) == 2:
            before += [{"role": "user", "content": str(turn[0])}, {"role": "assistant", "content": str(turn[1])}]
    return [*before, {"role": "user", "content": asked}, {"role": "assistant", "content": said}]
