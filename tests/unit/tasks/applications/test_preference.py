"""Preference tuning follows the formula, starts at the reference, and ends preferring what people chose."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "models"))
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from talking import data_of, model_of, preference_rows, train
from tiny import Bench
from tiny_chat import tiny_llama, tiny_tokenizer

from llm_os.errors import EmptyDataError
from llm_os.tasks.applications.preference import Pairs, pairs_of
from llm_os.tasks.training.scoring import Scorer


def nudged(model: Any) -> Any:
    """The same model after some unlike step."""
    import torch

    other = copy.deepcopy(model)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return other


def by_hand(model: Any, ids: list[int], mask: list[bool]) -> float:
    """log p(answer | prompt), from the plain logits."""
    import torch

    with torch.no_grad():
        shares = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].double(), -1)
    return sum(float(shares[at - 1, ids[at]]) for at in range(1, len(ids)) if mask[at])


@pytest.mark.parametrize("doubt", [0.0, 0.1])
def test_the_loss_is_that_of_the_formula_and_begins_at_log_two(tmp_path: Path, doubt: float) -> None:
    import torch

    tokenizer = tiny_tokenizer()
    start = tiny_llama(tokenizer)
    trained = nudged(start)
    pairs = pairs_of(Bench(tmp_path, {}).context, preference_rows(4), tokenizer, 64)
    examples = Pairs(pairs, tokenizer.pad_token_id, Scorer(start), beta=0.3, doubt=doubt)
    with torch.inference_mode():
        examples.begin(start, 2)
    batch = examples.collate(range(4))
    assert float(examples.loss(start, batch).detach()) == pytest.approx(math.log(2), abs=1e-5)
    expected = []
    for pair in pairs:
        ratios = [by_hand(trained, d.ids, d.mask) - by_hand(start, d.ids, d.mask) for d in (pair.chosen, pair.rejected)]
        gain = 0.3 * (ratios[0] - ratios[1])
        expected.append((1 - doubt) * math.log1p(math.exp(-gain)) + doubt * math.log1p(math.exp(gain)))
    moved = Pairs(pairs, tokenizer.pad_token_id, Scorer(trained), beta=0.3, doubt=doubt)
    assert float(moved.loss(trained, batch).detach()) == pytest.approx(sum(expected) / 4, abs=1e-4)
    with torch.inference_mode():
        figures = moved.measure(trained, batch)
    assert figures["loss"][0] == pytest.approx(sum(expected), abs=4e-4)


def test_only_the_answer_is_judged_and_what_is_too_long_is_counted(tmp_path: Path) -> None:
    tokenizer, bench = tiny_tokenizer(), Bench(tmp_path, {})
    rows = preference_rows(2)
    rows[1]["prompt"] = [{"role": "user", "content": "0" * 100}]
    (pair,) = pairs_of(bench.context, rows, tokenizer, 64)
    for document, answer in ((pair.chosen, "no"), (pair.rejected, "yes")):
        said = [token for token, counts in zip(document.ids, document.mask, strict=True) if counts]
        assert tokenizer.decode(said) == f"{answer}<|im_end|>"
    assert "1 of 2 pairs are longer than 64 tokens" in bench.messages[0]
    with pytest.raises(EmptyDataError, match="No pair fits"):
        pairs_of(bench.context, rows[1:], tokenizer, 64)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_answers_become_those_that_were_chosen(tmp_path: Path, method: str) -> None:
    from llm_os.models.load import load_chat

    rate = {"full": 3e-3, "lora": 1e-2}[method]
    data = data_of(tmp_path, "preference", preference_rows())
    options = {"epochs": 12, "learning_rate": rate, "validation": 0.25, "early_stopping": 12}
    bench = train(tmp_path / "run", model_of(tmp_path), data, method, **options)
    history = bench.result["history"]
    assert history[0]["loss"] > history[-1]["loss"]
    assert history[-1]["validation_accuracy"] == 1.0
    assert history[-1]["validation_margin"] > history[0]["validation_margin"]
    before, after = load_chat(model_of(tmp_path).path), load_chat(bench.output)
    for row in preference_rows(4):
        pair = pairs_of(bench.context, [row], after.tokenizer, 64)[0]
        lead = [
            by_hand(chat.model, pair.chosen.ids, pair.chosen.mask)
            - by_hand(chat.model, pair.rejected.ids, pair.rejected.mask)
            for chat in (before, after)
        ]
        assert lead[1] > lead[0] + 1


def test_beta_changes_what_is_learnt(tmp_path: Path) -> None:
    data = data_of(tmp_path, "preference", preference_rows(16))
    losses = [
        train(tmp_path / str(beta), model_of(tmp_path), data, "full", epochs=2, beta=beta).losses[-1]
        for beta in (0.05, 2.0)
    ]
    assert losses[0] != losses[1]
