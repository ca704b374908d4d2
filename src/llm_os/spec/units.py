"""Bytes, durations and counts: parse what people write ("24GiB", "30s") and print it back."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_SIZES = {
    "": 1, "b": 1,
    "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12, "tb": 10**12,
    "ki": 2**10, "kib": 2**10, "mi": 2**20, "mib": 2**20, "gi": 2**30, "gib": 2**30, "ti": 2**40, "tib": 2**40,
}  # fmt: skip
_TIMES = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_ROWS = re.compile(r"\brows\b")
_QUANTITY = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*$")


def _quantity(value: Any, units: dict[str, float] | dict[str, int], example: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected a number or text such as {example!r}, got {value!r}")
    if not isinstance(value, str):
        return float(value)
    match = _QUANTITY.match(value)
    if not match or match[2].lower() not in units:
        raise ValueError(f"cannot read {value!r}; write it like {example!r}")
    return float(match[1]) * units[match[2].lower()]


def parse_bytes(value: Any) -> int:
    """Bytes from `24GiB`, `500 MB` or a plain number. Raises ValueError."""
    number = _quantity(value, _SIZES, "24GiB")
    if number < 0:
        raise ValueError("a size cannot be negative")
    return int(number)


def parse_duration(value: Any) -> float:
    """Seconds from `30s`, `5m`, `250ms` or a plain number. Raises ValueError."""
    number = _quantity(value, _TIMES, "30s")
    if number < 0:
        raise ValueError("a duration cannot be negative")
    return number


def format_bytes(value: int) -> str:
    """`5.1 GiB`; one decimal from KiB upwards."""
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{int(size)} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_count(count: int, what: str) -> str:
    """`1 bad row`, `1,250 bad rows`: `what` is written for many."""
    return f"{count:,} {_ROWS.sub('row', what, count=1) if count == 1 else what}"


def format_duration(seconds: float) -> str:
    """`850 ms`, `12.3 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
