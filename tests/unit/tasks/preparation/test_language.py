"""Rows in the languages that were asked for stay, and each row says its own."""

from __future__ import annotations

from pathlib import Path

from .stepping import Stepping, real, texts

FRENCH = "Ce film est une merveille, je le recommande à tous ceux qui aiment le cinéma."


def test_a_mixed_file_is_told_apart(tmp_path: Path) -> None:
    stepping = Stepping.at(tmp_path)
    english = [row for row in real("en", 200) if len(row["text"]) >= 60][:50]
    chinese = [row for row in real("zh", 200) if len(row["text"]) >= 20][:50]
    kept = stepping.run("language", [*english, *chinese, *texts(FRENCH)], keep=["zh"], unsure="drop")
    assert len(kept) >= 48
    assert {row["text"] for row in kept} <= {row["text"] for row in chinese}
    assert {row["language"] for row in kept} == {"zh"}
    assert stepping.notes["dropped"] == 101 - len(kept)
    assert stepping.notes["fr"] == 1


def test_drop_takes_out_what_it_names_only(tmp_path: Path) -> None:
    rows = Stepping.at(tmp_path).run("language", texts(FRENCH, "ok"), drop="fr", column=None)
    assert rows == texts("ok")


def test_short_texts_are_unknown_and_stay_unless_told(tmp_path: Path) -> None:
    stepping = Stepping.at(tmp_path)
    assert [row["language"] for row in stepping.run("language", texts("ok", "123"))] == ["unknown", "unknown"]
    assert stepping.run("language", texts("ok"), keep=["en"])
    assert not stepping.run("language", texts("ok"), keep=["en"], unsure="drop")


def test_nothing_is_dropped_where_nobody_asked(tmp_path: Path) -> None:
    assert len(Stepping.at(tmp_path).run("language", texts("ok", FRENCH), unsure="drop")) == 2
