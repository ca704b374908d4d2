"""Redaction: mail addresses, phone, identity, account and card numbers become `[EMAIL]`, `[PHONE]` ...; counted."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from llm_os.spec.base import Spec
from llm_os.tasks.preparation.fields import Search
from llm_os.tasks.preparation.personal import KINDS, Name, regions_of
from llm_os.tasks.preparation.step import Bench, Row, Step


class RedactOptions(Spec):
    kinds: tuple[Name, ...] = Field(default=KINDS, min_length=1)
    """What is taken out: mail addresses, bank accounts, Chinese resident identity numbers, payment cards, US social
    security numbers, phone numbers."""
    regions: tuple[str, ...] = ()
    """Countries (ISO 3166) whose phone numbers are found without a country code; none: those of the language."""


class Redact(Step[RedactOptions]):
    """Every column but the labels. Only counts are kept of what was there: one a kind, and the rows concerned."""

    Options = RedactOptions

    def apply(self, rows: Iterator[Row], options: RedactOptions, bench: Bench) -> Iterator[Row]:
        search = Search(options.regions or regions_of(bench.language), options.kinds)
        for row in rows:
            changed, found = search.redacted(row)
            bench.notes.update(span.kind for one in found for span in one.spans)
            bench.notes["rows"] += bool(found)
            yield changed
        if not bench.notes["rows"]:
            del bench.notes["rows"]
        counts = ", ".join(f"{bench.notes[kind]:,} {kind}" for kind in KINDS if bench.notes[kind])
        bench.message(f"Redacted: {counts or 'nothing was found'}.")


PLUGIN = Redact()
