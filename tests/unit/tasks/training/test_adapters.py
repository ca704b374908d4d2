"""Adapters learn while their base stays as it is, merge into it, resume exactly, and need little memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from talking import QUICK, chat_rows, data_of, made, model_of, preference_rows, train
from tiny import Bench

from llm_os import plugins
from llm_os.errors import InvalidOptionError, ModelError, UnsupportedModelError
from llm_os.models.formats import inspect
from llm_os.spec.resources import Capacity
from llm_os.tasks.applications import application
from llm_os.tasks.training.adapters import adapted_model

METHODS = ("lora", "dora", "qlora")


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model.eval()(input_ids=torch.tensor([[1, 30, 40, 50, 2]])).logits


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_saved_alone_merges_to_the_same_answers(tmp_path: Path, method: str) -> None:
    from peft import PeftModel

    from llm_os.models.load import load_language_model

    model, data = model_of(tmp_path), data_of(tmp_path, "chat", chat_rows())
    bench = train(tmp_path / "run", model, data, method, epochs=10, merge=False)
    losses = [entry["loss"] for entry in bench.result["history"]]
    assert losses[-1] < 0.7 * losses[0]
    facts = inspect(bench.output)
    assert (facts["format"], facts["task"]) == ("adapter", "text-generation")
    assert not (bench.output / "model.safetensors").exists()
    assert str(tmp_path) not in (bench.output / "adapter_config.json").read_text()

    task = plugins.load("task", "adapters/merge")
    inputs = {"model": made(bench), "base": model}
    assert inputs["model"].facts.meta["base"] == model.facts.digest
    merge = Bench(tmp_path / "merge", inputs)
    task.run(merge.context, task.Options())
    merged, _ = load_language_model(merge.output)
    base, _ = load_language_model(model.path)
    before = logits(base).clone()
    adapted = logits(PeftModel.from_pretrained(base, str(bench.output)))
    assert float((logits(merged) - adapted).abs().max()) < 1e-4
    assert float((adapted - before).abs().max()) > 0.1
    assert made(merge).facts.meta["adapter"]["method"] == method


@pytest.mark.parametrize("method", METHODS)
def test_the_base_stays_bit_for_bit_as_it_was(tmp_path: Path, method: str) -> None:
    from llm_os.models.quantize import quantize

    inputs = {"model": model_of(tmp_path), "data": data_of(tmp_path, "chat", chat_rows(16))}
    bench = Bench(tmp_path / "run", inputs)
    options = plugins.load("task", f"training/{method}").Options.model_validate({**QUICK, "epochs": 2})
    found, prepared = application.prepare(bench.context, options)
    if method == "qlora":
        before, after = quantize(prepared.model, 4)
        assert after < 0.8 * before
    adapted = prepared.model = adapted_model(prepared.model, options, found.adapter, use_dora=method == "dora")
    frozen = {name: p.detach().clone() for name, p in adapted.named_parameters() if not p.requires_grad}
    trained = {name: p.detach().clone() for name, p in adapted.named_parameters() if p.requires_grad}
    application.train(bench.context, options, prepared, rate=1e-2, method=method)
    now = dict(adapted.named_parameters())
    assert len(frozen) > 10
    assert all(now[name].equal(kept) for name, kept in frozen.items())
    assert all("lora" in name for name in trained)
    assert not any(now[name].equal(kept) for name, kept in trained.items() if "lora_B" in name)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_small_base_computes_nearly_what_the_float_one_does(tmp_path: Path, bits: Any) -> None:
    from llm_os.models.load import load_language_model
    from llm_os.models.quantize import quantize

    model, _ = load_language_model(model_of(tmp_path).path)
    exact = logits(model).clone()
    quantize(model, bits)
    off = float((logits(model) - exact).norm() / exact.norm())
    assert 0 < off < {4: 0.6, 8: 0.05}[bits]


class KilledError(Exception):
    """Stands for kill -9: nothing after it runs."""


@pytest.mark.parametrize(
    ("method", "kind", "step"),
    [("full", "chat", 3), ("lora", "chat", 5), ("dora", "chat", 4), ("qlora", "chat", 5), ("lora", "preference", 5)],
)
def test_a_run_killed_goes_on_with_the_same_curve(tmp_path: Path, method: str, kind: str, step: int) -> None:
    rows = chat_rows() if kind == "chat" else preference_rows()
    inputs = {"model": model_of(tmp_path), "data": data_of(tmp_path, kind, rows)}
    task = plugins.load("task", f"training/{method}")
    more = {} if method == "full" else {"dropout": 0.1}  # so that there is a random state to be kept
    options = task.Options.model_validate({**QUICK, "epochs": 2, "checkpoint_every": 0, "validation": 0.2, **more})
    whole = Bench(tmp_path / "whole", inputs)
    task.run(whole.context, options)
    killed = Bench(tmp_path / "killed", inputs)
    keep = killed.context.checkpoint

    def checkpoint(at: int, folder: Path) -> None:
        keep(at, folder)
        if at == step:
            raise KilledError

    killed.context.checkpoint = checkpoint  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        task.run(killed.context, options)
    again = Bench(tmp_path / "killed", inputs)
    task.run(again.context, options)
    assert any(f"step {step}" in message for message in again.messages)
    assert again.losses == whole.losses
    assert len(whole.losses) > step
    for path in whole.output.rglob("*.safetensors"):
        assert path.read_bytes() == (again.output / path.relative_to(whole.output)).read_bytes()


def test_gradients_and_optimizer_of_an_adapter_take_at_most_a_quarter(tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from llm_os.tasks.training.optimizers import make_optimizer

    def measured(method: str) -> int:
        config = LlamaConfig(
            vocab_size=512,
            hidden_size=192,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=2,
            intermediate_size=512,
        )
        options = plugins.load("task", f"training/{method}").Options()
        model: Any = LlamaForCausalLM(config)
        if method == "lora":
            model = adapted_model(model, options, "CAUSAL_LM")
        optimizer = make_optimizer(model, options, 1e-3)
        ids = torch.arange(32)[None]
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        state = [v for one in optimizer.state.values() for v in one.values() if torch.is_tensor(v)]
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        return sum(tensor.numel() * tensor.element_size() for tensor in [*state, *grads])

    assert measured("lora") <= measured("full") / 4


def test_what_cannot_be_merged_is_refused_with_the_reason(tmp_path: Path) -> None:
    model, data = model_of(tmp_path), data_of(tmp_path, "chat", chat_rows(16))
    task = plugins.load("task", "adapters/merge")
    granted = Capacity(cpus=2, memory=2**33)
    with pytest.raises(UnsupportedModelError, match="no adapter"):
        task.resources(task.Options(), {"model": model.facts, "base": model.facts}, granted)
    adapter = made(train(tmp_path / "run", model, data, "lora", epochs=1, merge=False))
    gguf = model.facts.model_copy(update={"meta": {**model.facts.meta, "format": "gguf"}})
    with pytest.raises(UnsupportedModelError, match="into gguf"):
        task.resources(task.Options(), {"model": adapter.facts, "base": gguf}, granted)
    from tiny_chat import tiny_llama, tiny_tokenizer

    other = tmp_path / "other"
    tokenizer = tiny_tokenizer()
    tiny_llama(tokenizer, hidden_size=64).save_pretrained(other)
    tokenizer.save_pretrained(other)
    from tiny import given

    bench = Bench(tmp_path / "merge", {"model": adapter, "base": given(other, "model", inspect(other), "8")})
    with pytest.raises(ModelError, match="does not fit this base"):
        task.run(bench.context, task.Options())


def test_an_adapter_that_would_lose_what_its_data_teaches_is_refused(tmp_path: Path) -> None:
    model, data = model_of(tmp_path).facts, data_of(tmp_path, "tokens", [{"tokens": ["a"], "tags": ["b"]}]).facts
    data = data.model_copy(update={"meta": {**data.meta, "labels": ["b", "c"]}})
    task = plugins.load("task", "training/qlora")
    with pytest.raises(InvalidOptionError, match="tokens data"):
        task.resources(task.Options(), {"model": model, "data": data}, Capacity(cpus=2, memory=2**33))


def test_qlora_saves_its_adapter_alone_and_says_so() -> None:
    from llm_os.kernel.submission import validated

    task = plugins.load("task", "training/qlora")
    with pytest.raises(InvalidOptionError, match="merge"):
        validated(task.Options, {"merge": True}, "training/qlora")
