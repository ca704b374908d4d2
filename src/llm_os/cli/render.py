"""How answers look: tables for people, JSON for programs, one block for errors."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import click

from llm_os.errors import LLMOSError


def as_json_option(function: Any) -> Any:
    """Adds `--json` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)


def print_json(value: Any) -> None:
    """JSON on standard output; records as their plain form."""
    print(json.dumps(plain(value), ensure_ascii=False, indent=1))


def plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
    """A table as wide as the terminal allows; `empty` is said when there is nothing to show."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    listed = [tuple("" if cell is None else str(cell) for cell in row) for row in rows]
    if not listed:
        print(empty)
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in listed:
        table.add_row(*(Text(cell) for cell in row))  # as it is: `llm-os[llamacpp]` is no markup
    console.print(table)


def show_error(error: LLMOSError, *, as_json: bool) -> None:
    """What went wrong and what to do next, on standard error."""
    if as_json:
        print(json.dumps({"error": error.to_dict()}, ensure_ascii=False), file=sys.stderr)
        return
    print(f"Error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)


def ago(moment: float | None) -> str:
    """`12 s ago`, `3 min ago`, `5 h ago`."""
    if moment is None:
        return ""
    seconds = max(0, int(time.time() - moment))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
