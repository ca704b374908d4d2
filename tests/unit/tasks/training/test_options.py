"""Each option of a training has the effect that it says: seen in losses, weights and gradients."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from points import Net, loop, points, train

from llm_os.errors import InvalidOptionError
from llm_os.kernel.submission import validated
from llm_os.tasks.training.averaging import Average
from llm_os.tasks.training.mixup import Mixup
from llm_os.tasks.training.optimizers import HEAD, KINDS, make_optimizer, rate_of
from llm_os.tasks.training.options import TrainingOptions
from llm_os.tasks.training.seeds import seed_of


@pytest.mark.parametrize("optimizer", sorted(KINDS))
def test_every_optimizer_learns_and_its_curve_is_its_own(tmp_path: Path, optimizer: str) -> None:
    rate = 0.01 if optimizer == "sgd" else rate_of(TrainingOptions.model_validate({"optimizer": optimizer}), 1e-3)
    outcome, _ = train(tmp_path / "a", optimizer=optimizer, learning_rate=rate, epochs=8, schedule="constant")
    other = "adamw" if optimizer != "adamw" else "adam"
    usual, _ = train(tmp_path / "b", optimizer=other, learning_rate=rate, epochs=1, weight_decay=0.1)
    assert sum(outcome.losses[-8:]) < 0.8 * sum(outcome.losses[:8])
    assert outcome.losses[:8] != usual.losses


@pytest.mark.parametrize(
    ("option", "wrong", "meant"),
    [("optimizer", "adamm", "adam"), ("schedule", "cosin", "cosine"), ("precision", "bf61", "bf16")],
)
def test_an_unknown_name_is_answered_with_the_one_that_was_meant(option: str, wrong: str, meant: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        validated(TrainingOptions, {option: wrong}, "training/full")
    assert f"Did you mean '{meant}'?" in caught.value.hint


def test_a_batch_worked_through_in_parts_gives_the_same_steps(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole")
    made, _ = loop(tmp_path / "parts", Net(), accumulation=4)
    in_parts = made.run()
    assert in_parts.losses == pytest.approx(whole.losses, rel=1e-4)
    examples: Any = made._train
    assert max(examples.seen) == 2
    assert len(examples.seen) == 4 * len(whole.losses)


def test_the_average_of_the_weights_is_what_is_judged_and_saved(tmp_path: Path) -> None:
    plain, last = train(tmp_path / "plain", valid=points(seed=2))
    outcome, averaged = train(tmp_path / "ema", valid=points(seed=2), ema=0.9)
    assert outcome.losses == plain.losses  # the average does not steer
    assert not torch.equal(last.classifier.weight, averaged.classifier.weight)
    assert [e["validation_loss"] for e in outcome.history] != [e["validation_loss"] for e in plain.history]
    made, _ = loop(tmp_path / "again", averaged, valid=points(seed=2), ema=0.9)
    assert made.judge(points(seed=2))["validation_loss"] == outcome.history[outcome.best_epoch - 1]["validation_loss"]


def test_the_average_follows_its_formula() -> None:
    net = Net()
    average = Average(net, 0.5)
    before = net.classifier.bias.detach().clone()
    with torch.no_grad():
        net.classifier.bias += 1
    average.update(1)
    assert torch.allclose(average.weights["classifier.bias"], before + (1 - 2 / 11))
    with torch.no_grad():
        net.classifier.bias += 1
    average.update(100)
    assert torch.allclose(average.weights["classifier.bias"], (before + (1 - 2 / 11)) / 2 + (before + 2) / 2)


@pytest.mark.parametrize("what", ["embeddings,0-1", 2])
def test_frozen_weights_stay_bit_for_bit(tmp_path: Path, what: str | int) -> None:
    fresh, (_, trained) = Net(), train(tmp_path / "run", freeze=what)
    for name, parameter in trained.named_parameters():
        frozen = name.startswith(("embeddings", "layers.0", "layers.1"))
        assert torch.equal(parameter, fresh.get_parameter(name)) == frozen, name


@pytest.mark.parametrize(
    ("what", "said"),
    [("embedings", "Did you mean 'embeddings'"), ("0-7", "has 3, from 0 to 2"), (4, "3 layers")],
)
def test_parts_that_the_model_does_not_have_are_refused(tmp_path: Path, what: str | int, said: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        train(tmp_path / "run", freeze=what)
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_freezing_everything_is_refused(tmp_path: Path) -> None:
    net = Net()
    net.classifier.requires_grad_(False)
    with pytest.raises(InvalidOptionError, match="nothing to learn"):
        train(tmp_path / "run", net, freeze=3)


def test_lower_layers_learn_slower_and_the_head_faster() -> None:
    net = Net()
    optimizer = make_optimizer(net, TrainingOptions(layer_decay=0.5), 1.0, heads=("classifier",))
    scales = {id(p): group["scale"] for group in optimizer.param_groups for p in group["params"]}
    named = {name: scales[id(p)] for name, p in net.named_parameters()}
    assert named["embeddings.weight"] == 0.125
    assert [named[f"layers.{n}.bias"] for n in range(3)] == [0.25, 0.5, 1.0]
    assert named["classifier.weight"] == HEAD


def test_rates_of_layers_reach_the_steps(tmp_path: Path) -> None:
    fresh = Net()
    moved = {}
    for decay in (1.0, 0.1):
        _, net = train(tmp_path / str(decay), epochs=1, layer_decay=decay, warmup=0.0)
        moved[decay] = (net.embeddings.weight - fresh.embeddings.weight).abs().mean().item()
    assert moved[0.1] < 0.1 * moved[1.0]


def test_each_worker_draws_its_own_numbers_again_and_again(tmp_path: Path) -> None:
    runs = [train(tmp_path / str(n), Net(dropout=0.3), worker=w)[0].losses for n, w in enumerate((0, 1, 1))]
    assert runs[0] != runs[1] == runs[2]
    assert len({seed_of(seed, worker) for seed in range(20) for worker in range(20)}) == 400


def test_mixup_blends_what_is_read_and_what_is_said() -> None:
    net, examples = Net(), points()
    mixup = Mixup(net, 0.5, seed=3)
    batch = examples.collate(range(6))
    share, order = mixup.draw(6, step=1, part=0)
    assert sorted(order) == list(range(6))
    assert 0 < share < 1
    assert mixup.draw(6, 1, 0) == (share, order) != mixup.draw(6, 2, 0)

    def forward(input_ids: Any, attention_mask: Any) -> Any:
        return net(input_ids)

    class Masked(type(examples)):  # type: ignore[misc]
        def loss(self, forward: Any, batch: Any) -> Any:
            mask = torch.ones(len(batch["input_ids"]), 1, dtype=torch.long)
            said = forward(input_ids=batch["input_ids"], attention_mask=mask)
            return torch.nn.functional.mse_loss(said, batch["targets"])

    masked = Masked(examples.x)
    found = mixup.loss(masked, forward, batch, step=1, part=0)
    x, targets = batch["input_ids"], batch["targets"]
    embedded = net.embeddings(share * x + (1 - share) * x[order])  # linear: blending before or after is the same
    hidden = embedded.tanh()
    for layer in net.layers:
        hidden = layer(hidden).tanh()
    said = net.classifier(hidden).squeeze(-1)
    by_hand = share * (said - targets).square().mean() + (1 - share) * (said - targets[order]).square().mean()
    assert found.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert not net.embeddings._forward_hooks
