"""The check prompts of a version: texts and beginnings of chats that engines are asked; they lie in its artifact.

Must not know a model, nor how rows are read by one. Ours ship with us (`data/check_texts.jsonl`); a version that was
trained here has some rows of its own data beside them, so that engines are compared on what it is for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_os.errors import ModelError
from llm_os.spec.base import half_characters

FILE = "check_prompts.jsonl"
"""Beside the weights."""
OURS = Path(__file__).parent / "data" / "check_texts.jsonl"
CLASSIFIERS = ("text-classification", "multi-label-classification")
COMPARED = ("text-generation", *CLASSIFIERS)
"""What models do that engines are compared on."""
MOST_OWN = 24
"""Rows of its own data that a version carries along, at most."""
LONGEST = 400
"""Characters of a text of such a row; a comparison reads some hundred tokens."""
MOST_ROWS, MOST_BYTES = 1000, 4 * 2**20
"""Of a file that is read: it may come from somewhere else."""
MOST_CHARACTERS = 32_000
"""Of a row that is read: engines read all of it at each comparison."""
ROLES = frozenset({"system", "user", "assistant"})
HINT = f"Mend {FILE}, or take it out: then the texts that ship with LLM OS are asked."

Row = Mapping[str, Any]


def ours() -> list[Row]:
    """The texts that ship with us."""
    return [json.loads(line) for line in OURS.read_text(encoding="utf-8").splitlines()]


def read(folder: Path) -> list[Row]:
    """Those of a version; none where it is older than they are, or a single file.

    Raises:
        ModelError: a file that is too large, or a line that is neither a text nor a chat.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    if path.stat().st_size > MOST_BYTES:
        raise ModelError(f"{FILE} is larger than {MOST_BYTES} bytes.", hint=HINT)
    try:
        # Not `splitlines`: inside a text JSON leaves characters as they are at which that would end a line.
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise ModelError(f"{FILE} is no UTF-8: {error}.", hint=HINT) from error
    if len(lines) > MOST_ROWS:
        raise ModelError(f"{FILE} has {len(lines)} lines, {MOST_ROWS} at most.", hint=HINT)
    return [_checked(line, number) for number, line in enumerate(lines, start=1)]


def _checked(line: str, number: int) -> Row:
    """What is asked of it, and nothing else that the line may hold."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"Line {number} of {FILE} is no JSON: {error}.", hint=HINT) from error
    if not isinstance(row, dict):
        raise _wrong(number)
    asked: Row
    if isinstance(row.get("text"), str) and row["text"]:
        size, asked = len(row["text"]), {"text": row["text"]}
    elif _is_chat(row.get("messages")):
        messages = [{"role": one["role"], "content": one["content"]} for one in row["messages"]]
        size, asked = sum(len(one["content"]) for one in messages), {"messages": messages}
    else:
        raise _wrong(number)
    if size > MOST_CHARACTERS:
        raise ModelError(f"Line {number} of {FILE} has {size} characters, {MOST_CHARACTERS} at most.", hint=HINT)
    if _halves(asked):
        raise ModelError(f"Line {number} of {FILE} holds half a character (a lone surrogate).", hint=HINT)
    return {**asked, "own": True} if row.get("own") is True else asked


def _wrong(number: int) -> ModelError:
    return ModelError(f"Line {number} of {FILE} is neither a text nor a chat that ends with an answer.", hint=HINT)


def _is_chat(messages: Any) -> bool:
    return (
        isinstance(messages, list)
        and len(messages) > 1
        and all(
            isinstance(one, dict)
            and isinstance(one.get("role"), str)
            and one["role"] in ROLES
            and isinstance(one.get("content"), str)
            for one in messages
        )
        and messages[-1]["role"] == "assistant"
    )


def asked(folder: Path) -> tuple[list[Row], list[Row]]:
    """(what the version brings, what is asked beside it where that is too little): no text twice."""
    brought = read(folder)
    return brought, [row for row in ours() if row not in brought]


def write(folder: Path, rows: Iterable[Row] = ()) -> None:
    """Put ours and these rows of its own into a version's folder. Equal rows give an equal file."""
    lines = [json.dumps(row, ensure_ascii=False, sort_keys=True) for row in [*ours(), *rows]]
    (folder / FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def bring(folder: Path, parent: Path | None = None) -> None:
    """For a version that was not trained: its parent's prompts, those it came with, or ours. Raises ModelError."""
    if parent is not None and read(parent):
        shutil.copyfile(parent / FILE, folder / FILE)
    elif not read(folder):
        write(folder)


def own(rows: Sequence[Row]) -> list[Row]:
    """Some of these rows of data, spread evenly: text and chat alone, without their labels, cut to `LONGEST`."""
    fitting = [found for row in rows if (found := _prompt(row)) is not None and not _halves(found)]
    count = min(MOST_OWN, len(fitting))
    return [fitting[number * len(fitting) // count] for number in range(count)]


def _halves(row: Row) -> bool:
    """Whether it holds half a character, which no file in UTF-8 can."""
    return half_characters(b"\0", dict(row))  # the byte: look at all of it


def _prompt(row: Row) -> Row | None:
    """None: a row that asks more than one text, or holds what no template need to know (calls of tools)."""
    if isinstance(row.get("prompt"), list) and isinstance(row.get("chosen"), str):  # a preference
        row = {"messages": [*row["prompt"], {"role": "assistant", "content": row["chosen"]}]}
    if "messages" in row:
        if not _is_chat(row["messages"]):
            return None
        cut = [{"role": one["role"], "content": one["content"][:LONGEST]} for one in row["messages"]]
        return {"messages": cut, "own": True}
    text = row.get("text")
    return None if not isinstance(text, str) or not text or "other" in row else {"text": text[:LONGEST], "own": True}
