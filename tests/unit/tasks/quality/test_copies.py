"""Planted copies are counted: equal ones, nearly equal ones, with other labels, and over the splits."""

from __future__ import annotations

from pathlib import Path

from .bed import described, real

LONG = "the old harbour lay quiet under a thin grey fog while gulls cried over the nets of number"


def test_planted_copies_are_counted_and_named(tmp_path: Path) -> None:
    rows = real("en", 300)
    plain = described(tmp_path / "before", {"train": rows}).quality.copies
    rows += [{**rows[3], "text": rows[3]["text"].upper() + "  "}, {**rows[4], "label": "none of both"}]
    rows += [{"text": f"{LONG} {i}", "label": "positive"} for i in range(3)]
    copies = described(tmp_path / "after", {"train": rows}).quality.copies
    assert (copies.equal - plain.equal, copies.near - plain.near, copies.conflicting) == (2, 2, 2)
    largest = copies.groups[0]
    assert (largest.count, [at.row for at in largest.rows]) == (3, [302, 303, 304])
    assert 0.8 <= largest.similarity < 1
    assert copies.conflicts[0].labels == ("none of both", rows[4]["label"])
    assert sorted(at.row for at in copies.conflicts[0].rows) == [4, 301]
    assert copies.leaking == 0


def test_leaks_over_the_split_are_named_from_either_side(tmp_path: Path) -> None:
    train, test = real("zh", 200)[:150], real("zh", 200)[150:]
    test += [{**train[7]}, {**train[8], "text": train[8]["text"][:-1] + "!"}]
    train[8]["text"] *= 2
    test[-1]["text"] = train[8]["text"][:-1] + "!"
    meta = {"language": "zh"}
    everything = described(tmp_path / "all", {"train": train, "test": test}, meta)
    assert everything.quality.copies.leaking == 2
    assert everything.quality.findings[0].severity == "error"
    assert everything.sentences[0].startswith("Leaks: 2 of the training rows")
    named = {(at.split, at.row) for group in everything.quality.copies.leaks for at in group.rows}
    assert named == {("train", 7), ("train", 8), ("test", 50), ("test", 51)}
    part = described(tmp_path / "part", {"train": train, "test": test}, meta, split="test", start=50)
    assert part.quality.copies.leaking == 2
    assert {(at.split, at.row) for group in part.quality.copies.leaks for at in group.rows} == {
        ("train", 7),
        ("train", 8),
        ("test", 0),
        ("test", 1),
    }, "rows of the slice count from its beginning, those of the other split as they are"
    equal = described(tmp_path / "equal", {"train": train, "test": test}, meta, near_duplicates=None)
    assert equal.quality.copies.leaking == 1


def test_texts_of_a_template_are_no_copies(tmp_path: Path) -> None:
    rows = [{"text": f"{LONG} {i}", "label": "positive"} for i in range(100)] + real("en", 100)
    bed = described(tmp_path, {"train": rows})
    assert (bed.quality.copies.near, bed.quality.copies.alike) == (0, 100)
    assert any("as from a template" in sentence for sentence in bed.sentences)


def test_data_without_copies_says_so(tmp_path: Path) -> None:
    copies = described(
        tmp_path, {"train": [{"text": f"{i * 7919} {i**5} words", "label": "positive"} for i in range(9)]}
    )
    assert (copies.quality.copies.equal, copies.quality.copies.near, copies.quality.copies.groups) == (0, 0, ())
