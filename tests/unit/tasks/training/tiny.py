"""A model small enough to train in a second, made on the spot, and data that it can learn."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import Report
from llm_os.tasks.context import Context, InputFolder

WORDS = ["good", "fine", "great", "bad", "poor", "awful", "film", "book", "the", "a", "was", "is", "very", "so"]


def tiny_model(folder: Path, **config: Any) -> InputFolder:
    """BERT with two layers of width 32 and a vocabulary of a few words, without a head; `config` goes to BertConfig."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    whole = BertConfig(
        vocab_size=config.pop("vocab_size", len(vocabulary)),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        **config,
    )
    BertModel(whole).save_pretrained(folder)
    meta = {
        "format": "safetensors",
        "task": "feature-extraction",
        "labels": None,
        "parameters": 30_000,
        "hidden_size": 32,
        "layers": 2,
        "context_length": 32,
    }
    return given(folder, "model", meta, "1")


def sentences(count: int) -> list[dict[str, Any]]:
    """Rows whose label follows from one word: good, fine, great against bad, poor, awful."""
    rows = []
    for i in range(count):
        word = WORDS[i % 6]
        rows.append(
            {
                "text": " ".join([WORDS[8 + i % 2], WORDS[6 + i // 2 % 2], WORDS[10 + i // 3 % 2], word]),
                "label": "positive" if i % 6 < 3 else "negative",
            }
        )
    return rows


def tiny_data(folder: Path, rows: list[dict[str, Any]], labels: list[str] | None = None) -> InputFolder:
    """A prepared data set with the same rows in both splits."""
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        lines = [json.dumps(row).encode() + b"\n" for row in rows]
        (folder / split / "rows.jsonl").write_bytes(b"".join(lines))
        offsets = [sum(map(len, lines[:i])) for i in range(len(lines) + 1)]
        (folder / split / "rows.idx").write_bytes(struct.pack(f"<{len(offsets)}Q", *offsets))
    names = ["negative", "positive"] if labels is None else labels
    return given(folder, "dataset", {"labels": names or None, "name": "tiny"}, "2")


def given(folder: Path, kind: str, meta: Mapping[str, Any], digit: str) -> InputFolder:
    facts = ArtifactFacts.model_validate({"digest": "sha256:" + digit * 64, "kind": kind, "size": 1000, "meta": meta})
    return InputFolder(folder, facts)


class Bench:
    """Runs a task in folders of its own and keeps its reports."""

    def __init__(self, root: Path, inputs: Mapping[str, InputFolder]) -> None:
        self.reports: list[Report] = []
        self.root = root
        for name in ("output", "checkpoints", "scratch"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self.context = Context(
            inputs=inputs,
            output=root / "output",
            checkpoints=root / "checkpoints",
            scratch=root / "scratch",
            threads=1,
            on_report=self.reports.append,
        )

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def result(self) -> dict[str, Any]:
        return dict(next(report for report in self.reports if report.kind == "result").values)

    @property
    def messages(self) -> list[str]:
        return [str(report.values["text"]) for report in self.reports if report.kind == "message"]

    @property
    def losses(self) -> list[float]:
        return list(json.loads((self.output / "history.json").read_text())["losses"])
