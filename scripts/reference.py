"""Writes docs/reference from the code, so that it cannot drift; `--check` fails when a page is not up to date."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from llm_os import errors, plugins
from llm_os.settings import Settings
from llm_os.spec.conditions import Reason
from llm_os.spec.events import EventKind

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
NOTE = "<!-- Written by scripts/reference.py from the code. Change the code, then run `make reference`. -->\n"


def table(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |")
    return "\n".join(lines) + "\n"


def options(model: type[BaseModel]) -> str:
    def shown(field: Any) -> str:
        if field.is_required():
            return "required"
        return "computed" if field.default_factory else f"`{field.default!r}`"

    rows = [(f"`{name}`", shown(field), field.description or "") for name, field in model.model_fields.items()]
    return table(("Option", "Default", "Meaning"), rows) if rows else "No options.\n"


def settings_page() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        default = "computed" if field.default_factory else f"`{field.default}`"
        rows.append((f"`LLM_OS_{name.upper()}`", default, field.description or ""))
    return f"# Settings\n\n{NOTE}\nRead from the environment.\n\n" + table(("Variable", "Default", "Meaning"), rows)


def errors_page() -> str:
    rows = [
        (f"`{cls.__name__}`", f"`{code}`", cls.status, cls.exit_code, "yes" if cls.retryable else "no")
        for code, cls in sorted(errors.by_code().items())
    ]
    tree = (errors.__doc__ or "").split("```")[1]
    text = (
        f"# Errors\n\n{NOTE}\nAll are in `llm_os.errors`; each has `code`, `message`, `hint`, `retryable`, `details`.\n"
    )
    return text + f"\n```text{tree}```\n\n" + table(("Class", "Code", "HTTP", "Exit code", "Retryable"), rows)


def vocabulary_page() -> str:
    reasons = ", ".join(f"`{reason.value}`" for reason in Reason)
    kinds = ", ".join(f"`{kind.value}`" for kind in EventKind)
    return (
        f"# Reasons and events\n\n{NOTE}\nReasons of conditions and refusals: {reasons}.\n\nKinds of events: {kinds}.\n"
    )


def plugins_page() -> str:
    parts = [f"# Plugins\n\n{NOTE}"]
    for family in plugins.FAMILIES:
        parts.append(f"\n## {family}\n")
        for name in plugins.names(family):
            plugin = plugins.load(family, name)
            doc = inspect.getdoc(inspect.getmodule(type(plugin) if not inspect.isclass(plugin) else plugin)) or ""
            parts.append(f"\n### `{name}`\n\n{doc.splitlines()[0] if doc else ''}\n")
            model = getattr(plugin, "Options", None)
            if model is not None:
                parts.append("\n" + options(model))
    return "\n".join(parts).replace("\n\n\n", "\n\n")


def pages() -> dict[str, str]:
    return {
        "settings.md": settings_page(),
        "errors.md": errors_page(),
        "reasons-and-events.md": vocabulary_page(),
        "plugins.md": plugins_page(),
    }


def main() -> int:
    stale = []
    for name, text in pages().items():
        path = FOLDER / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"Out of date: {', '.join(stale)} in docs/reference. Run `make reference` and commit the result.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
