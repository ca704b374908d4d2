"""Planted personal data is counted and placed; no raw value gets into the report, the pictures or the messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_os.client.quality_text import written

from .bed import described, real

RAW = {
    "email": "jane.doe@example.org",
    "phone": "+1 202-456-1414",
    "id": "11010519491231002X",
    "card": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
    "ssn": "078-05-1120",
}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_planted_personal_data_is_counted_and_never_shown(tmp_path: Path, language: str) -> None:
    rows = real(language, 400)
    plain = described(tmp_path / "before", {"train": rows}, {"language": language}, labels=False).quality.personal
    for number, (kind, value) in enumerate(RAW.items()):
        rows[10 * number]["text"] = f"{value} {rows[10 * number]['text']}"
        rows[10 * number + 1]["note"] = f"{kind}: {value}"
    rows += [{"text": f"write to {RAW['email']} or call {RAW['phone']} now " * 3, "label": "positive"}] * 2
    bed = described(tmp_path / "after", {"train": rows}, {"language": language}, examples=500)
    personal = bed.quality.personal
    assert personal.rows - plain.rows == 14
    for kind in RAW:
        more = 6 if kind in ("email", "phone") else 0
        assert personal.counts[kind] - plain.counts.get(kind, 0) == 2 + more, kind
    places = {(sample.at.row, sample.column, sample.kind) for sample in personal.samples}
    assert {(1, "note", "email"), (30, "text", "card")} <= places
    text = bed.everything + written(bed.quality)
    assert not [value for value in RAW.values() if value in text]
    assert "[EMAIL]" in text, "the copies are shown with placeholders"


def test_constant_columns_and_classes_show_no_personal_data(tmp_path: Path) -> None:
    rows = [{**row, "owner": RAW["email"]} for row in real("en", 60)]
    bed = described(tmp_path, {"train": rows})
    assert "Column 'owner' is '[EMAIL]' in all rows." in bed.sentences
    assert RAW["email"] not in bed.everything
