"""Runs one step on rows, as `load_data` does, and shows what it noted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from llm_os.tasks.datasets import sentic_data
from llm_os.tasks.preparation.step import Bench, StepSpec, choose


@dataclass
class Stepping:
    """Rows through steps in a folder of the test's own."""

    bench: Bench

    @classmethod
    def at(
        cls, folder: Path, language: str = "unknown", seed: int = 42, kind: str = "classification", **more: Any
    ) -> Stepping:
        (folder / "scratch").mkdir(parents=True, exist_ok=True)
        messages: list[str] = []
        bench = Bench(folder / "scratch", folder / "encoding", language, seed, None, messages.append, kind, **more)
        return cls(bench)

    def run(self, step: str, rows: Iterable[Mapping[str, Any]], **options: Any) -> list[dict[str, Any]]:
        (chosen,) = choose([StepSpec(step=step, options=options)])
        self.bench.notes.clear()
        return [dict(row) for row in chosen.step.apply(iter(list(rows)), chosen.options, self.bench)]

    def split(self, name: str) -> Stepping:
        return Stepping(replace(self.bench, split=name))

    @property
    def notes(self) -> dict[str, int]:
        return dict(self.bench.notes)


@cache
def _real(language: str) -> tuple[dict[str, Any], ...]:
    return tuple(dict(row) for row in sentic_data.select(sentic_data.read(language), 2)[0])


def real(language: str, count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows of the shipped data, spread over the whole."""
    rows = _real(language)
    return [dict(row) for row in rows[start :: max(1, len(rows) // count)][:count]]


def texts(*given: str) -> list[dict[str, Any]]:
    return [{"text": text, "label": "a"} for text in given]
