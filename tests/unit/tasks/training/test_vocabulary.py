"""An embedding of the tokens that occur learns what the whole one learns, and is put back into it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from tiny import Bench, sentences, tiny_data, tiny_model

from llm_os import plugins
from llm_os.models.load import load_transformer
from llm_os.tasks.applications.text_classification import Labelled
from llm_os.tasks.training.vocabulary import compact


@pytest.fixture
def model(tmp_path: Path) -> Any:
    return load_transformer(tiny_model(tmp_path / "model").path, "text-classification", fresh=True).model


def test_reads_and_learns_as_the_whole_embedding_does(model: Any) -> None:
    ids = torch.tensor([[2, 5, 7, 3], [2, 9, 3, 0]])
    model.eval()
    before = model.bert.embeddings.word_embeddings.weight.detach().clone()

    def step() -> Any:
        logits = model(input_ids=ids).logits
        logits.sum().backward()
        gradient = model.get_input_embeddings().weight.grad.clone()
        model.zero_grad()
        return logits.detach(), gradient

    whole, whole_gradient = step()
    rows = compact(model, {2, 3, 5, 7, 9})
    assert rows is not None
    small, small_gradient = step()
    assert torch.equal(small, whole)
    assert torch.equal(small_gradient, whole_gradient[[0, 2, 3, 5, 7, 9]])
    with torch.no_grad():
        model.get_input_embeddings().weight += 1
    rows.expand()
    after = model.get_input_embeddings().weight
    assert after.shape == before.shape
    assert torch.equal(after[[0, 2, 3, 5, 7, 9]], before[[0, 2, 3, 5, 7, 9]] + 1)
    assert torch.equal(after[[1, 4, 6, 8]], before[[1, 4, 6, 8]])


def test_stays_whole_where_nothing_is_gained_or_something_would_change(model: Any) -> None:
    embedding = model.get_input_embeddings()
    assert compact(model, None) is None
    assert compact(model, range(19)) is None
    model.also = embedding
    assert compact(model, {2, 3}) is None
    del model.also
    assert compact(model, {2, 3}) is not None
    model.set_input_embeddings(embedding)
    embedding.weight.requires_grad_(False)
    assert compact(model, {2, 3}) is None
    assert model.get_input_embeddings() is embedding


def test_every_token_of_a_text_and_the_padding_can_reach_it() -> None:
    assert Labelled([[2, 5], [7]], [0.0, 1.0], 0, 2, 0.0).vocabulary() == {0, 2, 5, 7}


def test_a_trained_model_is_saved_with_its_whole_vocabulary(tmp_path: Path) -> None:
    rows = [row for row in sentences(48) if "film" in row["text"]]
    inputs = {"model": tiny_model(tmp_path / "model", vocab_size=64), "data": tiny_data(tmp_path / "data", rows)}
    task = plugins.load("task", "training/full")
    bench = Bench(tmp_path / "run", inputs)
    quick = {"epochs": 3, "batch_size": 8, "learning_rate": 5e-3, "precision": "fp32", "validation": 0.2}
    task.run(bench.context, task.Options(**quick))
    before, after = (
        load_transformer(path, "text-classification", fresh=True).model.get_input_embeddings().weight
        for path in (tmp_path / "model", bench.output)
    )
    moved = (before != after).any(-1).nonzero().flatten().tolist()
    words = (tmp_path / "model" / "vocab.txt").read_text().split("\n")
    assert before.shape == after.shape
    assert "film" in {words[i] for i in moved}
    assert "book" not in {words[i] for i in moved}
