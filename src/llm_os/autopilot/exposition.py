"""Reads a page of metrics in Prometheus' text format, as far as somebody asked for them; must not know who wrote it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

_TYPE = re.compile(r"^# TYPE (\S+) (\S+)$")
_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? +(\S+)(?: +-?\d+)?$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
_PARTS = ("_bucket", "_count", "_sum")
"""What a histogram's series are called, behind its name."""


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Page:
    """What was read.

    Attributes:
        types: of every metric that the page tells of, also of those without a series yet: `counter`, `gauge`,
            `histogram`, `summary` or `untyped`.
        samples: of the wanted names only.
    """

    types: Mapping[str, str]
    samples: tuple[Sample, ...]

    def type_of(self, name: str) -> str | None:
        """Type of a metric or of a histogram's part (a counter); None: the page has no such metric."""
        if name in self.types:
            return self.types[name]
        for part in _PARTS:
            if name.endswith(part) and self.types.get(name.removesuffix(part)) == "histogram":
                return "counter"
        return None


def read(text: str, wanted: Collection[str]) -> Page:
    """Parse a page. Lines that are no samples, and numbers that are none, are passed over.

    Args:
        wanted: names of series, such as `x_total` or `x_bucket`.
    """
    types: dict[str, str] = {}
    samples = []
    for line in text.splitlines():
        if line.startswith("#"):
            if (found := _TYPE.match(line)) is not None:
                types[found[1]] = found[2]
            continue
        end = min((at for at in (line.find("{"), line.find(" ")) if at >= 0), default=0)
        if line[:end] not in wanted or (found := _SAMPLE.match(line)) is None:
            continue
        try:
            value = float(found[3])
        except ValueError:
            continue
        if math.isnan(value):
            continue
        labels = {name: _plain(text) for name, text in _LABEL.findall(found[2] or "")}
        samples.append(Sample(found[1], labels, value))
    return Page(types, tuple(samples))


def _plain(text: str) -> str:
    if "\\" not in text:
        return text
    return re.sub(r"\\.", lambda found: _ESCAPED.get(found[0], found[0]), text)
