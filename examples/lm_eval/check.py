"""Tells lm-eval whether an answer names the capital: a chat model answers in a sentence, which equals no name."""

from __future__ import annotations

import unicodedata
from typing import Any


def plain(text: str) -> str:
    """Lower case, without accents."""
    marks = unicodedata.normalize("NFKD", text)
    return "".join(sign for sign in marks if not unicodedata.combining(sign)).lower()


def names_the_capital(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """`named`: 1 where the answer holds the name."""
    return {"named": float(plain(doc["capital"]) in plain(results[0]))}
