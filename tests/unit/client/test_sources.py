"""Steps are written down so that what they name is fixed: files by hash, models by version."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from llm_os.client.sources import listed, with_model
from llm_os.errors import InvalidInputError
from llm_os.spec.models import ModelVersion

VERSION = ModelVersion(
    card="tiny",
    number=3,
    manifest="sha256:" + "a" * 64,
    format="safetensors",
    precision="fp32",
    task="text-generation",
    size=1,
    created_at=0.0,
)


def test_steps_can_be_written_in_three_ways() -> None:
    assert listed(["clean", ("segment", {"language": "zh"}), {"step": "clean"}]) == [
        {"step": "clean"},
        {"step": "segment", "options": {"language": "zh"}},
        {"step": "clean"},
    ]
    assert listed("clean") == [{"step": "clean"}]
    assert listed(None) is None
    assert listed(None, redact=True) == [{"step": "clean"}, {"step": "redact"}]
    with pytest.raises(InvalidInputError, match="7 is no preparation step"):
        listed([7])  # type: ignore[list-item]


def test_a_file_that_an_option_names_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "synonyms.tsv").write_text("good\tfine\n")
    (tmp_path / "en").write_text("a file with the name of a language")
    monkeypatch.chdir(tmp_path)
    (step,) = listed([("augment", {"lexicon": "synonyms.tsv", "language": "en", "other": "none.tsv"})])
    assert step == {
        "step": "augment",
        "options": {"lexicon": str(tmp_path / "synonyms.tsv"), "language": "en", "other": "none.tsv"},
        "content": {"lexicon": hashlib.sha256(b"good\tfine\n").hexdigest()},
    }


def test_a_model_becomes_an_input_by_its_digest() -> None:
    asked: list[str] = []

    def find(name: str) -> ModelVersion:
        asked.append(name)
        return VERSION

    steps = listed(["clean", ("encode", {"model": "tiny", "length": 8}), ("chat_format", {"model": "tiny"})])
    named, inputs = with_model(steps, find)
    assert inputs == {"tokenizer": VERSION.manifest}
    assert named is not None
    assert named[1] == {"step": "encode", "options": {"model": "tiny@3", "length": 8}}
    assert asked == ["tiny"]
    assert with_model(listed(["clean"]), find) == ([{"step": "clean"}], {})


def test_two_models_in_one_call_are_refused() -> None:
    steps = listed([("encode", {"model": "one"}), ("chat_format", {"model": "two"})])
    with pytest.raises(InvalidInputError, match="2 models: one, two"):
        with_model(steps, lambda name: VERSION)
