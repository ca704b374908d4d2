"""The step `redact`: planted personal data goes from every column, the rest stays, and only counts are kept."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llm_os import plugins
from llm_os.client.sources import listed
from llm_os.errors import LeakError
from llm_os.spec.attempts import Report
from llm_os.tasks.context import Context
from llm_os.tasks.datasets.sentic_data import read
from llm_os.tasks.preparation.fields import Search
from llm_os.tasks.preparation.personal import excerpt, masked
from llm_os.tasks.preparation.step import Bench

RAW = {
    "email": "jane.doe@example.org",
    "phone": "+1 202-456-1414",
    "id": "11010519491231002X",
    "card": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
    "ssn": "078-05-1120",
}


def apply(
    rows: list[dict[str, Any]], language: str = "en", **options: Any
) -> tuple[list[Any], Counter[str], list[str]]:
    step, said = plugins.load("step", "redact"), list[str]()
    bench = Bench(Path(), Path(), language, 42, None, said.append)
    changed = list(step.apply(iter(rows), step.Options.model_validate(options), bench))
    return changed, bench.notes, said


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_is_planted_into_real_texts_goes_and_nothing_else_changes(language: str) -> None:
    real = read(language)[:600]
    real = [row for row in real if not Search(("US", "GB", "CN")).found(row)]
    rows = [{**row, "text": f"{row['text']} ({list(RAW.values())[i % 6]})"} for i, row in enumerate(real)]
    changed, notes, said = apply(rows, language)
    for i, (row, before) in enumerate(zip(changed, real, strict=True)):
        assert row == {**before, "text": f"{before['text']} ([{list(RAW)[i % 6].upper()}])"}
    assert notes["rows"] == len(rows)
    assert sum(notes[kind] for kind in RAW) == len(rows)
    assert said
    assert not any(value in json.dumps([notes, said]) for value in RAW.values())


def test_rows_of_every_kind_are_redacted_wherever_the_data_stands() -> None:
    mail, card = RAW["email"], RAW["card"]
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": f"write to {mail}"}, {"role": "assistant", "content": "done"}]},
        {"prompt": [{"role": "user", "content": mail}], "chosen": f"{mail} it is", "rejected": "no"},
        {"tokens": ["call", "+1", "202-456-1414", "now"], "tags": ["O", "B-NUM", "I-NUM", "O"]},
        {"text": "fine", "other": mail, "author": {"mails": [mail]}, "label": "mail@label.org"},
        {"text": "fine", "card": int(card.replace(" ", "")), "phone": 2024561414, "order": 2024561414, "stars": 4.5},
    ]
    changed, notes, _ = apply(rows)
    assert changed == [
        {"messages": [{"role": "user", "content": "write to [EMAIL]"}, {"role": "assistant", "content": "done"}]},
        {"prompt": [{"role": "user", "content": "[EMAIL]"}], "chosen": "[EMAIL] it is", "rejected": "no"},
        {"tokens": ["call", "[PHONE]", "[PHONE]", "now"], "tags": ["O", "B-NUM", "I-NUM", "O"]},
        {"text": "fine", "other": "[EMAIL]", "author": {"mails": ["[EMAIL]"]}, "label": "mail@label.org"},
        {"text": "fine", "card": "[CARD]", "phone": "[PHONE]", "order": 2024561414, "stars": 4.5},
    ]
    assert notes == {"email": 5, "phone": 2, "card": 1, "rows": 5}


def test_only_the_kinds_that_were_asked_for_go() -> None:
    changed, notes, said = apply([{"text": f"{RAW['email']} {RAW['ssn']}"}, {"text": "nobody"}], kinds=["ssn"])
    assert [row["text"] for row in changed] == [f"{RAW['email']} [SSN]", "nobody"]
    assert notes == {"ssn": 1, "rows": 1}
    assert said == ["Redacted: 1 ssn."]


def test_masked_samples_and_excerpts_name_nobody() -> None:
    assert masked(RAW["email"], "email") == "j•••@•••.org"
    assert masked(RAW["id"], "id") == "••••••••••••••••2X"
    assert masked(RAW["phone"], "phone") == "+• •••-•••-••14"
    assert excerpt(f"a\n b {RAW['email']} " + "c" * 90, ("US",)) == "a b [EMAIL] " + "c" * 47 + "…"


def test_load_data_puts_redaction_behind_the_first_cleaning() -> None:
    assert listed((), redact=True) == [{"step": "redact"}]
    assert listed(["clean", "segment"], redact=True) == [{"step": "clean"}, {"step": "redact"}, {"step": "segment"}]
    assert listed(["segment", "clean"], redact=True)[0] == {"step": "redact"}
    assert listed("redact", redact=True) == [{"step": "redact"}]


def prepare(root: Path, **options: Any) -> tuple[Path, list[Report]]:
    reports: list[Report] = []
    for name in ("output", "checkpoints", "scratch"):
        (root / name).mkdir(parents=True)
    context = Context(
        inputs={},
        output=root / "output",
        checkpoints=root / "checkpoints",
        scratch=root / "scratch",
        on_report=reports.append,
    )
    task = plugins.load("task", "datasets/table")
    task.run(context, task.Options.model_validate(options))
    return root, reports


def test_a_redacted_data_set_holds_no_raw_value_anywhere_and_records_the_counts(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    users = ("a.b@example.org", "c.d@example.org", "e.f@example.org", "g.h@example.org")
    rows = [
        {"text": f"{r['text']} {RAW['phone']}", "label": f"{i % 2}", "user": users[i % 4]}
        for i, r in enumerate(read("en")[:200])
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    root, reports = prepare(
        tmp_path / "run", path=str(file), steps=[{"step": "redact"}], split="grouped", group="user", test_size=0.25
    )
    everything = "".join(p.read_text() for p in root.rglob("*") if p.is_file() and p.suffix != ".idx")
    everything += "".join(report.model_dump_json() for report in reports)
    assert not any(value in everything for value in (*users, RAW["phone"]))
    meta = json.loads((root / "output" / "artifact.json").read_text())["meta"]
    assert meta["steps"][0]["notes"] == {"email": 200, "phone": 200, "rows": 200}
    assert meta["splits"]["test"]["rows"] == 50, "users are told apart although their addresses are gone"


def test_errors_that_quote_a_row_show_no_personal_data(tmp_path: Path) -> None:
    mail = RAW["email"]
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text(
            "text,label\n" + "".join(f"{name} {i * 7919} words {i},{i % 2}\n" for i in range(20)) + f"ask {mail},1\n"
        )
    with pytest.raises(LeakError, match=r"ask \[EMAIL\]") as caught:
        prepare(tmp_path / "run", path=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"))
    assert mail not in json.dumps(caught.value.to_dict())
    (tmp_path / "score.csv").write_text(f"text,label\na,1\nb,2\nc,3\nd,{mail}\n")
    with pytest.raises(Exception, match=r"'\[EMAIL\]' is no number") as failed:
        prepare(tmp_path / "other", path=str(tmp_path / "score.csv"), labels="score")
    assert mail not in str(failed.value)
