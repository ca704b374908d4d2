"""NAME=VALUE pairs and numbers of replicas, as people type them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from llm_os.errors import InvalidOptionError


def further(texts: Iterable[str], **flags: str | None) -> dict[str, Any]:
    """What `--option NAME=VALUE` gave.

    Args:
        flags: names that are no further options, and the flag each has; None: a command knows no such thing.

    Raises:
        InvalidOptionError: one of those, or a text of another form.
    """
    given = dict(pair(text) for text in texts)
    for name in flags.keys() & given.keys():
        flag = flags[name]
        hint = f"Write {flag} {given[name]}." if flag else "Leave it out."
        raise InvalidOptionError(f"'{name}' cannot be given as --option.", hint=hint)
    return given


def pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidOptionError(f"--option {text} has no value.", hint="Write --option NAME=VALUE.")
    return name, plain_value(value)


def labels_of(texts: Iterable[str]) -> dict[str, str]:
    """What `--label NAME=VALUE` gave, as it was written. Raises InvalidOptionError."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidOptionError(f"--label {text} is no label.", hint="Write --label NAME=VALUE.")
        found[name] = value
    return found


def plain_value(text: str) -> Any:
    """What the text is as JSON, or the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def scaling_of(least: int | None, most: int | None) -> dict[str, int]:
    """Between how many replicas a deployment scales: at least one, at most as many as at least, if left out."""
    least = 1 if least is None else least
    return {"least": least, "most": max(1, least) if most is None else most}
