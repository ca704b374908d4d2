"""Steps run where they are declared, cleaning runs where nothing is, and each is recorded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from llm_os import plugins
from llm_os.errors import DataError, InvalidOptionError, NotFoundError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.tasks.context import Context, InputFolder
from llm_os.tasks.datasets.ingest import SIDE

REVIEWS = [
    {"text": f"<p>Review {i} &amp; more:  {'good' if i % 2 else 'bad'}</p>", "label": "ab"[i % 2]} for i in range(40)
]


def work(root: Path, task: str, inputs: dict[str, InputFolder] | None = None, **options: Any) -> dict[str, Any]:
    for name in ("output", "checkpoints", "scratch"):
        (root / name).mkdir(parents=True)
    folders = [root / name for name in ("output", "checkpoints", "scratch")]
    context = Context(inputs=inputs or {}, output=folders[0], checkpoints=folders[1], scratch=folders[2])
    plugin = plugins.load("task", task)
    plugin.run(context, plugin.Options.model_validate({"near_duplicates": None, **options}))
    return dict(json.loads((root / "output" / "artifact.json").read_text())["meta"])


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(root: Path, rows: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    return work(root, "datasets/table", path=str(lines(root / "rows.jsonl", rows)), **options)


def rows_of(root: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "output" / split / "rows.jsonl").read_text().splitlines()]


def test_cleaning_is_the_default_and_says_so(tmp_path: Path) -> None:
    meta = table(tmp_path, REVIEWS)
    assert meta["steps"] == [
        {
            "step": "clean",
            "options": {"unicode": "NFC", "html": None, "spaces": None},
            "default": True,
            "rows_in": 40,
            "rows_out": 40,
            "notes": {"changed": 40},
        }
    ]
    assert all(row["text"].startswith("Review ") and " & more: " in row["text"] for row in rows_of(tmp_path, "train"))


def test_language_models_get_mark_up_and_line_breaks_as_they_are(tmp_path: Path) -> None:
    code = [
        {
            "messages": [
                {"role": "user", "content": f"Page {i}?"},
                {"role": "assistant", "content": "<p>\n\n  cafe\u0301</p>"},
            ]
        }
        for i in range(20)
    ]
    meta = table(tmp_path, code)
    assert meta["steps"][0]["step"] == "clean"
    assert rows_of(tmp_path, "test")[0]["messages"][1]["content"] == "<p>\n\n  caf\u00e9</p>"


def test_no_steps_leave_the_rows_as_they_come(tmp_path: Path) -> None:
    meta = table(tmp_path, REVIEWS, steps=[])
    assert meta["steps"] == []
    assert all(row["text"].startswith("<p>") for row in rows_of(tmp_path, "train"))


def test_named_steps_run_in_order_and_each_counts_its_rows(tmp_path: Path) -> None:
    steps = [{"step": "clean"}, {"step": "deduplicate", "options": {"threshold": None}}, {"step": "segment"}]
    meta = table(tmp_path, [*REVIEWS, *REVIEWS[:7]], steps=steps)
    assert [(step["step"], step["rows_in"], step["rows_out"]) for step in meta["steps"]] == [
        ("clean", 47, 47),
        ("deduplicate", 47, 40),
        ("segment", 40, 40),
    ]
    assert meta["steps"][1]["notes"]["equal"] == 7
    assert meta["splits"]["train"]["rows"] + meta["splits"]["test"]["rows"] == 40


def test_further_steps_keep_the_split_and_what_was_done_before(tmp_path: Path) -> None:
    meta = table(tmp_path / "one", REVIEWS)
    (tmp_path / "one" / "output" / SIDE).mkdir()
    (tmp_path / "one" / "output" / SIDE / "words.txt").write_text("good\n")
    facts = ArtifactFacts(digest="sha256:" + "1" * 64, kind="dataset", size=1, meta=meta)
    given = {"data": InputFolder(tmp_path / "one" / "output", facts)}
    after = work(tmp_path / "two", "datasets/prepared", given, steps=[{"step": "segment"}])
    assert [step["step"] for step in after["steps"]] == ["clean", "segment"]
    for split in ("train", "test"):
        before, now = rows_of(tmp_path / "one", split), rows_of(tmp_path / "two", split)
        assert sorted(row["text"].replace(" ", "") for row in now) == sorted(
            row["text"].replace(" ", "") for row in before
        )
    assert (tmp_path / "two" / "output" / SIDE / "words.txt").read_text() == "good\n"


def test_the_same_steps_give_the_same_bytes(tmp_path: Path) -> None:
    steps = [{"step": "clean"}, {"step": "stop_words", "options": {"language": "en"}}]
    one, two = (table(tmp_path / name, REVIEWS, steps=steps) for name in ("one", "two"))
    assert one["splits"] == two["splits"]


@pytest.mark.parametrize(
    ("step", "kind", "words"),
    [
        ({"step": "claen"}, NotFoundError, "Did you mean 'clean'"),
        ({"step": "deduplicate", "options": {"treshold": 1}}, InvalidOptionError, "Did you mean 'threshold'"),
        ({"step": "clean", "options": {"html": "maybe"}}, InvalidOptionError, "option 'html' cannot be 'maybe'"),
    ],
)
def test_a_step_or_option_that_is_not_there_is_named(
    tmp_path: Path, step: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        table(tmp_path, REVIEWS, steps=[step])


def test_a_file_of_a_step_that_changed_since_submission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("now")
    step = {
        "step": "language",
        "options": {"column": str(path)},
        "content": {"column": hashlib.sha256(b"then").hexdigest()},
    }
    with pytest.raises(DataError, match=r"'list.txt' was changed since it was submitted"):
        table(tmp_path, REVIEWS, steps=[step])


def test_the_test_split_stays_as_it_came_under_steps_for_training(tmp_path: Path) -> None:
    plain = table(tmp_path / "plain", REVIEWS)
    skewed = [{"step": "clean"}, {"step": "augment", "options": {"swap": 0.5}}, {"step": "balance"}]
    changed = table(tmp_path / "changed", REVIEWS, steps=skewed)
    assert changed["splits"]["test"] == plain["splits"]["test"]
    assert changed["splits"]["train"]["rows"] > plain["splits"]["train"]["rows"]
    assert [step["rows_in"] for step in changed["steps"]][:2] == [40, 32]


def test_a_vocabulary_is_learnt_from_training_rows_and_used_on_both(tmp_path: Path) -> None:
    steps = [
        {"step": "clean"},
        {"step": "encode", "options": {"min_count": 1}},
        {"step": "word_vectors", "options": {"size": 4, "min_count": 1}},
    ]
    meta = table(tmp_path, REVIEWS, steps=steps)
    words = (tmp_path / "output" / SIDE / "vocabulary.txt").read_text().split()
    seen = {word for row in rows_of(tmp_path, "train") for word in row["text"].lower().replace(":", " : ").split()}
    assert set(words[2:]) == seen
    assert (tmp_path / "output" / SIDE / "vectors.safetensors").exists()
    assert meta["steps"][1]["rows_in"] == 40
    assert all(row["input_ids"] for split in ("train", "test") for row in rows_of(tmp_path, split))


def test_chat_becomes_plain_text_and_is_packed(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": f"It is {i}."}]}
        for i in range(30)
    ]
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    steps = [
        {"step": "chat_format", "options": {"template": template}},
        {"step": "encode"},
        {"step": "pack", "options": {"length": 64}},
    ]
    meta = table(tmp_path, rows, steps=steps)
    assert (meta["kind"], meta["task"]) == ("text", "text-generation")
    assert rows_of(tmp_path, "test")[0]["text"].startswith("user: What is")
    assert meta["splits"]["train"]["rows"] < 24
    assert all("boundaries" in row for row in rows_of(tmp_path, "train"))


def test_every_source_of_data_takes_the_model_that_its_steps_name() -> None:
    sources = [plugins.load("task", name) for name in plugins.names("task") if name.startswith("datasets/")]
    taking = [source for source in sources if "steps" in source.Options.model_fields]
    assert len(taking) >= 3
    assert all("tokenizer" in source.optional_inputs for source in taking)


def test_a_fold_keeps_what_the_steps_left_and_recorded(tmp_path: Path) -> None:
    steps = [{"step": "clean"}, {"step": "encode", "options": {"min_count": 1}}]
    meta = table(tmp_path / "one", REVIEWS, steps=steps)
    facts = ArtifactFacts(digest="sha256:" + "1" * 64, kind="dataset", size=1, meta=meta)
    given = {"data": InputFolder(tmp_path / "one" / "output", facts)}
    fold = work(tmp_path / "two", "datasets/fold", given, folds=4)
    assert fold["steps"] == meta["steps"]
    assert (tmp_path / "two" / "output" / SIDE / "tokenizer.json").exists()
    assert all(row["input_ids"] for row in rows_of(tmp_path / "two", "test"))
