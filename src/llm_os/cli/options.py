"""NAME=VALUE pairs and numbers of replicas, as people type them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llm_os.errors import InvalidOptionError


def options_of(given: Sequence[str]) -> dict[str, Any]:
    """Values are JSON where they can be read as such, else texts. Raises InvalidOptionError."""
    found: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidOptionError(f"'{pair}' is no option.", hint="Write NAME=VALUE, such as context=4096.")
        if name in found:
            raise InvalidOptionError(f"'{name}' is given twice.", hint="Give it once.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def scaling_of(least: int | None, most: int | None) -> dict[str, int]:
    """Between how many replicas a deployment scales: at least one, at most as many as at least, if left out."""
    least = 1 if least is None else least
    return {"least": least, "most": max(1, least) if most is None else most}
