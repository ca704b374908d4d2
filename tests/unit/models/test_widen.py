"""Weights with a minimum in each block become 8 bits, which stand for the same; all else of the file stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_os.models.widen import BELOW_8, in_8_bits, widen

Q4_0, Q4_1, Q5_0, Q8_0 = (getattr(gguf.GGMLQuantizationType, name) for name in ("Q4_0", "Q4_1", "Q5_0", "Q8_0"))


def write(path: Path, tensors: dict[str, tuple[Any, Any]]) -> Path:
    """A GGUF file with some fields and these tensors; each is (values, type or None for fp32)."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(512)
    writer.add_token_list(["a", "<s>", "中"])
    writer.add_chat_template("{{ messages }}")
    for name, (values, kind) in tensors.items():
        data = values if kind is None else gguf.quants.quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def values(seed: int = 0, rows: int = 6, columns: int = 96) -> Any:
    return np.random.default_rng(seed).normal(0.3, 1.0, (rows, columns)).astype(np.float32)


def tensors_of(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(str(path)).tensors}


def decoded(tensor: Any) -> Any:
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


def test_only_tensors_with_a_minimum_change_and_they_stand_for_the_same(tmp_path: Path) -> None:
    given_tensors = {"a.weight": (values(1), Q4_1), "b.weight": (values(2), Q4_0), "norm": (values(3)[0], None)}
    source = write(tmp_path / "source.gguf", given_tensors)
    assert widen(source, tmp_path / "wide.gguf") == 1
    before, after = tensors_of(source), tensors_of(tmp_path / "wide.gguf")
    assert list(before) == list(after)
    assert after["a.weight"].tensor_type == Q8_0
    assert list(after["a.weight"].shape) == list(before["a.weight"].shape)
    for name in ("b.weight", "norm"):
        assert after[name].tensor_type == before[name].tensor_type
        assert np.array_equal(after[name].data, before[name].data)
    old, new = decoded(before["a.weight"]), decoded(after["a.weight"])
    step = np.abs(old.reshape(-1, 32)).max(1) / 127  # half of it by rounding, and what the 16 bits of the scale leave
    assert (np.abs(old - new).reshape(-1, 32).max(1) <= 0.6 * step).all()


def test_a_type_that_the_engine_cannot_read_becomes_one_that_it_can_to_the_last_bit(tmp_path: Path) -> None:
    """Qwen2.5's small models: the file is named Q4_K_M, and most of its weights are Q5_0."""
    source = write(tmp_path / "source.gguf", {"a.weight": (values(4, rows=7), Q5_0), "b.weight": (values(5), Q4_0)})
    assert widen(source, tmp_path / "wide.gguf") == 1
    before, after = tensors_of(source)["a.weight"], tensors_of(tmp_path / "wide.gguf")["a.weight"]
    assert after.tensor_type == Q8_0
    assert np.array_equal(decoded(after), decoded(before))


def test_fields_stay_as_they_are(tmp_path: Path) -> None:
    source = write(tmp_path / "source.gguf", {"a.weight": (values(), Q4_1)})
    widen(source, tmp_path / "wide.gguf")
    before, after = (gguf.GGUFReader(str(path)).fields for path in (source, tmp_path / "wide.gguf"))
    names = [name for name in before if not name.startswith("GGUF.")]
    assert {name: before[name].contents() for name in names} == {name: after[name].contents() for name in names}
    assert after["tokenizer.ggml.tokens"].contents() == ["a", "<s>", "中"]


def test_a_file_without_such_tensors_is_left_alone(tmp_path: Path) -> None:
    source = write(tmp_path / "source.gguf", {"b.weight": (values(), Q4_0)})
    assert widen(source, tmp_path / "wide.gguf") == 0
    assert not (tmp_path / "wide.gguf").exists()


@given(st.integers(0, 2**31))
@settings(max_examples=20)
def test_its_error_is_far_below_that_of_a_rounded_zero_point(seed: int) -> None:
    """What openvino-genai does of the same block, worked out here."""
    raw = gguf.quants.quantize(values(seed, rows=16), Q4_1)
    true = gguf.quants.dequantize(raw, Q4_1).reshape(-1, 32)
    blocks = raw.reshape(-1, 20)
    scale, least = (blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32) for at in (0, 2))
    steps = np.rint((true - least) / scale)
    rounded = scale * (steps - np.round(-least / scale))
    wide = gguf.quants.dequantize(gguf.quants.quantize(true, Q8_0), Q8_0)
    assert np.square(wide - true).mean() < 0.1 * np.square(rounded - true).mean()


def test_all_of_fewer_bits_become_8_where_that_is_asked_for(tmp_path: Path) -> None:
    source = write(tmp_path / "source.gguf", {"a.weight": (values(1), Q4_1), "b.weight": (values(2), Q4_0)})
    assert widen(source, tmp_path / "wide.gguf", BELOW_8) == 2
    assert {tensor.tensor_type for tensor in tensors_of(tmp_path / "wide.gguf").values()} == {Q8_0}


def test_a_home_keeps_one_file_for_replicas_and_for_those_that_are_tried(tmp_path: Path) -> None:
    source = write(tmp_path / "source.gguf", {"a.weight": (values(), Q4_1), "b.weight": (values(2), Q4_0)})
    attempts = tmp_path / "run" / "attempts"
    kept = in_8_bits(source, attempts / "att-1", "sha256:abc")
    assert kept.parent == tmp_path / "run" / "widened"
    written = kept.stat().st_mtime_ns, kept.stat().st_ino
    tried = in_8_bits(source, attempts / "att-2" / "scratch" / "trial-0", "sha256:abc")
    assert (tried, tried.stat().st_ino) == (kept, written[1])
    every = in_8_bits(source, attempts / "att-3", "sha256:abc", BELOW_8)
    assert every != kept, "another form"
    assert in_8_bits(source, tmp_path / "alone", "sha256:abc").parent == tmp_path / "alone" / "scratch"


def test_a_file_that_has_nothing_to_widen_is_taken_itself(tmp_path: Path) -> None:
    source = write(tmp_path / "source.gguf", {"b.weight": (values(), Q4_0)})
    assert in_8_bits(source, tmp_path / "attempts" / "att-1", "sha256:abc") == source
    assert not list((tmp_path / "widened").iterdir())
