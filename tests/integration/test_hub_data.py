"""The hub's own library reads data: here a folder in the hub's form, because tests have no network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.tasks.datasets.bed import prepare, real_rows

from llm_os.errors import SourceError

pytestmark = [pytest.mark.slow]
ROWS = real_rows(60)


def test_the_hub_is_read_by_its_own_library(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name, part in {"train": ROWS[:40], "test": ROWS[40:]}.items():
        (tmp_path / "d" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    done = prepare("datasets/hub", tmp_path, source=f"hub:{tmp_path}/d")
    assert (len(done.train), len(done.test)) == (40, 20)
    assert done.texts == {row["text"].strip() for row in ROWS}


def test_a_name_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="The hub has no data set"):
        prepare("datasets/hub", tmp_path, source=f"hub:{tmp_path}/nowhere")
