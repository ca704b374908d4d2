"""Whatever transformers knows is loaded with the head that was asked for, from safetensors, complete or not at all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from families import DECODERS, ENCODERS, PAIRED, family

from llm_os.errors import ModelError
from llm_os.models.formats import inspect
from llm_os.models.load import load_classifier, load_transformer


@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
def test_a_family_gets_a_head_is_saved_and_known_again(tmp_path: Path, name: str) -> None:
    folder = family(tmp_path / "bare", name)
    facts = inspect(folder)
    assert facts["task"] == "feature-extraction"
    assert facts["hidden_size"] == 32
    assert facts["layers"] == 2
    assert facts["context_length"] == (38 if name == "roberta" else 40)
    names = {0: "no", 1: "maybe", 2: "yes"}
    made = load_transformer(folder, "text-classification", fresh=True, num_labels=3, id2label=names)
    assert made.fresh
    assert all(parameter in dict(made.model.named_parameters()) for parameter in made.fresh)
    made.model.save_pretrained(tmp_path / "headed")
    made.tokenizer.save_pretrained(tmp_path / "headed")
    known = inspect(tmp_path / "headed")
    assert known["task"] == "text-classification"
    assert known["labels"] == ["no", "maybe", "yes"]
    classifier = load_classifier(tmp_path / "headed")
    alone = classifier.predict(["good film"])[0]
    beside = classifier.predict(["a very very poor book", "good film"])[1]
    assert sum(alone) == pytest.approx(1.0)
    assert beside == pytest.approx(alone, abs=1e-5)  # padding changes nothing


@pytest.mark.parametrize(("name", "task", "head"), [
    *((name, "token-classification", "AutoModelForTokenClassification") for name in ("bert", "gpt2")),
    *((name, "text-generation", "AutoModelForCausalLM") for name in DECODERS),
    *((name, "text2text-generation", "AutoModelForSeq2SeqLM") for name in PAIRED),
])  # fmt: skip
def test_the_task_is_read_from_the_folder_and_loads_complete(tmp_path: Path, name: str, task: str, head: str) -> None:
    folder = family(tmp_path / "model", name, head)
    assert inspect(folder)["task"] == task
    loaded = load_transformer(folder, task)
    assert loaded.fresh == ()
    assert loaded.tokenizer.pad_token_id is not None


def test_a_head_that_is_missing_is_an_error_unless_a_fresh_one_is_wanted(tmp_path: Path) -> None:
    folder = family(tmp_path / "bare", "bert")
    with pytest.raises(ModelError, match=r"lack .*classifier"):
        load_transformer(folder, "text-classification")


def test_an_architecture_without_such_a_head_is_an_error_of_ours(tmp_path: Path) -> None:
    folder = family(tmp_path / "bare", "bert")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_transformer(folder, "text2text-generation", fresh=True)


def test_dropout_in_the_attention_is_set_by_whatever_name_it_has(tmp_path: Path) -> None:
    for name, called in (("bert", "attention_probs_dropout_prob"), ("gpt2", "attn_pdrop")):
        folder = family(tmp_path / name, name)
        made = load_transformer(folder, "text-classification", fresh=True, attention_dropout=0.0)
        assert getattr(made.model.config, called) == 0.0
