"""Tuned weights written as GGUF are read back as they were, to 8 bits; nothing is written that would not fit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_chat import tiny_tokenizer

from llm_os.errors import UnsupportedModelError
from llm_os.models.formats import inspect
from llm_os.models.gguf_writing import write_gguf
from llm_os.models.load import quiet

HEAD = {"qwen3": 128}
"""Width of a head; transformers reads none from GGUF and takes Qwen3's usual one."""
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


def tuned(folder: Path, kind: str, **config: Any) -> tuple[Path, Any]:
    """A small model of this kind in a transformers folder."""
    import torch
    import transformers

    tokenizer = tiny_tokenizer()
    names = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma": "Gemma"}
    config_of, model_of = (getattr(transformers, f"{names[kind]}{part}") for part in ("Config", "ForCausalLM"))
    torch.manual_seed(1)
    sizes = {**SIZES, "intermediate_size": 96, "max_position_embeddings": 256, "vocab_size": len(tokenizer)}
    sizes |= {"head_dim": HEAD.get(kind, 16), "tie_word_embeddings": True, "initializer_range": 0.2}
    model = model_of(config_of(**{**sizes, **config})).eval()
    for name, values in model.named_parameters():
        if "bias" in name or "norm" in name:  # they begin as zeros and ones, which would hide a mistake
            torch.nn.init.normal_(values, 1.0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model


def parent(path: Path, kind: str, model: Any, *, words: list[str] | None = None, drop: str = "") -> Path:
    """What the line of `model` began with: a file of its kind, whose weights are all zeros."""
    tokenizer, config = tiny_tokenizer(), model.config
    writer = gguf.GGUFWriter(str(path), kind)
    writer.add_context_length(256)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(HEAD.get(kind, 16))
    writer.add_value_length(HEAD.get(kind, 16))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words or [word for word, _ in vocabulary])
    writer.add_token_types([3 if word.startswith("<|") else 1 for word, _ in vocabulary])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template("the parent's")
    (arch,) = (one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, values in model.state_dict().items():
        place = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if name != "lm_head.weight" and place != drop:
            writer.add_tensor(place, np.zeros(tuple(values.shape), np.float32))
    writer.add_tensor("rope_freqs.weight", np.arange(8, dtype=np.float32) + 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read_back(file: Path) -> dict[str, Any]:
    """The weights as transformers reads them, which has turned llama.cpp's order back."""
    from transformers import AutoModelForCausalLM

    quiet()
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    return {name: values.detach().float().numpy() for name, values in model.state_dict().items()}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_weights_come_back_as_they_were(tmp_path: Path, kind: str, tied: bool) -> None:
    folder, model = tuned(tmp_path / "tuned", kind, tie_word_embeddings=tied)
    base = parent(tmp_path / "base.gguf", kind, model)
    facts = write_gguf(folder, base, tmp_path / "out-Q8_0.gguf")
    assert (facts["format"], facts["precision"], facts["architecture"]) == ("gguf", "int8", kind)
    found = read_back(tmp_path / "out-Q8_0.gguf")
    for name, values in model.state_dict().items():
        given = values.float().numpy()
        scale = np.abs(given).max() / 127 if given.ndim == 2 else 1e-6
        assert np.abs(found[name] - given).max() <= 0.6 * scale, name
    assert ("output.weight" in {one.name for one in gguf.GGUFReader(str(tmp_path / "out-Q8_0.gguf")).tensors}) != tied


def test_what_is_no_weight_is_the_parents_but_the_template(tmp_path: Path) -> None:
    folder, model = tuned(tmp_path / "tuned", "llama")
    base = parent(tmp_path / "base.gguf", "llama", model)
    write_gguf(folder, base, tmp_path / "out-Q8_0.gguf")
    before, after = gguf.GGUFReader(str(base)), gguf.GGUFReader(str(tmp_path / "out-Q8_0.gguf"))
    told = {name: field.contents() for name, field in after.fields.items() if not name.startswith("GGUF.")}
    kept = {name: field.contents() for name, field in before.fields.items() if not name.startswith("GGUF.")}
    assert told["tokenizer.chat_template"] == tiny_tokenizer().chat_template
    assert {**told, "tokenizer.chat_template": ""} == {**kept, "tokenizer.chat_template": ""}
    (ropes,) = (one.data for one in after.tensors if one.name == "rope_freqs.weight")
    assert ropes.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    older = {**settings, "chat_template": [{"name": "default", "template": "older"}, {"name": "tools", "template": ""}]}
    (folder / "tokenizer_config.json").write_text(json.dumps(older))
    write_gguf(folder, base, tmp_path / "older-Q8_0.gguf")
    older_ = gguf.GGUFReader(str(tmp_path / "older-Q8_0.gguf"))
    assert older_.fields["tokenizer.chat_template"].contents() == "older"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    write_gguf(folder, base, tmp_path / "again-Q8_0.gguf")
    assert inspect(tmp_path / "again-Q8_0.gguf")["chat_template"]
    again = gguf.GGUFReader(str(tmp_path / "again-Q8_0.gguf"))
    assert again.fields["tokenizer.chat_template"].contents() == "the parent's"


def test_a_parent_that_does_not_fit_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    folder, model = tuned(tmp_path / "tuned", "llama")
    _, wide = tuned(tmp_path / "wide", "llama", intermediate_size=128)
    _, deep = tuned(tmp_path / "deep", "llama", num_hidden_layers=3)
    words = [f"word {number}" for number in range(model.config.vocab_size)]
    cases = {
        "vocabulary": parent(tmp_path / "words.gguf", "llama", model, words=words),
        "128\\)? there": parent(tmp_path / "wide.gguf", "llama", wide),
        "no weights for its 'blk.2": parent(tmp_path / "deep.gguf", "llama", deep),
        "has nothing for 'model.layers.1.mlp.down_proj.weight'": parent(
            tmp_path / "less.gguf", "llama", model, drop="blk.1.ffn_down.weight"
        ),
        "architecture gemma": parent(tmp_path / "gemma.gguf", "gemma", tuned(tmp_path / "g", "gemma")[1]),
    }
    for said, base in cases.items():
        with pytest.raises(UnsupportedModelError, match=said):
            write_gguf(folder, base, tmp_path / "out.gguf")
        assert not (tmp_path / "out.gguf").exists()
