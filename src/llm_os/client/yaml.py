"""Writes the YAML of a card's front matter: block style, every text in double quotes as JSON. Reads nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_FORBIDDEN = re.compile("[\\x7f-\\x9f\\u2028\\u2029\\ufeff\\ufffe\\uffff]")
"""Signs outside YAML's printable set (YAML 1.2, section 5.1), and those that it takes for the end of a line."""


def dump(value: Mapping[str, Any]) -> str:
    """A mapping as a YAML document, to be read by YAML 1.1 and 1.2 alike; lists do not stand in lists."""
    return "".join(f"{line}\n" for line in _mapping(value, ""))


def _mapping(value: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, one in value.items():
        if isinstance(one, Mapping) and one:
            yield f"{indent}{name}:"
            yield from _mapping(one, indent + "  ")
        elif _listed(one):
            yield f"{indent}{name}:"
            yield from _sequence(one, indent)
        else:
            yield f"{indent}{name}: {_scalar(one)}"


def _sequence(value: Sequence[Any], indent: str) -> Iterator[str]:
    for one in value:
        if isinstance(one, Mapping) and one:
            first, *rest = _mapping(one, indent + "  ")
            yield f"{indent}- {first.lstrip()}"
            yield from rest
        else:
            yield f"{indent}- {_scalar(one)}"


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value)


def _scalar(value: Any) -> str:
    """As JSON writes it, but for what YAML reads otherwise: `1e-05` (a text) and signs it does not allow."""
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")
    return _FORBIDDEN.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
