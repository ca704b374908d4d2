"""Texts by which engines are compared: they lie in a version, its own rows among them, and come from its training."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
import reports as _reports  # noqa: F401 - finds `tiny`
from talking import QUICK, chat_rows, data_of, model_of, preference_rows
from test_reference import made
from tiny import Bench

from llm_os import plugins
from llm_os.errors import ModelError
from llm_os.models import settings
from llm_os.models.formats import inspect
from llm_os.tasks.evaluation import prompts
from llm_os.tasks.evaluation.prompts import FILE, LONGEST, MOST_OWN, ours, own, read


def trained(root: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    """The output of a short training on chats."""
    task = plugins.load("task", "training/full")
    bench = Bench(root, {"model": model_of(root), "data": data_of(root, "chat", rows)})
    task.run(bench.context, task.Options(epochs=1, **QUICK, **options))
    return bench.output


def test_a_trained_version_carries_rows_of_its_own_and_is_asked_them(tmp_path: Path) -> None:
    rows = chat_rows()
    rows[0]["messages"][0]["content"] = "only the training saw this"
    parent = model_of(tmp_path / "run").path
    (parent / settings.FILE).write_text(json.dumps({"temperature": 0.5, "eos_token_id": 2}))
    folder = trained(tmp_path / "run", rows)
    found = read(folder)
    mine = [row for row in found if row.get("own")]
    assert found[: len(ours())] == ours()
    assert 0 < len(mine) <= MOST_OWN
    assert mine[0]["messages"] == rows[0]["messages"]
    assert settings.read(folder).temperature == 0.5
    assert inspect(folder)["generation"] == {"temperature": 0.5, "eos_token_id": [2]}
    reference = made(tmp_path / "reference", folder)
    assert any("only the training saw this" in one.messages[0]["content"] for one in reference.readings if one.messages)


def test_equal_trainings_carry_equal_files_and_own_rows_can_be_left_out(tmp_path: Path) -> None:
    one, two = trained(tmp_path / "a", chat_rows()), trained(tmp_path / "b", chat_rows())
    for name in (FILE, settings.FILE):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    bare = trained(tmp_path / "c", chat_rows(), check_prompts=False)
    assert read(bare) == ours()
    assert (bare / "model.safetensors").read_bytes() == (one / "model.safetensors").read_bytes()


def test_a_version_without_the_file_is_asked_what_ships_with_us(tmp_path: Path) -> None:
    assert prompts.asked(tmp_path) == ([], ours())
    prompts.write(tmp_path, [{"text": "mine", "own": True}])
    assert prompts.asked(tmp_path) == ([*ours(), {"text": "mine", "own": True}], [])


def test_a_foreign_file_with_few_texts_is_asked_beside_ours(tmp_path: Path) -> None:
    folder = model_of(tmp_path / "m").path
    (folder / FILE).write_text('{"text": "theirs, first of all the texts"}\n')
    reference = made(tmp_path / "run", folder)
    assert reference.readings[0].text == "theirs, first of all the texts"
    assert sum(len(text.places) for text in reference.texts) >= 1000


def test_own_rows_hold_texts_alone_cut_and_spread_evenly() -> None:
    rows = [{"text": f"{number} " + "x" * 1000, "label": "secret"} for number in range(100)]
    found = own(rows)
    assert len(found) == MOST_OWN
    assert all(set(row) == {"text", "own"} and len(row["text"]) == LONGEST for row in found)
    assert [int(row["text"].split()[0]) for row in found][:3] == [0, 4, 8]
    assert own([{"text": "a", "other": "b"}, {"text": ""}, {"tokens": ["a"]}]) == []
    (chat,) = own(preference_rows(1))
    assert [one["role"] for one in chat["messages"]] == ["user", "assistant"]
    call = {"role": "assistant", "tool_calls": [{"id": "1"}]}
    assert own([{"messages": [{"role": "user", "content": "a"}, call]}]) == []


def test_characters_that_end_lines_elsewhere_end_none_here(tmp_path: Path) -> None:
    mine = [{"text": f"one{mark}two", "own": True} for mark in ("\x85", "\u2028", "\u2029", "\x0c", "\r\n")]
    prompts.write(tmp_path, mine)
    assert read(tmp_path) == [*ours(), *mine]


def test_rows_with_half_a_character_are_not_carried_along() -> None:
    assert own([{"text": "\ud83d"}, {"text": "whole"}]) == [{"text": "whole", "own": True}]


def test_of_a_foreign_line_only_what_is_asked_is_taken(tmp_path: Path) -> None:
    call = {"role": "user", "content": "a", "tool_calls": 3}
    lines = [{"text": "a", "messages": 5, "own": "yes"}, {"messages": [call, {"role": "assistant", "content": "b"}]}]
    (tmp_path / FILE).write_text("\n".join(map(json.dumps, lines)))
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert read(tmp_path) == [{"text": "a"}, {"messages": messages}]


UNHASHABLE = '{"messages": [{"role": ["user"], "content": "a"}, {"role": "assistant", "content": "b"}]}'


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "3",
        '{"text": 3}',
        '{"messages": [{"role": "user", "content": "a"}]}',
        UNHASHABLE,
        "[" * 100_000,
        '{"text": "' + "x" * 100_000 + '"}',
        '{"text": "\\ud83d"}',
    ],
    ids=range(8),
)
def test_a_broken_file_is_told_by_line(tmp_path: Path, line: str) -> None:
    (tmp_path / FILE).write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ModelError, match="Line 2"):
        read(tmp_path)


def test_what_is_made_of_a_version_has_its_prompts(tmp_path: Path) -> None:
    parent, child, other = (tmp_path / name for name in ("parent", "child", "other"))
    for folder in (parent, child, other):
        folder.mkdir()
    prompts.write(parent, [{"text": "mine", "own": True}])
    prompts.bring(child, parent)
    assert read(child) == read(parent)
    prompts.bring(child)
    assert read(child) == read(parent), "what it came with stays"
    prompts.bring(other)
    assert read(other) == ours()
