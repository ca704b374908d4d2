"""A classifier is loaded from whole safetensors only; every refusal comes before a framework is loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from llm_os.errors import BrokenWeightsError, ModelError, UnsafeWeightsError, UnsupportedModelError
from llm_os.models.load import load_classifier


def lay_out(folder: Path, architecture: str = "BertForSequenceClassification") -> Path:
    """A model folder with one tensor of four values; its weights' file."""
    config = {"architectures": [architecture], "id2label": {"0": "no", "1": "yes"}, "max_position_embeddings": 512}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    weights = folder / "model.safetensors"
    weights.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    return weights


def test_truncated_weights_are_named(tmp_path: Path) -> None:
    weights = lay_out(tmp_path)
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BrokenWeightsError, match=r"model\.safetensors"):
        load_classifier(tmp_path)


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    lay_out(tmp_path).unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    with pytest.raises(UnsafeWeightsError, match=r"pytorch_model\.bin"):
        load_classifier(tmp_path)


def test_a_model_without_a_head_is_refused_with_the_cure(tmp_path: Path) -> None:
    lay_out(tmp_path, "BertModel")
    with pytest.raises(UnsupportedModelError, match="train"):
        load_classifier(tmp_path)


def test_a_model_without_its_tokenizer_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        load_classifier(tmp_path)
