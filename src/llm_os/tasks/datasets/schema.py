"""Names of classes that data set files of Hugging Face keep beside the numbers. Knows Arrow schemas only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_os.errors import DataError


def naming(schema: Any, path: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What puts names in the place of numbers of classes, in one row; -1 (no label) becomes None.

    Raises:
        DataError: two columns have one name.
    """
    columns = list(schema.names)
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"'{path.name}' has two columns named '{twice[0]}'.", hint="Rename one of them.")
    names = class_names(schema)

    def named(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, **{column: _name(known, row.get(column)) for column, known in names.items()}}

    return named if names else lambda row: row


def class_names(schema: Any) -> dict[str, list[str]]:
    """Names of classes by column, from the metadata that `datasets` writes; empty where there are none."""
    raw = (schema.metadata or {}).get(b"huggingface")
    features = json.loads(raw).get("info", {}).get("features", {}) if raw else {}
    found: dict[str, list[str]] = {}
    for column, feature in features.items():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else {}
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel":
            found[column] = [str(name) for name in inner["names"]]
    return found


def _name(known: list[str], value: Any) -> Any:
    if isinstance(value, list):
        return [_name(known, item) for item in value]
    return known[value] if isinstance(value, int) and 0 <= value < len(known) else None
