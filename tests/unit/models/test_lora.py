"""Adapters beside each other in one batch say what each says alone, merged, and the base says what it always said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_chat import tiny_gpt2, tiny_llama, tiny_tokenizer
from tiny_lora import tiny_adapter

from llm_os.errors import BrokenWeightsError, ModelError, UnsupportedModelError
from llm_os.models.formats import inspect
from llm_os.models.generate import Generation, Sampling, generate
from llm_os.models.lora import Adapter, Adapters
from llm_os.testing.adapters import write_adapter

PROMPTS = ([5, 9, 33, 7], [120, 8, 44, 71, 90, 13], [77] * 11, [3, 4, 5])


def together(model: Any, wanted: list[Adapter | None], most: int = 12) -> list[list[int]]:
    """Answers to PROMPTS in one batch, each with its adapter."""
    work = Generation(model, ends=[], budget=4096, most=8)
    requests = [
        work.add_request(number, prompt, Sampling(most, adapter=adapter))
        for number, (prompt, adapter) in enumerate(zip(PROMPTS, wanted, strict=True))
    ]
    while work.has_non_finished_requests():
        work.step()
    return [request.tokens[request.size :] for request in requests]


def merged(make: Any, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(make(tiny_tokenizer()), str(folder)).merge_and_unload()


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_a_mixed_batch_answers_as_each_adapter_does_merged(make: Any, tmp_path: Path) -> None:
    one, two = (tiny_adapter(make, tmp_path / name, seed) for name, seed in (("one", 1), ("two", 2)))
    model = make(tiny_tokenizer())
    read = Adapters(model).read
    a, b = read(one, "one@1"), read(two, "two@1")
    said = together(model, [a, b, None, a])
    expected = [merged(make, one), merged(make, two), make(tiny_tokenizer()), merged(make, one)]
    alone = [generate(each, [prompt], Sampling(12), ends=[])[0] for each, prompt in zip(expected, PROMPTS, strict=True)]
    assert said == alone
    base = generate(make(tiny_tokenizer()), PROMPTS, Sampling(12), ends=[])
    assert said[0] != base[0]
    assert said[1] != base[1]


def test_a_row_without_an_adapter_is_that_of_the_base_to_the_bit(tmp_path: Path) -> None:
    import torch

    model = tiny_llama(tiny_tokenizer())
    ids = torch.tensor([[5, 9, 33], [5, 9, 33], [7, 8, 9]])
    with torch.inference_mode():
        before = model(input_ids=ids, use_cache=False).logits
        adapters = Adapters(model)
        first = adapters.read(tiny_adapter(tiny_llama, tmp_path / "one", 1), "one@1")
        second = adapters.read(tiny_adapter(tiny_llama, tmp_path / "two", 2, rank=3, targets=["q_proj"]), "two@1")
        with adapters.rows([first, None, second]):
            mixed = model(input_ids=ids, use_cache=False).logits
        after = model(input_ids=ids, use_cache=False).logits
    assert torch.equal(mixed[1], before[1])
    assert not torch.allclose(mixed[0], before[0])
    assert not torch.allclose(mixed[2], before[2])
    assert torch.equal(after, before), "outside nothing has changed"


def test_an_answer_ends_with_the_adapter_that_it_began_with(tmp_path: Path) -> None:
    model = tiny_llama(tiny_tokenizer())
    free = together(model, [None, None, None, None])
    work = Generation(model, ends=[], budget=4096, most=8)
    adapter = work.adapters.read(tiny_adapter(tiny_llama, tmp_path / "one", 1), "one@1")
    other = work.adapters.read(tiny_adapter(tiny_llama, tmp_path / "two", 2), "two@1")
    request = work.add_request(0, PROMPTS[0], Sampling(12, adapter=adapter))
    beside = work.add_request(1, PROMPTS[1], Sampling(12, adapter=other))
    for _ in range(5):
        work.step()
    work.adapters.forget(adapter)
    while work.has_non_finished_requests():
        work.step()
    assert request.tokens[request.size :] == together(model, [adapter, None, None, None])[0] != free[0]
    assert beside.tokens[beside.size :] == together(model, [None, other, None, None])[1]


def test_what_cannot_stand_beside_others_is_refused_with_the_way_out(tmp_path: Path) -> None:
    model = tiny_llama(tiny_tokenizer())
    read = Adapters(model).read
    dora = tiny_adapter(tiny_llama, tmp_path / "dora", 1, use_dora=True)
    with pytest.raises(UnsupportedModelError, match="cannot stand beside others") as refused:
        read(dora, "dora@1")
    assert "llm-os merge" in refused.value.hint

    def untied(tokenizer: Any) -> Any:
        return tiny_llama(tokenizer, tie_word_embeddings=False)

    embedding = tiny_adapter(untied, tmp_path / "embedding", 1, targets=["embed_tokens"])
    with pytest.raises(UnsupportedModelError, match="embed_tokens"):
        read(embedding, "embedding@1")
    with pytest.raises(ModelError, match="has no linear layer 'transformer"):
        read(tiny_adapter(tiny_gpt2, tmp_path / "other", 1), "other@1")

    def wider(tokenizer: Any) -> Any:
        return tiny_llama(tokenizer, hidden_size=48, intermediate_size=96)

    with pytest.raises(ModelError, match="48, and the base 32 x 32"):
        read(tiny_adapter(wider, tmp_path / "wide", 1, targets=["q_proj"]), "wide@1")


def test_broken_weights_are_refused(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    read = Adapters(tiny_llama(tiny_tokenizer())).read
    folder = tiny_adapter(tiny_llama, tmp_path / "one", 1)
    tensors = load_file(folder / "adapter_model.safetensors")
    name = next(iter(tensors))
    save_file({**tensors, name: torch.full_like(tensors[name], float("nan"))}, folder / "adapter_model.safetensors")
    with pytest.raises(BrokenWeightsError, match="no numbers"):
        read(folder, "one@1")
    save_file({key: value for key, value in tensors.items() if key != name}, folder / "adapter_model.safetensors")
    with pytest.raises(BrokenWeightsError, match="lacks matrices"):
        read(folder, "one@1")
    (folder / "adapter_model.safetensors").write_bytes(b"none")
    with pytest.raises(BrokenWeightsError, match="broken"):
        read(folder, "one@1")


def test_an_adapters_facts_tell_its_kind_its_rank_and_its_base_where_that_is_a_digest(tmp_path: Path) -> None:
    digest = "sha256:" + "a" * 64
    here = inspect(write_adapter(tmp_path / "here", base=digest, rank=3))
    assert (here["format"], here["task"], here["base"]) == ("adapter", "text-generation", digest)
    assert here["adapter"] == {"method": "lora", "rank": 3, "alpha": 6}
    folder = write_adapter(tmp_path / "elsewhere", base="somebody/else")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    elsewhere = inspect(folder)
    assert "base" not in elsewhere, "a name on a hub says nothing of what is here"
    assert elsewhere["adapter"]["method"] == "dora"


def test_the_scale_is_that_of_the_training(tmp_path: Path) -> None:
    import torch

    model = tiny_llama(tiny_tokenizer())
    folder = tiny_adapter(tiny_llama, tmp_path / "one", 1, rank=4, targets=["q_proj"])
    plain = Adapters(model).read(folder, "one@1")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "use_rslora": True}))
    rooted = Adapters(model).read(folder, "one@1")
    for module, (_, up) in plain.pairs.items():
        torch.testing.assert_close(rooted.pairs[module][1], 2 * up)
    assert plain.rank == 4


def configured(folder: Path, **config: Any) -> Path:
    """The adapter with other settings."""
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return folder


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "changed when its training began"),
        ({"init_lora_weights": "olora"}, "changed when its training began"),
        ({"alora_invocation_tokens": [5]}, "aLoRA"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
    ],
)
def test_an_adapter_that_is_no_plain_sum_with_this_base_is_refused(
    tmp_path: Path, said: dict[str, Any], word: str
) -> None:
    folder = tiny_adapter(tiny_llama, tmp_path / "one", 1, targets=["q_proj"])
    with pytest.raises(UnsupportedModelError, match=word):
        Adapters(tiny_llama(tiny_tokenizer())).read(configured(folder, **said), "one@1")


def test_alpha_is_pefts_where_nobody_says_it_and_may_be_nothing(tmp_path: Path) -> None:
    import torch

    folder = tiny_adapter(tiny_llama, tmp_path / "one", 1, rank=4, targets=["q_proj"])  # alpha 8
    read = Adapters(tiny_llama(tiny_tokenizer())).read
    said = read(folder, "one@1")
    config = json.loads((folder / "adapter_config.json").read_text())
    del config["lora_alpha"]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    for module, (_, up) in read(folder, "one@1").pairs.items():
        torch.testing.assert_close(up, said.pairs[module][1])
    assert not any(up.any() for _, up in read(configured(folder, lora_alpha=0), "one@1").pairs.values())
    with pytest.raises(BrokenWeightsError, match="lora_alpha"):
        read(configured(folder, lora_alpha="much"), "one@1")
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(BrokenWeightsError, match="no object"):
        read(folder, "one@1")


def saved(folder: Path, module: str, rows: int, columns: int, rank: int = 2) -> Path:
    """An adapter of one layer, of this shape."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": rank}))
    name = f"base_model.model.{module}"
    tensors = {f"{name}.lora_A.weight": torch.ones(rank, columns), f"{name}.lora_B.weight": torch.ones(rows, rank)}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_what_would_break_a_step_is_refused_when_it_is_read(tmp_path: Path) -> None:
    model = tiny_llama(tiny_tokenizer())
    read = Adapters(model).read
    rows, columns = model.model.layers[0].mlp.down_proj.weight.shape
    assert rows != columns
    turned = saved(tmp_path / "turned", "model.layers.0.mlp.down_proj", columns, rows)
    with pytest.raises(ModelError, match=f"{columns} x {rows}, and the base {rows} x {columns}"):
        read(turned, "turned@1")
    rows, columns = model.model.embed_tokens.weight.shape
    with pytest.raises(ModelError, match=r"no linear layer 'model\.embed_tokens'"):
        read(saved(tmp_path / "table", "model.embed_tokens", rows, columns), "table@1")
    with pytest.raises(BrokenWeightsError, match="lacks matrices"):
        read(saved(tmp_path / "none", "model.layers.0.self_attn.q_proj", 32, 32, rank=0), "none@1")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_adapter_whose_numbers_overflow_ends_its_own_answer_alone(tmp_path: Path, temperature: float) -> None:
    import torch

    from llm_os.models.generate import Finish

    model = tiny_llama(tiny_tokenizer())
    work = Generation(model, ends=[], budget=4096, most=8)
    huge = work.adapters.read(tiny_adapter(tiny_llama, tmp_path / "huge", 1), "huge@1")
    for _, up in huge.pairs.values():
        up.copy_(torch.full_like(up, 1e38))
    broken = work.add_request(0, PROMPTS[0], Sampling(6, temperature, adapter=huge))
    plain = work.add_request(1, PROMPTS[1], Sampling(6))
    while work.has_non_finished_requests():
        work.step()
    assert broken.finish is Finish.BROKEN
    assert not broken.fresh
    assert plain.tokens[plain.size :] == generate(model, [PROMPTS[1]], Sampling(6), ends=[])[0]
