"""Models from scratch: each architecture is made, trained, saved and known again; a seed decides all of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks" / "training"))
from tiny import Bench, given, sentences, tiny_data

from llm_os import plugins
from llm_os.errors import DataError, InvalidInputError, InvalidOptionError, NotFoundError
from llm_os.models.formats import inspect
from llm_os.models.load import load_classifier, load_transformer
from llm_os.models.vocabulary import WORD, train_tokenizer
from llm_os.spec.resources import Capacity

SMALL: dict[str, Any] = {"layers": 1, "width": 32, "heads": 2, "vocabulary": 300, "context": 32}
CHINESE = ["这家酒店的房间很干净", "服务员的态度很好", "房间里有异味，服务很差", "我很喜欢这家酒店"]


def make(root: Path, data: Any, **options: Any) -> Bench:
    task = plugins.load("task", "sources/new")
    inputs = data if isinstance(data, dict) else {"data": data}
    bench = Bench(root, inputs)
    asked = task.Options.model_validate({**SMALL, **options})
    task.resources(asked, {role: one.facts for role, one in inputs.items()}, Capacity(cpus=2, memory=2**33))
    task.run(bench.context, asked)
    return bench


def as_input(bench: Bench) -> Any:
    return given(bench.output, "model", json.loads((bench.output / "artifact.json").read_text())["meta"], "4")


@pytest.mark.parametrize("name", plugins.names("architecture"))
def test_an_architecture_is_made_in_the_size_that_was_asked_for(tmp_path: Path, name: str) -> None:
    data = tiny_data(tmp_path / "data", sentences(24))
    bench = make(tmp_path / "new", data, architecture=name)
    facts = inspect(bench.output)
    chosen = plugins.load("architecture", name)
    assert facts["task"] == chosen.task
    assert facts["hidden_size"] == 32
    assert facts["layers"] == 1
    assert facts["context_length"] == 32
    meta = json.loads((bench.output / "artifact.json").read_text())["meta"]
    assert meta["learning_rate"] == chosen.rate
    assert meta["source"] == f"new:{name}"
    loaded = load_transformer(bench.output, chosen.task)
    assert loaded.model.config.vocab_size == len(loaded.tokenizer)


@pytest.mark.parametrize("name", ["transformer_encoder", "transformer_decoder", "lstm", "gru"])
def test_a_fresh_model_learns_classes_by_the_rate_that_suits_it(tmp_path: Path, name: str) -> None:
    data = tiny_data(tmp_path / "data", sentences(96))
    made = make(tmp_path / "new", data, architecture=name)
    task = plugins.load("task", "training/full")
    bench = Bench(tmp_path / "run", {"model": as_input(made), "data": data})
    options = {"epochs": 12, "batch_size": 8, "precision": "fp32", "early_stopping": False}
    task.run(bench.context, task.Options.model_validate(options))
    classifier = load_classifier(bench.output)
    rows = sentences(12)
    said = [classifier.chosen(sure)[0] for sure in classifier.predict([row["text"] for row in rows])]
    assert said == [row["label"] for row in rows]
    assert "learning_rate" not in json.loads((bench.output / "artifact.json").read_text())["meta"]


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "data", sentences(24))
    made = [make(tmp_path / str(i), data, architecture="gru", seed=seed) for i, seed in enumerate((1, 1, 2))]
    first, second, third = [(bench.output / "model.safetensors").read_bytes() for bench in made]
    assert first == second
    assert first != third
    assert (made[0].output / "tokenizer.json").read_bytes() == (made[1].output / "tokenizer.json").read_bytes()


def test_padding_changes_nothing_of_what_a_recurrent_network_says(tmp_path: Path) -> None:
    import torch

    made = make(tmp_path / "new", tiny_data(tmp_path / "data", sentences(24)), architecture="lstm", layers=2)
    model = load_transformer(made.output, "text-classification", fresh=True, num_labels=3).model.eval()
    ids = torch.tensor([[2, 6, 7, 3]])
    longer = torch.tensor([[2, 6, 7, 3, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0]])
    with torch.inference_mode():
        assert torch.allclose(model(ids).logits, model(longer, mask).logits, atol=1e-6)


def test_a_tokenizer_is_borrowed_from_another_model(tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "data", sentences(24))
    lender = as_input(make(tmp_path / "lender", data, architecture="gru"))
    made = make(tmp_path / "new", {"tokenizer": lender}, architecture="transformer_encoder")
    assert (made.output / "tokenizer.json").read_bytes() == (lender.path / "tokenizer.json").read_bytes()


def test_word_vectors_of_the_data_are_where_the_training_begins(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    data = tiny_data(tmp_path / "data", sentences(24))
    side = data.path / "encoding"
    side.mkdir()
    words = ["[PAD]", "[UNK]", "film", "book", "zebra"]
    vectors = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    save_file({"vectors": vectors}, side / "vectors.safetensors")
    (side / "vocabulary.txt").write_text("\n".join(words) + "\n")
    made = make(tmp_path / "new", data, architecture="lstm")
    assert made.result["word_vectors"] == 2
    loaded = load_transformer(made.output, "feature-extraction")
    table = loaded.model.get_input_embeddings().weight.detach()
    rows = [table[loaded.tokenizer.get_vocab()[WORD + word]] for word in ("film", "book")]
    for row, vector in zip(rows, vectors[2:4], strict=True):
        assert torch.cosine_similarity(row, vector, dim=0) > 0.999
    assert "word_vectors" not in make(tmp_path / "narrow", data, architecture="lstm", width=16).result
    with pytest.raises(InvalidOptionError, match="width=32"):
        make(tmp_path / "wrong", data, architecture="lstm", width=16, vectors=True)
    with pytest.raises(DataError, match="no word vectors"):
        make(tmp_path / "none", tiny_data(tmp_path / "bare", sentences(9)), architecture="lstm", vectors=True)


@pytest.mark.parametrize("alphabet", ["words", "bytes"])
def test_a_tokenizer_trained_on_chinese_writes_it_again(alphabet: str) -> None:
    tokenizer = train_tokenizer(CHINESE * 5, 600, alphabet, 64)
    ids = tokenizer("这家酒店很好")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert [ids[0], ids[-1]] == [tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == "这家酒店很好"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"architecture": "lsmt"}, NotFoundError, "lstm"),
        ({"architecture": "transformer_encoder", "width": 30, "heads": 4}, InvalidOptionError, "30"),
    ],
)
def test_what_cannot_be_made_is_said_before_it_is_tried(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make(tmp_path / "new", tiny_data(tmp_path / "data", sentences(9)), **options)


def test_a_model_without_data_and_without_a_lender_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="tokenizer"):
        make(tmp_path / "new", {}, architecture="gru")
